"""CSV and Parquet files as pandas, R and spreadsheets write them."""

import io
import re

import numpy as np
import pandas as pd
import polars
import pytest

from probem.errors import InputError
from probem.runs import tables

ROWS = np.array([[3.5, 70.0], [2.25, 54.0], [4.5, 80.0]])
FRAME = pd.DataFrame(ROWS, columns=["a", "b"])
UNNAMED = ("0", "1")


def read(tmp_path, content, **options):
    path = tmp_path / "x.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return tables.read(path, **options)


def savetxt():
    file = io.BytesIO()
    np.savetxt(file, ROWS, delimiter=",", header="a,b")
    return file.getvalue()


# What was written, the names of the columns, what is said.
WRITTEN = {
    "pandas without names": (
        pd.DataFrame(ROWS).to_csv(index=False),
        UNNAMED,
        "0,1 in line 1 of .* was taken for the n",
    ),
    "pandas without names, index": (pd.DataFrame(ROWS).to_csv(), UNNAMED, "has no name and was taken for the index"),
    "pandas with index": (FRAME.to_csv(), ("a", "b"), r"taken for the index, .* \(0, ...\): it is left out"),
    "pandas, index filtered": (FRAME.set_axis([5, 9, 2]).to_csv(), ("a", "b"), r"\(5, ...\)"),
    "pandas, index of names": (FRAME.set_axis(["u", "v", "w"]).to_csv(), ("a", "b"), r"\(u, ...\)"),
    "R write.csv": ('"","a","b"\n"1",3.5,70\n"2",2.25,54\n"3",4.5,80\n', ("a", "b"), "taken for the index"),
    "R write.table": ('"a","b"\n"1",3.5,70\n"2",2.25,54\n"3",4.5,80\n', ("a", "b"), "taken for the index"),
    "R, years as names": ('"1990","1991"\n3.5,70\n2.25,54\n4.5,80\n', ("1990", "1991"), "^$"),
    "numpy.savetxt": (savetxt(), ("a", "b"), "^$"),
    "comments": ("# drawn\n# 2020\na,b\n3.5,70\n2.25,54\n4.5,80", ("a", "b"), "^2 lines with # at the beginning"),
    "spreadsheet, decimal comma": (
        "a;b\r\n3,5;70\r\n2,25;54\r\n4,5;80\r\n",
        ("a", "b"),
        "semicolons. .* decimal comma",
    ),
    "spreadsheet, sep=": ("sep=;\r\na;b\r\n3.5;70\r\n2.25;54\r\n4.5;80\r\n", ("a", "b"), "^The fields .* semicolons.$"),
    "decimal comma, no header": ("3,5;70\n2,25;54\n4,5;80\n", ("column_0", "column_1"), "no header"),
    "tabs, UTF-16": ("a\tb\r\n3.5\t70\r\n2.25\t54\r\n4.5\t80\r\n".encode("utf-16"), ("a", "b"), "by tabs"),
    "quoted numbers": ('"a","b"\n"3.5","70"\n"2.25","54"\n"4.5","80"\n', ("a", "b"), "^$"),
    "separator at the ends": ("a,b,\n3.5,70,\n2.25,54,\n4.5,80,\n", ("a", "b"), "^$"),
    "separator at the ends of rows": ("a,b\n3.5,70,\n2.25,54,\n4.5,80,\n", ("a", "b"), "^$"),
    "an old Mac": ("a,b\r3.5,70\r2.25,54\r4.5,80\r", ("a", "b"), "^$"),
    "blank lines, Windows": ("a,b\r\r\n3.5,70\r\r\n2.25,54\r\r\n4.5,80\r\r\n", ("a", "b"), "^$"),
    "blank lines": ("\na,b\n\n3.5,70\n   \n2.25,54\n,\n4.5,80\n\n,\n", ("a", "b"), "^6 blank lines of x.csv skipped.$"),
    "exponents": ("a,b\n+3.5e0,7E1\n225e-2,54.\n4.5,80\n", ("a", "b"), "^$"),
}


@pytest.mark.parametrize(("content", "columns", "said"), WRITTEN.values(), ids=WRITTEN)
def test_reads_what_others_write(tmp_path, content, columns, said):
    table = read(tmp_path, content)
    np.testing.assert_array_equal(table.rows, ROWS)
    assert table.columns == columns
    assert re.search(said, table.remark), table.remark


