"""Tables read from users' files."""

import numpy as np
import polars
import pytest

from probem.errors import InputError
from probem.runs import tables


def written(path, content):
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, polars.DataFrame):
        content.write_parquet(path)
    else:
        np.save(path, content, allow_pickle=True)
    return path


READABLE = [
    ("a.csv", "x,y\n1,2\n3,4.5\n", ("x", "y"), [[1, 2], [3, 4.5]]),
    ("blanks.csv", "x, y\n1, 2\n 3, 4.5\n", ("x", "y"), [[1, 2], [3, 4.5]]),
    ("headless.csv", "1,2\n3,4.5\n", ("column_0", "column_1"), [[1, 2], [3, 4.5]]),
    ("flags.csv", "x,flag\n1,true\n2,false\n", ("x", "flag"), [[1, 1], [2, 0]]),
    ("[x]*.CSV", b"\xef\xbb\xbfx\r\n1\r\n", ("x",), [[1]]),
    ("a.parquet", polars.DataFrame({"x": [1, 2], "y": [0.5, 1.5]}), ("x", "y"), [[1, 0.5], [2, 1.5]]),
    ("line.npy", np.arange(2), ("column_0",), [[0], [1]]),
    ("plane.npy", np.array([[1, 2]], np.float32), ("column_0", "column_1"), [[1, 2]]),
]


@pytest.mark.parametrize(("name", "content", "columns", "rows"), READABLE, ids=[case[0] for case in READABLE])
def test_reads(tmp_path, name, content, columns, rows):
    table = tables.read(written(tmp_path / name, content))
    assert table.columns == columns
    assert table.rows.dtype == np.float64
    np.testing.assert_array_equal(table.rows, rows)


def test_a_file_without_a_header_is_named_as_such(tmp_path):
    assert "no header" in tables.read(written(tmp_path / "a.csv", "1,2\n3,4\n")).remark


REFUSED = [
    ("a.csv", "", "got an empty file at"),
    ("a.csv", "\n\n", "got nothing but blanks"),
    ("a.csv", "x,y\n", "got no rows in"),
    ("a.csv", "x,y\n1,\n3,NA\n", "got no value at all in column y of"),
    ("a.csv", "x,y\n,\n3,nan\n", "got no value at all in column y of"),
    ("a.csv", "x,y,z\n1,a,2\n3,b,4\n", r"got no numbers in column y of .* \('a' in line 2\); .*--columns x,z"),
    ("a.csv", "x,y\n1,a\n2,NA\n", r"got no numbers in column y of .* \('a' in line 2\)"),
    ("a.csv", "x,y\n1,n/a\n2,2\n", r"\('n/a' in line 2\)"),
    ("a.csv", "x,y\n1,?\n2,2\n3,3\n", r"got 1 value among 3 in column y of .* that is no number \('\?' in line 2\)"),
    ("a.csv", "name\na\n", "convert them to numbers"),
    ("a.csv", "x,y\nNaN,1\ninf,2\n", "got 1 value infinite in column x of"),
    ("a.csv", b"x\n\xe9\n", "not UTF-8"),
    ("a.parquet", b"PAR1", "cannot be read as Parquet"),
    ("a.parquet", polars.DataFrame({"x": [None, None]}), "got no value at all in column x"),
    ("a.parquet", polars.DataFrame({"x": ["a"]}), "got no numbers in column x"),
    ("a.npy", b"x" * 200, "something else than an array"),
    ("a.npy", np.array([{}], object), "got Python objects in"),
    ("a.npy", np.array(["a"]), "got an array of <U1"),
    ("a.npy", np.ones(3, complex), "got an array of complex128"),
    ("a.npy", np.array(1.0), r"got an array of shape \(\)"),
    ("a.npy", np.ones((2, 2, 2)), r"got an array of shape \(2, 2, 2\)"),
    ("a.npy", np.ones((0, 2)), r"got an array of shape \(0, 2\)"),
    ("a.npy", np.array([[1, np.nan]]), "got no value at all in column column_1"),
    ("a.npy", np.array([[1, np.inf]]), "got 1 value infinite in column column_1"),
    ("a.txt", "1", "got the suffix '.txt'"),
    ("table", "1", "got no suffix on table"),
]


