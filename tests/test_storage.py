"""Fits on disk: all of a fit comes back, nothing is run, and no half-written file is left."""

import dataclasses
import os
import pickle
import stat

import numpy as np
import pytest
from fits import KMEANS, PROGRAM, X, hard, soft

import probem
from probem import InputError, storage


def test_all_of_a_fit_comes_back(tmp_path) -> None:
    path = tmp_path / "fit.npz"
    soft().save(path)
    fit = probem.load(path, PROGRAM)
    for name, value in soft().params.items():
        np.testing.assert_array_equal(fit.params[name], value)
    for name in ("elbo", "elbo_terms", "result", "num_steps", "component", "total_weight", "family", "families"):
        assert getattr(fit, name) == getattr(soft(), name)
    np.testing.assert_array_equal(fit.history.elbo, soft().history.elbo)
    np.testing.assert_array_equal(fit.history.half, soft().history.half)
    np.testing.assert_array_equal(fit.restart_elbos, soft().restart_elbos)
    np.testing.assert_array_equal(fit.counts, soft().counts)
    np.testing.assert_array_equal(fit.responsibilities(X), soft().responsibilities(X))
    np.testing.assert_array_equal(fit.log_density(X), soft().log_density(X))
    np.testing.assert_array_equal(fit.sample(0, 5)["x"], soft().sample(0, 5)["x"])


@pytest.mark.parametrize("family", [probem.Delta(), probem.Tempered(2.5), probem.TopC(2)], ids=repr)
def test_every_family_comes_back(tmp_path, family) -> None:
    dataclasses.replace(hard(), family=family).save(tmp_path / "fit.npz")
    assert probem.load(tmp_path / "fit.npz").family == family


def test_without_its_program_a_fit_holds_numbers_only(tmp_path) -> None:
    hard().save(tmp_path / "fit")  # no suffix is added
    fit = probem.load(str(tmp_path / "fit"))
    assert fit.elbo == hard().elbo
    assert fit.result is hard().result
    with pytest.raises(InputError, match=r"loaded without its program; .*; probem.load\(path, program\)"):
        fit.predict(X)


def test_another_program_is_refused(tmp_path) -> None:
    hard().save(tmp_path / "fit.npz")
    with pytest.raises(InputError, match=r"got a program with parameters .*; expected those of"):
        probem.load(tmp_path / "fit.npz", PROGRAM)
    assert probem.load(tmp_path / "fit.npz", KMEANS).plan is not None


class Trap:
    """What unpickling would run."""

    def __reduce__(self):
        return os.mkdir, ("trap",)


def _write(kind: str, path) -> None:
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("hello")
    elif kind == "half":
        soft().save(path)
        path.write_bytes(path.read_bytes()[:400])
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, X)
    elif kind == "other archive":
        np.savez(path, x=X)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Trap()))
    elif kind == "pickle inside":
        np.savez(path, meta=np.array([Trap()], dtype=object))
    elif kind == "folder":
        path.mkdir()
    elif kind == "broken line":
        np.savez(path, meta=np.array("{"))
    elif kind == "line without fields":
        np.savez(path, meta=np.array('{"format": 1}'))


KINDS = ("empty", "text", "half", "array", "other archive", "pickle", "pickle inside", "folder", "broken line")


@pytest.mark.parametrize("kind", [*KINDS, "line without fields"])
def test_what_is_no_fit_is_refused_and_not_run(tmp_path, monkeypatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fit.npz"
    _write(kind, path)
    with pytest.raises(InputError, match=r"which is not a saved fit \(\w+\); expected a file of Fit.save"):
        probem.load(path)
    assert not (tmp_path / "trap").exists()


def test_a_missing_file_and_another_format(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no file at '.*nowhere.npz'; expected a saved fit; check the path"):
        probem.load(tmp_path / "nowhere.npz")
    np.savez(tmp_path / "new.npz", meta=np.array('{"format": 99}'))
    with pytest.raises(InputError, match=r"format 99 in .*; expected format 1"):
        probem.load(tmp_path / "new.npz")


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    path = tmp_path / "fit.npz"
    hard().save(path)
    before = path.read_bytes()

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        soft().save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["fit.npz"]


def test_a_saved_file_has_the_rights_of_any_other(tmp_path) -> None:
    hard().save(tmp_path / "fit.npz")
    (tmp_path / "other").write_text("")
    assert stat.S_IMODE((tmp_path / "fit.npz").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_no_folder_to_write_to(tmp_path) -> None:
    with pytest.raises(InputError, match=r"on writing to .*; expected a folder to write to"):
        hard().save(tmp_path / "nowhere" / "fit.npz")


def test_a_fit_that_never_began_can_be_kept(tmp_path) -> None:
    labels = np.zeros(len(X), int)
    labels[7] = 1
    fit = probem.fit(PROGRAM, X, init=probem.Labels(labels), throw=False)
    fit.save(tmp_path / "fit.npz")
    assert probem.load(tmp_path / "fit.npz").result is probem.Result.SINGULAR
