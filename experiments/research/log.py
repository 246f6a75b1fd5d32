"""Results line by line in a file that only grows: whoever ends the process, what was done is kept."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probem.errors import InputError


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of a cell for one seed.

    Attributes
    ----------
    key : a digest of all that the numbers depend on
    axes : the value of every path that a grid varies
    seed : its seed
    result : how the fit ended, the name of a ``Result``; REFUSED, ERROR or DIED where there is none
    message : what was said about it
    values : the numbers measured, by name
    """

    key: str
    axes: Mapping[str, Any]
    seed: int
    result: str
    message: str
    values: Mapping[str, float]

    def as_line(self) -> str:
        """One line of JSON; a number that is not finite, which JSON lacks, becomes its name."""
        values = {name: value if math.isfinite(value) else str(value) for name, value in self.values.items()}
        return json.dumps(dataclasses.asdict(self) | {"values": values}, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def of_line(cls, line: str) -> "Row":
        """The row of a line.

        Raises
        ------
        ValueError : the line holds something else
        """
        fields = json.loads(line)
        if not isinstance(fields, dict) or set(fields) != {field.name for field in dataclasses.fields(cls)}:
            raise ValueError("no result of a cell")
        values = {name: float(value) for name, value in fields.pop("values").items()}
        return cls(values=values, **fields)


def append(path: Path, rows: Sequence[Row]) -> None:
    """Add rows to the end of a file, in one write."""
    with path.open("ab", buffering=0) as file:
        file.write("".join(row.as_line() for row in rows).encode())


def resumed(path: Path) -> dict[str, Row]:
    """The rows of a file by their keys, the last of a key; half a line at its end is cut off.

    Raises
    ------
    InputError : there is something else in it
    """
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    rows = {}
    for number, line in enumerate(content[:whole].decode(errors="replace").split("\n")[:-1], start=1):
        try:
            row = Row.of_line(line)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(
                f"line {number} of {path}, which is no result of a cell", "a file of results", "name another with --out"
            ) from None
        rows[row.key] = row
    return rows
