"""Reading a table of numbers from a file: CSV, Parquet or NPY.

A file is data: nothing in it is unpickled or evaluated. An empty field, NA, NaN or null among numbers is a missing
value; whatever else is not a finite number is refused, with the name of its column.
"""

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probem.errors import InputError, nearest
from probem.runs.csv_files import check_index, is_number, read_csv

if TYPE_CHECKING:
    import polars

_SHOWN = 8


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
        """The table with its rows shifted and scaled to mean 0 and standard deviation 1 in every column."""
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


def read(
    path: Path, columns: Sequence[str] | None = None, index: str | None = None, header: bool | None = None
) -> Table:
    """The numbers in a file, all columns or those named, but for ``index``, the column that names the rows.

    ``header`` says whether the first line of a CSV file holds the names of its columns; None finds out.

    Raises
    ------
    InputError : the file is missing, empty or broken, or holds anything but numbers and gaps in the columns chosen, or
        a column of gaps alone; or a CSV file can be read in two ways
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(f"no file at {path}", "a CSV, Parquet or NPY file", "check the path")
    if path.is_dir():
        raise InputError(f"a folder at {path}", "a CSV, Parquet or NPY file", "name a file inside it")
    if suffix not in (".csv", ".parquet", ".npy"):
        ending = f"the suffix '{suffix}'" if suffix else "no suffix"
        remedy = "unpack the file" if suffix in (".gz", ".zip", ".bz2", ".xz", ".zst") else "rename or convert the file"
        raise InputError(f"{ending} on {path.name}", "one of .csv, .parquet, .npy", remedy)
    if header is not None and suffix != ".csv":
        raise InputError(f"--{'' if header else 'no-'}header for {path.name}", "it for a CSV file", "leave it out")
    if index in (columns or ()):
        raise InputError(
            f"the column '{index}' in --index and in --columns", "it in one of them", "leave it out of one"
        )
    try:
        if path.stat().st_size == 0:
            raise InputError(f"an empty file at {path}", "rows of numbers", "check that it was written to its end")
        if suffix == ".npy":
            return _read_npy(path, columns, index)
        return _read_csv(path, columns, index, header) if suffix == ".csv" else _read_parquet(path, columns, index)
    except OSError as error:
        raise InputError(
            f"{error.strerror or error} on reading {path}", "a readable file", "check it and its permissions"
        ) from None


def _read_csv(path: Path, columns: Sequence[str] | None, index: str | None, header: bool | None) -> Table:
    text = read_csv(path, header)
    remarks = list(text.remarks)
    apart = [index] if index else []
    if text.index is not None and not columns and text.index != index:
        remarks.append(check_index(text, path))
        apart.append(text.index)
    chosen = _chosen(tuple(text.frame.columns), columns, apart, path)
    if not text.index and (counting := _counts(text.frame[chosen[0]].to_list())):
        remarks.append(
            f"Column {chosen[0]} counts the rows {counting}; if it is their index, leave it out with --index."
        )
    frame = text.frame.select(chosen)
    return _of_frame(frame.with_columns(_numbers(frame)), path, " ".join(remarks), text.lines)


def _counts(values: list[str | None]) -> str:
    """Whether texts count from 0 or 1, as row numbers do: in words, empty if not."""
    for start in (0, 1):
        if len(values) > 2 and values == [str(number) for number in range(start, start + len(values))]:
            return f"from {start} to {start + len(values) - 1}"
    return ""


def _numbers(frame: "polars.DataFrame") -> "list[polars.Series]":
    """The columns of texts that are all numbers or flags."""
    import polars

    numeric = []
    for column in frame:
        flags = column.str.to_lowercase().replace_strict({"true": 1.0, "false": 0.0}, default=None)
        numbers = column.cast(polars.Float64, strict=False)
        numeric += [candidate for candidate in (numbers, flags) if candidate.null_count() == column.null_count()][:1]
    return numeric


def _read_parquet(path: Path, columns: Sequence[str] | None, index: str | None) -> Table:
    import polars

    content = path.read_bytes()
    try:
        frame = polars.read_parquet(content)
        pandas = json.loads(polars.read_parquet_metadata(io.BytesIO(content)).get("pandas", "{}"))
    except (polars.exceptions.PolarsError, ValueError) as error:
        raise _broken(path, "Parquet", error, "a whole Parquet file") from None
    # A range of numbers has no column, and is described there instead.
    noted = [name for name in pandas.get("index_columns", ()) if isinstance(name, str) and name in frame.columns]
    apart = [*([index] if index else []), *(name for name in noted if not columns and name != index)]
    said = f"{_named(noted)} of {path.name}, the index that pandas wrote, left out.".capitalize()
    remark = said if noted and not columns else ""
    return _of_frame(frame.select(_chosen(tuple(frame.columns), columns, apart, path)), path, remark, None)


def _read_npy(path: Path, columns: Sequence[str] | None, index: str | None) -> Table:
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
    chosen = _chosen(names, columns, [index] if index else [], path)
    return _checked(Table(rows[:, [names.index(name) for name in chosen]], chosen), path)


def _of_frame(frame: "polars.DataFrame", path: Path, remark: str, lines: Sequence[int] | None) -> Table:
    """``lines`` are those of the rows in a text file."""
    import polars

    if len(frame) == 0:
        raise InputError(f"no rows in {path}, only the names of its columns", "at least one row", "check the file")
    empty = [name for name, count in frame.null_count().row(0, named=True).items() if count == len(frame)]
    numeric = [name for name, kind in frame.schema.items() if kind.is_numeric() or kind == polars.Boolean]
    others = [name for name in frame.columns if name not in (*numeric, *empty)]
    if others:
        raise _not_numbers(frame, others, numeric, path, lines)
    # A column of gaps alone has no type of its own.
    rows = frame.cast(dict.fromkeys(frame.columns, polars.Float64)).to_numpy()
    return _checked(Table(np.ascontiguousarray(rows), tuple(frame.columns), remark), path)


def _not_numbers(
    frame: "polars.DataFrame", others: list[str], numeric: list[str], path: Path, lines: Sequence[int] | None
) -> InputError:
    import polars

    first = frame[others[0]]
    example = ""
    if first.dtype == polars.String:
        wrong = [(row, text) for row, text in enumerate(first) if text is not None and not is_number(text)]
        place = f"line {lines[wrong[0][0]]}" if lines and wrong else f"row {wrong[0][0] + 1}" if wrong else ""
        example = f" ('{wrong[0][1][:40]}' in {place})" if wrong else ""
        if 0 < len(wrong) < first.len() / 2:
            several = "values" if len(wrong) > 1 else "value"
            return InputError(
                f"{len(wrong)} {several} among {first.len()} in column {others[0]} of {path} that "
                f"{'are' if len(wrong) > 1 else 'is'} no number{example}",
                "numbers, and for a missing value an empty field, NA, NaN or null",
                "mend the file, or leave the column out with --columns",
            )
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
    gaps = f"{_counted(int(missing.sum()), 'value')} missing in {_named(_with_any(table, missing))} of {path.name}."
    return dataclasses.replace(table, remark=f"{table.remark} {gaps}".strip())


def _with_any(table: Table, marked: np.ndarray) -> list[str]:
    """The columns in which anything is marked ``[N, D]``."""
    return [name for name, column in zip(table.columns, marked.T, strict=True) if column.any()]


def _chosen(names: tuple[str, ...], columns: Sequence[str] | None, apart: Sequence[str], path: Path) -> tuple[str, ...]:
    """The columns named, or all but those ``apart``."""
    for name in (*(columns or ()), *apart):
        if name not in names:
            raise InputError(f"the column '{name}'", f"a column of {path} ({_named(names)})", nearest(name, names))
    if columns and len(set(columns)) < len(columns):
        raise InputError(f"--columns {','.join(columns)}", "every column once", "leave the repeated one out")
    chosen = tuple(columns) if columns else tuple(name for name in names if name not in apart)
    if not chosen:
        raise InputError(f"no column but {_named(list(apart))} in {path}", "columns of numbers", "leave --index out")
    return chosen


def _broken(path: Path, kind: str, error: Exception, expected: str) -> InputError:
    reason = " ".join(str(error).split("\n\n")[0].split())[:200].rstrip(".")
    return InputError(f"{path}, which cannot be read as {kind} ({reason})", expected, "mend the file or write it again")


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"column{'s' if len(names) > 1 else ''} {', '.join(names[:_SHOWN])}{more}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
