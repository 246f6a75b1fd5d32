"""A folder of results appears whole or not at all, and takes the place of nothing but earlier results."""

import pytest

from probem.errors import InputError
from probem.runs.folders import ENVIRONMENT, whole_folder


def results(folder, text):
    with whole_folder(folder) as partial:
        (partial / ENVIRONMENT).write_text('{"versions": {"probem": "0"}}')
        (partial / "result").write_text(text)


def test_a_folder_appears_whole(tmp_path):
    with whole_folder(tmp_path / "runs" / "a") as partial:
        assert not (tmp_path / "runs" / "a").exists()
        (partial / "result").write_text("1")
    assert (tmp_path / "runs" / "a" / "result").read_text() == "1"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]


def test_or_not_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), whole_folder(tmp_path / "runs" / "a") as partial:
        (partial / "result").write_text((partial / "absent").read_text())
    assert list(tmp_path.iterdir()) == []


def test_earlier_results_are_replaced_and_nothing_else_is(tmp_path):
    results(tmp_path / "a", "1")
    results(tmp_path / "a", "2")
    assert (tmp_path / "a" / "result").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    for name, text in (("letters", "dear"), (ENVIRONMENT, "[]")):
        folder = tmp_path / f"mine-{name}"
        folder.mkdir()
        (folder / name).write_text(text)
        with pytest.raises(InputError, match="exists and holds no results of probem"), whole_folder(folder):
            pass
        assert (folder / name).read_text() == text
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="exists and holds no results"), whole_folder(tmp_path / "file"):
        pass


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="on making a folder beside"), whole_folder(tmp_path / "file" / "a" / "b"):
        pass
