"""The component table: what a fit says about every component, as a terminal can show it."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

# What fits a screen; the rest is in the files.
_COMPONENTS, _COLUMNS = 20, 10


def show(output: Console, params: Mapping[str, np.ndarray], counts: np.ndarray, columns: Sequence[str]) -> None:
    """Print the rows and share of every component, then each parameter, one line a component."""
    total = len(counts)
    scalars = {name: value for name, value in params.items() if value.shape == (total,)}
    table = _table("component", "rows", "share", *scalars)
    for k in range(min(total, _COMPONENTS)):
        table.add_row(str(k), *map(_number, (counts[k], counts[k] / counts.sum(), *(s[k] for s in scalars.values()))))
    output.print(table)
    for name, value in sorted(params.items(), key=lambda item: item[1].ndim):
        if name not in scalars:
            _show_one(output, name, value, total, columns)
    widest = max((value.shape[-1] for value in params.values() if value.ndim), default=0)
    if total > _COMPONENTS or widest > max(_COLUMNS, total):
        output.print(
            f"At most {_COMPONENTS} components and {_COLUMNS} columns are shown; parameters.json has them all."
        )


def _show_one(output: Console, name: str, value: np.ndarray, total: int, columns: Sequence[str]) -> None:
    """One parameter: a number, or lines labelled by component and (for matrices) by column."""
    if value.ndim == 0:
        output.print(f"{name} = {_number(value)}\n")
        return
    per_component = value.ndim > 1 and len(value) == total
    headings = _headings(value.shape[-1], columns)
    if value.ndim > 2 + per_component:
        output.print(f"{name}: an array of shape {value.shape}, in parameters.npz\n")
        return
    matrix = value.ndim == 2 + per_component
    table = _table(name, *([""] if matrix and per_component else []), *headings)
    shown = value if per_component else value[None]
    for k, entry in enumerate(shown[:_COMPONENTS]):
        first = str(k) if per_component else ""
        if not matrix:
            table.add_row(first, *map(_number, entry[:_COLUMNS]))
            continue
        for line, label in zip(entry[:_COLUMNS], _headings(len(entry), columns), strict=True):
            labels = (first, label) if per_component else (label,)
            table.add_row(*labels, *map(_number, line[:_COLUMNS]))
            first = ""
    output.print(table)


def _headings(size: int, columns: Sequence[str]) -> list[str]:
    names = columns if len(columns) == size else [str(number) for number in range(size)]
    return list(names[:_COLUMNS])


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right")
    return table


def _number(value: float | np.ndarray) -> str:
    return f"{float(value):.4g}"
