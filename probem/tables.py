"""Reading a table of numbers from a file: CSV, Parquet or NPY.

A file is data: nothing in it is unpickled or evaluated. An empty field, NA, NaN or null among numbers is a missing
value; whatever else is not a finite number is refused, with the name of its column.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError, nearest

if TYPE_CHECKING:
    import polars

_SHOWN = 8

# How a CSV file writes that a value is missing, beside an empty field.
_MISSING = ("NA", "na", "NaN", "nan", "NAN", "null", "Null", "NULL")


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of numbers, [N, D] in float64, and the name of every column; ``remark`` says what was assumed.

    They are finite, or NaN where a value is missing. The file holds ``rows * scale + centre``.
    """

    rows: np.ndarray
    columns: tuple[str, ...]
    remark: str = ""
    centre: np.ndarray | float = 0.0
    scale: np.ndarray | float = 1.0

    def standardised(self) -> "Table":
        """The same rows with mean 0 and standard deviation 1 in every column."""
        centre, scale = np.nanmean(self.rows, axis=0), np.nanstd(self.rows, axis=0)
        constant = [
            name
            for name, column in zip(self.columns, self.rows.T, strict=True)
            if np.nanmin(column) == np.nanmax(column)
        ]
        if constant:
            raise InputError(
                f"the same value in every row of {_named(constant)}", "columns that vary", "leave it out with --columns"
            )
        return dataclasses.replace(self, rows=(self.rows - centre) / scale, centre=centre, scale=scale)


