"""A folder of results appears whole or not at all, and takes the place of nothing but earlier results."""

import json
import os

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


def write(folder, text, *names):
    with whole_folder(folder) as partial:
        (partial / ENVIRONMENT).write_text('{"versions": {"probem": "0"}}')
        (partial / "figures").mkdir()
        for name in ("result", "figures/a", *names):
            (partial / name).write_text(text)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_files_of_others_stay_in_a_folder_that_is_replaced(tmp_path):
    folder = tmp_path / "a"
    write(folder, "1", "only once")
    (folder / "figures/mine").write_text("mine")
    (folder / "notes/deep").mkdir(parents=True)
    (folder / "late").write_text("mine")
    os.symlink("/", folder / "link")
    write(folder, "2", "late")
    found = files(folder)
    assert list(json.loads(found.pop(ENVIRONMENT))["files"]) == ["figures/a", "late", "result"]
    assert found == {"result": "2", "figures/a": "2", "late": "2", "late.kept": "mine", "figures/mine": "mine"}
    assert (folder / "notes/deep").is_dir()
    assert os.readlink(folder / "link") == "/"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_put_there_in_the_meantime_stays(tmp_path):
    write(tmp_path / "a", "1")
    with whole_folder(tmp_path / "a") as partial:
        (partial / ENVIRONMENT).write_text('{"versions": {"probem": "0"}}')
        (partial / "result").write_text("2")
        (tmp_path / "a" / "result").write_text("changed meanwhile")
    assert (tmp_path / "a" / "result").read_text() == "2"
    assert (tmp_path / "a" / "result.kept").read_text() == "changed meanwhile"


def test_what_was_changed_since_or_never_listed_is_refused(tmp_path):
    write(tmp_path / "a", "1")
    (tmp_path / "a" / "result").write_text("changed")
    with pytest.raises(InputError, match=r"a/result, which was changed since .*; rename that file"):
        write(tmp_path / "a", "2")
    (tmp_path / "a" / ENVIRONMENT).write_text('{"versions": {"probem": "0"}}')
    with pytest.raises(InputError, match="without a list of the files"):
        write(tmp_path / "a", "2")
    assert (tmp_path / "a" / "result").read_text() == "changed"


def test_a_link_to_a_folder_stays_one(tmp_path):
    write(tmp_path / "a", "1")
    (tmp_path / "link").symlink_to("a")
    write(tmp_path / "link", "2")
    assert os.readlink(tmp_path / "link") == "a"
    assert files(tmp_path / "a")["result"] == "2"
