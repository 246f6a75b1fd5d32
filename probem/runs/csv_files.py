"""CSV files as pandas, R and spreadsheets write them: which lines are rows, and which fields are names or an index.

What was taken for what is said in a sentence. What can be read in two ways is refused, with its line.
"""

import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from probem.errors import InputError

if TYPE_CHECKING:
    import polars

#: How files say that a value is missing, beside an empty field.
MISSING = ("NA", "na", "NaN", "nan", "NAN", "null", "Null", "NULL", "#N/A", "<NA>", "None")
_SEPARATORS = {b",": "commas", b";": "semicolons", b"\t": "tabs"}
# Between the fields of what was in quotes: no text contains it.
_UNIT = "\x1f"
# Names that could as well be a row of data: whole numbers, in no more columns than this.
_FEW = 2
_WHOLE = r"^[+-]?\d+$"
_COMMA = r"^[+-]?\d*,\d+([eE][+-]?\d+)?$"
_POINT = r"^[+-]?\d*\.\d+([eE][+-]?\d+)?$"
_ASK = "say which with --header or --no-header"


@dataclasses.dataclass(frozen=True)
class CsvFile:
    """The fields of every row as text, with names; the line of every row in the file, counted from 1.

    ``index`` is the name given to a first column that has none; ``remarks`` say what was taken for what.
    """

    frame: "polars.DataFrame"
    lines: Sequence[int]
    index: str | None
    remarks: tuple[str, ...]


@dataclasses.dataclass
class _Lines:
    """The lines of a file that are not blank: their fields as text, their numbers in the file."""

    path: Path
    fields: list[str]
    numbers: list[int]
    separator: str
    remarks: list[str]
    # Whether the first line has quotes around a field below which numbers have none.
    first_is_text: bool = False
    # Whether a comma in a number can be that of decimals, as it separates no fields.
    may_have_commas: bool = False

    def place(self, row: int) -> str:
        return f"line {self.numbers[row]} of {self.path}"

    def split(self, row: int) -> list[str]:
        return [field.strip() for field in self.fields[row].split(self.separator)]


def read_csv(path: Path, header: bool | None) -> CsvFile:
    """The rows of a file; ``header`` says whether its first line holds the names of columns, None finds out.

    Raises
    ------
    InputError : the file is no text or has no rows, a line has more or fewer fields than the others, a name is there
        twice, or the file can be read in two ways
    """
    lines = _lines(path)
    row_names = _check_widths(lines)
    first, frame = lines.split(0), _frame(lines)
    if lines.may_have_commas:
        first, frame = _with_points(lines, first, frame)
    if header is None:
        header = row_names or _has_header(lines, first, frame)
    numbers = lines.numbers
    if header:
        frame, numbers = frame[1:], numbers[1:]
    elif row_names:
        raise InputError(f"{lines.place(0)} with a field less than the rows", "as many", "leave --no-header out")
    if len(frame) == 0:
        raise InputError(f"no rows in {path}, only the names of its columns", "at least one row", "check the file")
    names = first if header else [""] * frame.width
    while frame.width > 1 and not names[-1] and frame[:, -1].null_count() == len(frame):
        # Every line ends with a separator.
        frame, names = frame[:, :-1], names[:-1]
    nameless = [number for number, name in enumerate(names) if not name]
    names = [name or f"column_{number}" for number, name in enumerate(names)]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise InputError(f"two columns named {name} in {lines.place(0)}", "a name for each", "rename one")
    frame.columns = names
    index = names[0] if header and 0 in nameless and frame.width > 1 else None
    nameless = nameless[index is not None :]
    if not header:
        lines.remarks.append(f"{path.name} has no header; the names given are {', '.join(names[:8])}.")
    elif nameless:
        lines.remarks.append(f"Columns without a name are called {', '.join(names[place] for place in nameless)}.")
    return CsvFile(frame, numbers, index, tuple(lines.remarks))


