"""``probem verify``: settings from the file and the options, live progress, the table, the exit code."""

import importlib.resources
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from probem.errors import InputError, nearest
from probem.experiments.claims.datasets import DATASETS
from probem.experiments.claims.readings import GROUPS
from probem.experiments.outcomes.all_claims import NAMES
from probem.experiments.outcomes.record import Outcome, Verification, VerifySettings
from probem.experiments.report.report import closest_call, count, number, shown
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

    output, errors = console(), console(stderr=True)
    # Where both are the terminal, lines are printed above the bar.
    terminal = output if output.is_terminal else errors
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        printed = 0

        def progress(step: verify.Step) -> None:
            nonlocal printed
            bar.update(task, description=step.what, completed=step.done, total=step.total)
            if step.outcomes:
                if not printed:
                    output.print(_line(output, _HEADINGS))
                printed += 1
                _print_group(output, step.outcomes)

        verification, folder = verify.main(settings, progress)

    _print(output, verification, folder)
    if verification.interrupted:
        return INTERRUPTED
    return FAILED if verification.failed else 0


def _check_names(what: str, names: list[str] | None, choices: tuple[str, ...]) -> None:
    for name in names or ():
        if name not in choices:
            if what == "data set" and ({".", "/"} & set(name)):
                raise InputError(
                    f"the file '{name}' as a data set of verify",
                    f"one of its own ({', '.join(choices)})",
                    f"for a file of yours, probem check kmeans {name} --components 3, say",
                )
            raise InputError(f"the {what} '{name}'", f"one of {', '.join(choices)}", nearest(name, choices))


# Widths of the columns of a group, which fit a terminal of 80; a wider one shows more of the titles.
_WIDTHS, _TITLE, _MOST_TITLE = (3, 38, 5, 11, 11), 1, 68


def _print_group(output: Console, outcomes: tuple[Outcome, ...]) -> None:
    """A line for each claim: on how many data sets it holds, and the comparison that is nearest to failing."""
    letter = outcomes[0].claim.id[0]
    output.print(f"\n[bold]{letter}[/]  {escape(GROUPS[letter][0])}")
    for claim in dict.fromkeys(outcome.claim.id for outcome in outcomes):
        output.print(_line(output, _entries([outcome for outcome in outcomes if outcome.claim.id == claim])))


# Of the columns: the claim, on how many data sets it holds, and the comparison that came nearest to failing.
_HEADINGS = ("", "claim", "sets", "nearest", "allowed", "")


def _entries(outcomes: list[Outcome]) -> tuple[str, ...]:
    held, claim = sum(outcome.holds for outcome in outcomes), outcomes[0].claim
    closest = closest_call(outcomes)
    sides = (number(closest.residual), f"≤ {number(closest.tolerance)}") if closest else ("", "")
    verdict = "[green]holds[/]" if held == len(outcomes) else "[bold red]fails[/]"
    return claim.id, escape(claim.title), f"{held}/{len(outcomes)}", *sides, verdict


def _line(output: Console, entries: tuple[str, ...]) -> Table:
    table = Table.grid(padding=(0, 1))
    for place, width in enumerate(_WIDTHS):
        width = min(_MOST_TITLE, width + max(0, output.width - 80)) if place == _TITLE else width
        side = "left" if place <= _TITLE else "right"
        table.add_column(width=width, no_wrap=True, overflow="ellipsis", justify=side)
    table.add_column(no_wrap=True)
    table.add_row(*entries)
    return table


def _print(output: Console, verification: Verification, folder: Path) -> None:
    if verification.interrupted:
        output.print("\nInterrupted: this is what was done until then.")
    if verification.settings.full:
        output.print(_details(verification))
    output.print()
    for outcome in verification.failed:
        said = [check.compared for check in outcome.checks if not check.holds] + (
            [outcome.error] if outcome.error else []
        )
        output.print(f"[bold red]{outcome.claim.id} on {outcome.dataset}[/]: {escape('; '.join(said))}")
    for remark in verification.remarks:
        output.print(escape(remark))
    failing = verification.failed
    holding = len(verification.outcomes) - len(failing)
    output.print(
        f"{count(len(verification.checks), 'comparison')} in {verification.seconds:.0f} s. "
        f"Claims on data sets: {number(holding)} {'holds' if holding == 1 else 'hold'}, "
        + (
            f"[bold red]{number(len(failing))} fail[/]: {', '.join(f'{o.claim.id} on {o.dataset}' for o in failing)}."
            if failing
            else "none fails."
        )
    )
    output.print(f"Report: {escape(str(folder / 'report.html'))}", soft_wrap=True)


def _details(verification: Verification) -> Table:
    """Every claim on every data set: what is exact, and the closest call."""
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
    return table
