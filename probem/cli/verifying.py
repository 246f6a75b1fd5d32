"""``probem verify``: settings from the file and the options, live progress, the table, the exit code."""

import importlib.resources
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from probem.errors import InputError, nearest
from probem.experiments.claims.datasets import DATASETS
from probem.experiments.outcomes.all_claims import NAMES
from probem.experiments.outcomes.record import Verification, VerifySettings
from probem.experiments.report.report import count, number, shown
from probem.experiments.verification import verify
from probem.runs.config import read
from probem.runs.process import FAILED, INTERRUPTED

from .console import console


def run(
    claims: list[str] | None,
    data: list[str] | None,
    config: Path | None,
    seed: int | None,
    out: Path | None,
    full: bool = False,
) -> int:
    """Verify, print and write; the exit code."""
    settings = read(config or importlib.resources.files("probem.configs") / "verify.yaml", VerifySettings)
    _check_names("claim", claims, NAMES)
    _check_names("data set", data, tuple(DATASETS))
    given = {"claims": claims, "data": data, "seed": seed, "output": str(out) if out else None} | (
        {"full": True} if full else {}
    )
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    errors = console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def progress(step: verify.Step) -> None:
            bar.update(task, description=step.what, completed=step.done, total=step.total)

        verification, folder = verify.main(settings, progress)

    _print(verification, folder)
    if verification.interrupted:
        return INTERRUPTED
    return FAILED if verification.failed else 0


def _check_names(what: str, names: list[str] | None, choices: tuple[str, ...]) -> None:
    for name in names or ():
        if name not in choices:
            raise InputError(f"the {what} '{name}'", f"one of {', '.join(choices)}", nearest(name, choices))


def _print(verification: Verification, folder: Path) -> None:
    output = console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("claim", "data", "compared (exact, and the closest call)"):
        table.add_column(heading, overflow="fold")
    for heading in ("of", "residual", "tolerance"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for outcome in verification.outcomes:
        rows = [(check.compared, number(check.residual), number(check.tolerance)) for check in shown(outcome.checks)]
        rows += [(outcome.error, "", "")] if outcome.error else []
        for place, (said, residual, tolerance) in enumerate(rows):
            last = place == len(rows) - 1
            verdict = "[green]holds[/]" if outcome.holds else "[bold red]fails[/]"
            table.add_row(
                outcome.claim.id,
                outcome.dataset,
                escape(said),
                str(len(outcome.checks)) if last else "",
                residual,
                tolerance,
                verdict if last else "",
            )
    output.print(table)
    for remark in verification.remarks:
        output.print(escape(remark))
    if verification.interrupted:
        output.print("Interrupted: this is what was done until then.")
    failing = verification.failed
    holding = len(verification.outcomes) - len(failing)
    output.print(
        f"{count(len(verification.checks), 'comparison')} in {verification.seconds:.0f} s: "
        f"{count(holding, 'claim on a data set holds', 'claims on data sets hold')}, "
        + (
            f"[bold red]{number(len(failing))} fail[/]: {', '.join(f'{o.claim.id} on {o.dataset}' for o in failing)}."
            if failing
            else "none fails."
        )
    )
    output.print(f"Report: {escape(str(folder / 'report.html'))}", soft_wrap=True)