def read(path: Path, columns: Sequence[str] | None = None) -> Table:
    """The numbers in a file, all columns or those named.

    Raises
    ------
    InputError : the file is missing, empty or broken, or holds anything but numbers and gaps in the columns chosen, or
        a column of gaps alone
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npy": _read_npy}
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(f"no file at {path}", "a CSV, Parquet or NPY file", "check the path")
    if path.is_dir():
        raise InputError(f"a folder at {path}", "a CSV, Parquet or NPY file", "name a file inside it")
    if suffix not in readers:
        found = f"the suffix '{suffix}'" if suffix else "no suffix"
        raise InputError(f"{found} on {path.name}", "one of .csv, .parquet, .npy", "rename or convert the file")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"an empty file at {path}", "rows of numbers", "check that it was written to its end")
        return readers[suffix](path, columns)
    except OSError as error:
        raise InputError(
            f"{error.strerror or error} on reading {path}", "a readable file", "check it and its permissions"
        ) from None


def _read_csv(path: Path, columns: Sequence[str] | None) -> Table:
    import polars

    # Read here, so that a path is a path and not a pattern of polars.
    content = path.read_bytes()
    try:
        first = polars.read_csv(content, n_rows=1, has_header=False, infer_schema=False, null_values=_MISSING).row(0)
        fields = [field for text in first if (field := (text or "").strip())]
        # A first row of numbers, and maybe gaps, is a row, not the names of the columns.
        headless = bool(fields) and all(map(_is_number, fields))
        frame = polars.read_csv(content, infer_schema_length=None, has_header=not headless, null_values=_MISSING)
    except polars.exceptions.NoDataError:
        raise InputError(f"nothing but blanks in {path}", "rows of numbers", "check the file") from None
    except polars.exceptions.PolarsError as error:
        if "utf-8" in str(error):
            raise InputError(f"bytes in {path} that are not UTF-8", "a text file", "save it as UTF-8") from None
        raise _broken(path, "CSV", error, "rows with as many fields as the first, separated by commas") from None
    remark = f"{path.name} has no header; the names given are {', '.join(frame.columns[:_SHOWN])}." if headless else ""
    return _of_frame(_without_blanks(frame), path, columns, remark)


def _without_blanks(frame: "polars.DataFrame") -> "polars.DataFrame":
    """The frame read as if no blanks stood around its commas."""
    import polars

    if len({name.strip() for name in frame.columns}) == frame.width:
        frame = frame.rename(str.strip)
    texts = frame.select(polars.selectors.string().str.strip_chars())
    texts = texts.select(polars.when(~polars.all().is_in(["", *_MISSING])).then(polars.all()))
    numbers = texts.cast(polars.Float64, strict=False)
    return frame.with_columns(
        [numbers[name] for name in texts.columns if numbers[name].null_count() == texts[name].null_count()]
    )


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Table:
    import polars

    try:
        frame = polars.read_parquet(path.read_bytes())
    except polars.exceptions.PolarsError as error:
        raise _broken(path, "Parquet", error, "a whole Parquet file") from None
    return _of_frame(frame, path, columns, "")


def _read_npy(path: Path, columns: Sequence[str] | None) -> Table:
    with path.open("rb") as file:
        is_array = file.read(6) in (b"\x93NUMPY", b"PK\x03\x04\x14\x00", b"PK\x03\x04-\x00")
    if not is_array:
        raise InputError(f"something else than an array in {path}", "what numpy.save writes", "write it with that")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        if "Object" in str(error):
            raise InputError(
                f"Python objects in {path}", "an array of numbers", "save it with numpy.save(path, array.astype(float))"
            ) from None
        raise _broken(path, "NPY", error, "a whole NPY file") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"an archive of arrays in {path}", "one array", "save it with numpy.save")
    if array.dtype.kind not in "biuf":
        raise InputError(f"an array of {array.dtype} in {path}", "an array of real numbers", "convert it before saving")
    if array.ndim not in (1, 2):
        raise InputError(f"an array of shape {array.shape} in {path}", "shape [N] or [N, D]", "reshape it")
    rows = array.astype(np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    names = tuple(f"column_{number}" for number in range(rows.shape[1]))
    chosen = _chosen(names, columns, path)
    return _checked(Table(rows[:, [names.index(name) for name in chosen]], chosen), path)


def _of_frame(frame: "polars.DataFrame", path: Path, columns: Sequence[str] | None, remark: str) -> Table:
    import polars

    frame = frame.select(_chosen(tuple(frame.columns), columns, path))
    if len(frame) == 0:
        raise InputError(f"no rows in {path}, only the names of its columns", "at least one row", "check the file")
    empty = [name for name, count in frame.null_count().row(0, named=True).items() if count == len(frame)]
    numeric = [name for name, kind in frame.schema.items() if kind.is_numeric() or kind == polars.Boolean]
    others = [name for name in frame.columns if name not in (*numeric, *empty)]
    if others:
        raise _not_numbers(frame, others, numeric, path)
    # A column of gaps alone has no type of its own.
    rows = frame.cast(dict.fromkeys(frame.columns, polars.Float64)).to_numpy()
    return _checked(Table(np.ascontiguousarray(rows), tuple(frame.columns), remark), path)


def _not_numbers(frame: "polars.DataFrame", others: list[str], numeric: list[str], path: Path) -> InputError:
    import polars

    first = frame[others[0]]
    example = ""
    if first.dtype == polars.String:
        wrong = [(row, text) for row, text in enumerate(first, start=1) if text is not None and not _is_number(text)]
        example = f" ('{wrong[0][1][:40]}' in row {wrong[0][0]})" if wrong else ""
    if len(frame.columns) == 1 and any(mark in others[0] for mark in ";\t"):
        return InputError(f"one column named {others[0]!r} in {path}", "fields separated by commas", "convert the file")
    remedy = f"choose with --columns {','.join(numeric[:_SHOWN])}" if numeric else "convert them to numbers"
    return InputError(f"no numbers in {_named(others)} of {path}{example}", "columns of numbers", remedy)


def _checked(table: Table, path: Path) -> Table:
    """The table, with a remark on what is missing in it."""
    if 0 in table.rows.shape:
        shape = table.rows.shape
        raise InputError(f"an array of shape {shape} in {path}", "at least one row and column", "check the file")
    infinite, missing = np.isinf(table.rows), np.isnan(table.rows)
    if infinite.any():
        raise InputError(
            f"{_counted(int(infinite.sum()), 'value')} infinite in {_named(_with_any(table, infinite))} of {path}",
            "finite numbers, or an empty field where a value is missing",
            "mend them, drop those rows, or leave these columns out with --columns",
        )
    empty = [name for name, column in zip(table.columns, missing.T, strict=True) if column.all()]
    if empty:
        raise InputError(
            f"no value at all in {_named(empty)} of {path}",
            "at least one in each column",
            "leave these columns out with --columns",
        )
    if not missing.any():
        return table
    found = f"{_counted(int(missing.sum()), 'value')} missing in {_named(_with_any(table, missing))} of {path.name}."
    return dataclasses.replace(table, remark=f"{table.remark} {found}".strip())


def _with_any(table: Table, marked: np.ndarray) -> list[str]:
    """The columns in which anything is marked ``[N, D]``."""
    return [name for name, column in zip(table.columns, marked.T, strict=True) if column.any()]


def _chosen(names: tuple[str, ...], columns: Sequence[str] | None, path: Path) -> tuple[str, ...]:
    for name in columns or ():
        if name not in names:
            raise InputError(f"the column '{name}'", f"a column of {path} ({_named(names)})", nearest(name, names))
    if columns and len(set(columns)) < len(columns):
        raise InputError(f"--columns {','.join(columns)}", "every column once", "leave the repeated one out")
    return tuple(columns) if columns else names


def _broken(path: Path, kind: str, error: Exception, expected: str) -> InputError:
    reason = " ".join(str(error).split("\n\n")[0].split())[:200].rstrip(".")
    return InputError(f"{path}, which cannot be read as {kind} ({reason})", expected, "mend the file or write it again")


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"column{'s' if len(names) > 1 else ''} {', '.join(names[:_SHOWN])}{more}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