def is_number(text: str) -> bool:
    """Whether a field is a number as NumPy, R and spreadsheets write it: Python's own may have underscores."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _is_missing(text: str) -> bool:
    return not text or text in MISSING


def _lines(path: Path) -> _Lines:
    """What is not blank, its separators found and its quotes taken off."""
    # Read here, so that a path is a path and not a pattern of polars.
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content.decode("utf-16", errors="replace").encode()
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"bytes in line {line} of {path} that are not UTF-8", "text", "save it as UTF-8") from None
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise InputError(f"a byte of zero in line {line} of {path}", "text", "save it as UTF-8")
    # The ends of lines of Unix and Windows, "\r\n" written as text by Windows once more, and those of old Macs.
    texts = re.sub(rb"\r+\n|\r", b"\n", content).split(b"\n")
    stated = re.fullmatch(rb"sep=(.)\s*", texts[0], re.IGNORECASE)
    if stated:
        # Spreadsheets may begin a file so.
        texts[0] = b""
    kept = [number for number, text in enumerate(texts) if text.strip(b" \t,;")]
    if not kept:
        raise InputError(f"nothing but blanks in {path}", "rows of numbers", "check the file")
    blank = len(texts) - len(kept) - (not texts[-1]) - bool(stated)
    remarks = [f"{_counted(blank, 'blank line')} of {path.name} skipped."] if blank else []
    comments = 0
    while comments < len(kept) - 1 and texts[kept[comments]].lstrip().startswith(b"#"):
        comments += 1
    separator = stated[1] if stated else _separator([texts[number] for number in kept[comments : comments + 100]])
    if comments and _is_names(texts[kept[comments - 1]], texts[kept[comments]], separator):
        comments -= 1
        texts[kept[comments]] = texts[kept[comments]].lstrip().lstrip(b"#").lstrip()
    if comments:
        remarks.append(f"{_counted(comments, 'line')} with # at the beginning of {path.name} skipped.")
    kept = kept[comments:]
    if separator != b",":
        remarks.append(f"The fields of {path.name} are separated by {_SEPARATORS.get(separator, separator.decode())}.")
    fields = [texts[number].decode() for number in kept]
    numbers = [number + 1 for number in kept]
    lines = _Lines(path, fields, numbers, separator.decode(), remarks, may_have_commas=separator != b",")
    return _without_quotes(lines) if b'"' in content else lines


def _is_names(comment: bytes, line: bytes, separator: bytes) -> bool:
    """Whether a line that begins with # has the names of the columns, as that of numpy.savetxt."""
    names = comment.lstrip().lstrip(b"#").decode().split(separator.decode())
    fields = line.decode().split(separator.decode())
    numeric = [is_number(field) for field in fields]
    return len(names) == len(fields) and any(numeric) and not any(map(is_number, names))


def _separator(texts: Sequence[bytes]) -> bytes:
    """What stands in every line outside of quotes; a comma may be that of decimals where something else does."""
    texts = [re.sub(rb'"[^"]*"', b"", text) for text in texts]
    for separator in (b";", b"\t"):
        if all(separator in text for text in texts):
            return separator
    return b","


def _without_quotes(lines: _Lines) -> _Lines:
    first, second = ([field.strip() for field in text.split(lines.separator)] for text in (lines.fields * 2)[:2])
    first_is_text = any(name.startswith('"') and is_number(below) for name, below in zip(first, second, strict=False))
    fields, numbers = [], []
    reader = csv.reader((f"{text}\n" for text in lines.fields), delimiter=lines.separator, skipinitialspace=True)
    start = 0
    try:
        for row in reader:
            # A line end inside of quotes is a blank.
            fields.append(_UNIT.join(row).replace("\n", " ") or "NA")
            numbers.append(lines.numbers[start])
            start = reader.line_num
    except csv.Error as error:
        raise InputError(
            f"line {lines.numbers[start]} of {lines.path}: {error}", "quotes in pairs", "mend it"
        ) from None
    return dataclasses.replace(
        lines,
        fields=fields,
        numbers=numbers,
        separator=_UNIT,
        first_is_text=first_is_text and len(first) == len(second),
    )


def _check_widths(lines: _Lines) -> bool:
    """Refuse a line with more or fewer fields than the rest; whether all rows have one more than the first line, the
    names of rows in R.
    """
    widths = [text.count(lines.separator) for text in lines.fields]
    expected = widths[1] if len(set(widths[1:])) == 1 and widths[1] == widths[0] + 1 else widths[0]
    for row, width in enumerate(widths[1:], start=1):
        if width != expected:
            raise InputError(
                f"{_counted(width + 1, 'field')} in {lines.place(row)}",
                f"{expected + 1}, as in line {lines.numbers[0]}",
                "mend the file: leave a field empty where a value is missing, and write numbers with a point",
            )
    if expected == widths[0]:
        return False
    if all(text.endswith(lines.separator) for text in lines.fields[1:]):
        # Every row ends with a separator that is not in the line of names.
        lines.fields[1:] = [text[:-1] for text in lines.fields[1:]]
        return False
    lines.fields[0] = lines.separator + lines.fields[0]
    return True


