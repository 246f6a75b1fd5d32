"""``probem check``: the theory of the bound on a program and its data."""

import dataclasses
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import probem
from probem.checking.report import worst
from probem.runs.process import FAILED

from .console import console
from .fitting import choose


def run(*, html: Path | None, seed: int, max_steps: int, **choice: Any) -> int:
    """Check, print and write; the exit code."""
    output = console()
    table, program, families = choose(output, **choice)
    report = probem.check(program, table.rows, families=families, key=seed, max_steps=max_steps)
    # As it was asked for: the function under a name of probem.models may have another.
    report = dataclasses.replace(report, program=str(choice["model"]).rpartition(":")[2])
    if html is not None:
        html.write_text(report.to_html(), encoding="utf-8")
    _print(output, report)
    if html is not None:
        output.print(f"Written to {escape(str(html))}", soft_wrap=True)
    return 0 if report.holds else FAILED


def _print(output: Console, report: probem.Report) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim", no_wrap=True)
    table.add_column("compared (of each kind, the closest call)", overflow="fold")
    for heading in ("residual", "tolerance"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in worst(report.rows):
        verdict = "[green]holds[/]" if row.holds else "[bold red]fails[/]"
        name = f"{row.compared} ({row.half_step})" if row.half_step else row.compared
        table.add_row(row.claim, escape(name), f"{row.residual:.1e}", f"{row.tolerance:.0e}", verdict)
    output.print(table)
    for remark in report.remarks:
        output.print(f"Not compared: {escape(remark)}", highlight=False)
    output.print(escape(report.summary), highlight=False)
