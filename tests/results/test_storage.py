"""Fits on disk: all of a fit comes back, nothing is run, and no half-written file is left."""

import dataclasses
import os
import pickle
import stat
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import probem
from probem import InputError
from probem.results import storage
from tests.programs.fits import KMEANS, PROGRAM, X, hard, soft


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


class Measured(NamedTuple):
    place: np.ndarray
    shift: np.ndarray
    count: np.ndarray


def structured(data) -> None:
    """One program of three arrays, in a dict with a nested tuple or in a named tuple."""
    place, (shift, count) = (data[0], data[1:]) if isinstance(data, Measured) else (data["place"], data["rest"][0])
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    with numpyro.plate("data", place.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(0.5))
        numpyro.sample("place", dist.Normal(loc[t] + shift, 1.0), obs=place)
        numpyro.sample("count", dist.Poisson(jnp.array([1.0, 3.0])[t]), obs=count)


COUNTS = np.random.default_rng(0).poisson(2.0, len(X))


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in ("dict", "named tuple")])
def test_data_of_any_structure_but_that_of_a_class(tmp_path, kind: str) -> None:
    """JSON has no named tuples: what could not be told from a tuple on loading is refused on saving."""
    dictionary = {"rest": ((X[:, 1], COUNTS),), "place": X[:, 0]}
    data = dictionary if kind == "dict" else Measured(X[:, 0], X[:, 1], COUNTS)
    fit = probem.fit(structured, data, init=probem.Parameters({}), max_steps=2, throw=False)
    if kind == "named tuple":
        message = r"^got data in a Measured; expected arrays, or dicts with text keys, [^;]*; [^\n]*\.$"
        with pytest.raises(InputError, match=message):
            fit.save(tmp_path / "fit.npz")
        assert os.listdir(tmp_path) == []
        return
    fit.save(tmp_path / "fit.npz")
    loaded = probem.load(tmp_path / "fit.npz", structured)
    np.testing.assert_array_equal(loaded.predict(data), fit.predict(data))
    np.testing.assert_array_equal(loaded.log_density(data), fit.log_density(data))
    assert loaded.plan == fit.plan
    own = scipy.stats.norm.logpdf(X[:, :1], fit.params["loc"] + X[:, 1:], 1.0)
    expected = np.log(0.5) + own + scipy.stats.poisson.logpmf(COUNTS[:, None], [1.0, 3.0])
    np.testing.assert_allclose(loaded.log_density(data), np.logaddexp.reduce(expected, axis=1), rtol=1e-12)
    with pytest.raises(InputError, match="as fitted; match them"):
        loaded.predict({"rest": (X[:, 1], COUNTS), "place": X[:, 0]})


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
        np.savez(path, meta=np.array('{"format": 3}'))


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
    with pytest.raises(InputError, match=r"format 99 in .*; expected format 3"):
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