def _frame(lines: _Lines) -> "polars.DataFrame":
    import polars

    frame = polars.read_csv(
        "\n".join(lines.fields).encode(),
        has_header=False,
        infer_schema=False,
        separator=lines.separator,
        quote_char=None,
    ).select(polars.all().str.strip_chars())
    return frame.select(polars.when(~polars.all().is_in(["", *MISSING])).then(polars.all()))


def _has_header(lines: _Lines, first: list[str], frame: "polars.DataFrame") -> bool:
    """Whether the first line holds names: as a rule where it is not numbers like those below."""
    rows = frame[1:]
    numeric = [is_number(text) for text in first]
    if not any(numeric) or len(rows) == 0:
        return not all(number or _is_missing(text) for number, text in zip(numeric, first, strict=True))
    below = [_all_numbers(rows[:, column]) for column in range(frame.width)]
    texts = [column for column, text in enumerate(first) if not numeric[column] and not _is_missing(text)]
    if lines.first_is_text or any(below[column] for column in texts):
        return True
    # pandas calls columns 0, 1, ..., and an index nothing.
    start = 1 if not first[0] else 0
    counted = first[start:] == [str(number) for number in range(len(first) - start)]
    whole = all(re.search(_WHOLE, text) for text, number in zip(first, numeric, strict=True) if number)
    fractions = [column for column in range(frame.width) if numeric[column] and below[column]]
    unlike = whole and all(_no_whole_number(rows[:, column]) for column in fractions)
    if counted and (unlike or len(first) - start > _FEW or start == 1):
        lines.remarks.append(f"{_listed(first)} in {lines.place(0)} was taken for the names of the columns.")
        return True
    if counted or unlike or (texts and whole):
        raise InputError(f"{_listed(first)} in {lines.place(0)}", "names of columns, or a row of numbers", _ASK)
    return False


def _all_numbers(column: "polars.Series") -> bool:
    import polars

    present = column.drop_nulls()
    return present.cast(polars.Float64, strict=False).null_count() == 0


def _no_whole_number(column: "polars.Series") -> bool:
    return not column.drop_nulls().str.contains(_WHOLE).any()


def check_index(table: CsvFile, path: Path) -> str:
    """What is said of a first column without a name, if it can be an index: no fractions, nothing twice, no gaps.

    Raises
    ------
    InputError : it may be a measurement
    """
    assert table.index is not None
    column = table.frame[table.index]
    fractions = _all_numbers(column) and not column.drop_nulls().str.contains(_WHOLE).all()
    if column.null_count() or column.n_unique() < len(column) or fractions:
        raise InputError(
            f"a first column without a name in {path} that is no index (it has fractions, gaps or repeated values)",
            "a name for it, or one whole number or text for each row",
            f"leave it out with --index {table.index}, or choose with --columns",
        )
    return (
        f"The first column of {path.name} has no name and was taken for the index, numbers or names of the rows"
        f" ({column[0]}, ...): it is left out."
    )


def _with_points(lines: _Lines, first: list[str], frame: "polars.DataFrame") -> tuple[list[str], "polars.DataFrame"]:
    """Numbers with a decimal comma written with a point, if no number has a point."""
    import polars

    commas = frame.select(polars.all().str.contains(_COMMA).fill_null(False)).select(any=polars.any_horizontal("*"))
    if not commas["any"].any():
        return first, frame
    points = frame.select(polars.all().str.contains(_POINT).fill_null(False)).select(any=polars.any_horizontal("*"))
    if points["any"].any():
        raise InputError(
            f"a number with a comma in {lines.place(commas['any'].arg_max() or 0)} and one with a point in"
            f" {lines.place(points['any'].arg_max() or 0)}",
            "one mark before decimals and none between thousands",
            "write all numbers alike",
        )
    lines.remarks.append("Numbers have a decimal comma.")
    first = [text.replace(",", ".") if re.search(_COMMA, text) else text for text in first]
    every = polars.all()
    return first, frame.select(
        polars.when(every.str.contains(_COMMA)).then(every.str.replace(",", ".", literal=True)).otherwise(every)
    )


def _listed(texts: Sequence[str]) -> str:
    return ",".join(texts[:8]) + (",..." if len(texts) > 8 else "")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