@pytest.mark.parametrize(("name", "content", "message"), REFUSED, ids=[case[2] for case in REFUSED])
def test_refuses(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        tables.read(written(tmp_path / name, content))


GAPS = [
    ("empty.csv", "x,y\n1,\n,4.5\n"),
    ("blank.csv", "x, y\n1, \n ,4.5\n"),
    ("marks.csv", "x,y\n1,NA\nnull,4.5\n"),
    ("quoted.csv", 'x,y\n1,"NaN"\n"",4.5\n'),
    ("blanks around.csv", "x,y\n1, NA\n nan,4.5\n"),
    ("gaps.parquet", polars.DataFrame({"x": [1, None], "y": [np.nan, 4.5]})),
    ("gaps.npy", np.array([[1, np.nan], [np.nan, 4.5]])),
]


@pytest.mark.parametrize(("name", "content"), GAPS, ids=[case[0] for case in GAPS])
def test_reads_what_is_missing(tmp_path, name, content):
    table = tables.read(written(tmp_path / name, content))
    np.testing.assert_array_equal(table.rows, [[1, np.nan], [np.nan, 4.5]])
    assert "2 values missing in columns" in table.remark


def test_flags_and_first_rows_may_have_gaps(tmp_path):
    table = tables.read(written(tmp_path / "flags.csv", "x,flag\n1,true\n2,NA\n3,\n"))
    np.testing.assert_array_equal(table.rows[:, 1], [1, np.nan, np.nan])
    table = tables.read(written(tmp_path / "headless.csv", "1,NA,1\n3,4.5,6\n"))
    np.testing.assert_array_equal(table.rows, [[1, np.nan, 1], [3, 4.5, 6]])
    assert "no header" in table.remark
    assert "1 value missing in column column_1" in table.remark


def test_refuses_an_array_cut_short_and_an_archive(tmp_path):
    path = written(tmp_path / "a.npy", np.ones(100))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="cannot be read as NPY"):
        tables.read(path)
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))
    with pytest.raises(InputError, match="got an archive of arrays"):
        tables.read(path)


def test_refuses_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="got no file at"):
        tables.read(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="got a folder at"):
        tables.read(tmp_path)


def test_chooses_columns(tmp_path):
    path = written(tmp_path / "a.csv", "x,name,y\n1,a,2\n3,b,4\n")
    table = tables.read(path, ["y", "x"])
    assert table.columns == ("y", "x")
    np.testing.assert_array_equal(table.rows, [[2, 1], [4, 3]])
    with pytest.raises(InputError, match=r"got the column 'nam'; .*; did you mean 'name'"):
        tables.read(path, ["nam"])
    with pytest.raises(InputError, match="expected every column once"):
        tables.read(path, ["x", "x"])


def test_standardises(tmp_path):
    table = tables.read(written(tmp_path / "a.csv", "x,y\n1,5\n3,9\n")).standardised()
    np.testing.assert_allclose(table.rows, [[-1, -1], [1, 1]], rtol=1e-15)
    np.testing.assert_allclose(table.rows * table.scale + table.centre, [[1, 5], [3, 9]], rtol=1e-15)
    table = tables.read(written(tmp_path / "gaps.csv", "x,y\n1,5\n3,\n,9\n")).standardised()
    np.testing.assert_allclose(table.rows, [[-1, -1], [1, np.nan], [np.nan, 1]], rtol=1e-15)
    with pytest.raises(InputError, match="the same value in every row of column y"):
        tables.read(written(tmp_path / "c.csv", "x,y\n1,5\n3,5\n5,\n")).standardised()
    with pytest.raises(InputError, match="the same value in every row of column y"):
        tables.read(written(tmp_path / "b.csv", "x,y\n1,5\n3,5\n")).standardised()
