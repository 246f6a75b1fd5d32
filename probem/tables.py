"""Reading a table of numbers from a file: CSV, Parquet or NPY.

A file is data: nothing in it is unpickled or evaluated. Whatever is not a finite number is refused, with the name of
its column.
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


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of finite numbers, [N, D] in float64, and the name of every column; ``remark`` says what was assumed.

    The file holds ``rows * scale + centre``.
    """

    rows: np.ndarray
    columns: tuple[str, ...]
    remark: str = ""
    centre: np.ndarray | float = 0.0
    scale: np.ndarray | float = 1.0

    def standardised(self) -> "Table":
        """The same rows with mean 0 and standard deviation 1 in every column."""
        centre, scale = self.rows.mean(axis=0), self.rows.std(axis=0)
        constant = [name for name, column in zip(self.columns, self.rows.T, strict=True) if (column == column[0]).all()]
        if constant:
            raise InputError(
                f"the same value in every row of {_named(constant)}", "columns that vary", "leave it out with --columns"
            )
        return dataclasses.replace(self, rows=(self.rows - centre) / scale, centre=centre, scale=scale)


def read(path: Path, columns: Sequence[str] | None = None) -> Table:
    """The numbers in a file, all columns or those named.

    Raises
    ------
    InputError : the file is missing, empty or broken, or holds anything but finite numbers in the columns chosen
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
        frame = polars.read_csv(content, infer_schema_length=None)
        # A first row of numbers is a row, not the names of the columns.
        headless = all(_is_number(name) for name in polars.read_csv(content, n_rows=0).columns)
        if headless:
            frame = polars.read_csv(content, infer_schema_length=None, has_header=False)
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
    return _finite(Table(rows[:, [names.index(name) for name in chosen]], chosen), path)


def _of_frame(frame: "polars.DataFrame", path: Path, columns: Sequence[str] | None, remark: str) -> Table:
    import polars

    frame = frame.select(_chosen(tuple(frame.columns), columns, path))
    numeric = [name for name, kind in frame.schema.items() if kind.is_numeric() or kind == polars.Boolean]
    others = [name for name in frame.columns if name not in numeric]
    if len(frame) == 0:
        raise InputError(f"no rows in {path}, only the names of its columns", "at least one row", "check the file")
    if others:
        raise _not_numbers(frame, others, numeric, path)
    empty = {name: count for name, count in frame.null_count().row(0, named=True).items() if count}
    if empty:
        raise InputError(
            f"{_counted(sum(empty.values()), 'empty field')} in {_named(empty)} of {path}",
            "a number in every field",
            "fill them in, drop those rows, or leave these columns out with --columns",
        )
    rows = frame.cast(dict.fromkeys(frame.columns, polars.Float64)).to_numpy()
    return _finite(Table(np.ascontiguousarray(rows), tuple(frame.columns), remark), path)


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


def _finite(table: Table, path: Path) -> Table:
    if 0 in table.rows.shape:
        shape = table.rows.shape
        raise InputError(f"an array of shape {shape} in {path}", "at least one row and column", "check the file")
    wrong = ~np.isfinite(table.rows)
    if wrong.any():
        names = [name for name, column in zip(table.columns, wrong.T, strict=True) if column.any()]
        raise InputError(
            f"{_counted(int(wrong.sum()), 'value')} NaN or infinite in {_named(names)} of {path}",
            "finite numbers",
            "fill them in, drop those rows, or leave these columns out with --columns",
        )
    return table


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


def _named(names: Sequence[str] | dict[str, int]) -> str:
    names = list(names)
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