def test_pandas_reads_the_same(tmp_path):
    content = 'a,b,text\n1,2,u\n\n,1e-3,v\n3,NA,"w, x"\n'
    table = read(tmp_path, content, columns=["a", "b"])
    np.testing.assert_array_equal(table.rows, pd.read_csv(io.StringIO(content))[["a", "b"]])
    assert table.remark == "1 blank line of x.csv skipped. 2 values missing in columns a, b of x.csv."


def test_the_options_decide(tmp_path):
    counts = "0,1\n1,0\n0,1\n1,1\n"
    np.testing.assert_array_equal(read(tmp_path, counts, header=False).rows, [[0, 1], [1, 0], [0, 1], [1, 1]])
    assert read(tmp_path, counts, header=True).columns == ("0", "1")
    assert read(tmp_path, "id,a,b\n7,3.5,70\n8,2,3\n", index="id").columns == ("a", "b")
    assert read(tmp_path, FRAME.to_csv(), columns=["column_0", "a"]).columns == ("column_0", "a")
    counted = "a,b\n" + "".join(f"{row},{row**2}\n" for row in range(1, 12))
    assert "Column a counts the rows from 1 to 11" in read(tmp_path, counted).remark


def test_the_index_of_pandas_in_a_parquet_file(tmp_path):
    frame = polars.DataFrame({"a": ROWS[:, 0], "b": ROWS[:, 1], "__index_level_0__": [4, 0, 2]})
    frame.write_parquet(tmp_path / "x.parquet", metadata={"pandas": '{"index_columns": ["__index_level_0__"]}'})
    table = tables.read(tmp_path / "x.parquet")
    np.testing.assert_array_equal(table.rows, ROWS)
    assert "the index that pandas wrote, left out" in table.remark
    assert tables.read(tmp_path / "x.parquet", ["__index_level_0__"]).rows.tolist() == [[4], [0], [2]]


REFUSED = {
    "a field too many": ("x,y\n1,2\n3,4,5\n", {}, "got 3 fields in line 3 of .*; expected 2, as in line 1"),
    "a field too few": ("x,y\n1,2\n\n3\n", {}, "got 1 field in line 4 of"),
    "flags or names": ("0,1\n1,0\n1,1\n", {}, "got 0,1 in line 1 of .*; expected names.*--header or --no-header"),
    "years or a row": ("1990,1991\n3.5,7.5\n2.5,0.5\n", {}, "got 1990,1991 in line 1 of"),
    "commas and points": ("a;b\n1,5;2\n2.5;3\n", {}, "a comma in line 2 of .* with a point in line 3 of"),
    "thousands": ('a,b\n1,2\n"1,000",3\n', {}, r"no numbers in column a of .* \('1,000' in line 3\)"),
    "underscores": ("a,b\n1,2\n1_000,3\n", {}, r"\('1_000' in line 3\)"),
    "names twice": ("a,a\n1,2\n", {}, "got two columns named a in line 1 of"),
    "a measurement without a name": (",b\n1.5,2\n2.5,3\n", {}, "without a name .* that is no index .*--index column_0"),
    "an index twice": (",b\n1,2\n1,3\n", {}, "that is no index"),
    "no such index": ("a,b\n1,2\n", {"index": "c"}, "got the column 'c'"),
    "nothing but an index": ("a\n1\n", {"index": "a"}, "got no column but column a"),
    "the index chosen": ("a,b\n1,2\n", {"index": "a", "columns": ["a"]}, "in --index and in --columns"),
    "a quote left open": ('a,b\n1,"2\n3,4\n', {}, "in line 2|line 2"),
    "nothing below the names": ("a,b\n\n\n", {}, "no rows in"),
    "UTF-16 without a mark": ("a,b\n1,2\n".encode("utf-16-le"), {}, "a byte of zero in line 1 of"),
    "not UTF-8": (b"a,b\n1,2\n\xe9,3\n", {}, "bytes in line 3 of"),
}


@pytest.mark.parametrize(("content", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses_what_can_be_read_in_two_ways(tmp_path, content, options, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, content, **options)


def test_refuses_a_header_where_there_is_none(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    with pytest.raises(InputError, match=r"got --no-header for x\.npy"):
        tables.read(tmp_path / "x.npy", header=False)
