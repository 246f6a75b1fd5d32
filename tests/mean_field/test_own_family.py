"""A family of one's own for a parameter: q of a location that does not depend on the precision in its prior."""

import copy
import dataclasses
import functools
import json
import pickle
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.families import Conjugate, ParameterFamily
from probem.mean_field.locations import LocationPosterior
from probem.results import storage
from tests.sentences import refused

X = np.random.default_rng(3).normal(1.0, 2.0, 30)
MEAN, STRENGTH, SHAPE, RATE = 0.3, 0.5, 2.0, 1.5


@dataclasses.dataclass(frozen=True)
class Independent(Conjugate):
    """A normal q of a location, whatever it depends on in its prior."""


class IndependentLocation(LocationPosterior, of=Independent):
    def tied_to(self, parent, cells):
        return self


@dataclasses.dataclass(frozen=True)
class Nowhere(ParameterFamily):
    """A family that no SitePosterior has."""

    @property
    def needs_conjugate_prior(self) -> bool:
        return True


def program(x) -> None:
    precision = numpyro.sample("precision", dist.Gamma(SHAPE, RATE))
    loc = numpyro.sample("loc", dist.Normal(MEAN, 1 / jnp.sqrt(STRENGTH * precision)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.ones(1)))
        numpyro.sample("x", dist.Normal(loc + 0 * t, 1 / jnp.sqrt(precision)), obs=x)


@functools.cache
def fitted(family: ParameterFamily) -> probem.Fit:
    families = {"loc": family, "precision": probem.Conjugate()}
    return probem.fit(program, X, families=families, tolerance=1e-14, max_steps=200)


@pytest.mark.slow
def test_a_family_of_ones_own_is_its_fixed_point() -> None:
    """Bishop (2006), eqs. 10.24 to 10.30: q(loc) q(precision) of one normal distribution."""
    fit, count = fitted(Independent()), len(X)
    loc, strength = (STRENGTH * MEAN + X.sum()) / (STRENGTH + count), STRENGTH + count
    shape, rate = SHAPE + 0.5 * (count + 1), RATE
    for _ in range(200):
        variance = rate / shape / strength
        squares = ((X - loc) ** 2).sum() + STRENGTH * (loc - MEAN) ** 2 + strength * variance
        rate = RATE + 0.5 * squares
    q = fit.posterior
    assert q["loc"].mean == pytest.approx(loc, rel=1e-9)
    assert q["loc"].variance == pytest.approx(variance, rel=1e-6)
    assert q["precision"].mean == pytest.approx(shape / rate, rel=1e-6)
    # q that may depend on the precision has the evidence itself.
    assert fit.elbo < fitted(probem.Conjugate()).elbo


def test_a_fit_a_file_and_explain_know_it(tmp_path) -> None:
    fit = fitted(Independent())
    assert fit.families == {"t": probem.Categorical(), "precision": probem.Conjugate(), "loc": Independent()}
    rows = {row.site: row for row in probem.explain(program, X, families={"loc": Independent()}).rows}
    assert rows["loc"].family == "Independent()"
    assert rows["precision"].family == "Delta() (MAP)"
    fit.save(tmp_path / "fit.npz")
    again = probem.load(tmp_path / "fit.npz", program)
    assert again.families == fit.families
    assert again.elbo_terms == pytest.approx(fit.elbo_terms)
    with np.load(tmp_path / "fit.npz") as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays["meta"]))
    meta["families"]["loc"] = ["Unheard", {}]
    np.savez(tmp_path / "other.npz", **arrays | {"meta": np.array(json.dumps(meta))})
    with pytest.raises(
        probem.InputError, match=r"the family Unheard of 'loc' in .*; expected one of .*Conjugate.*; imp"
    ):
        probem.load(tmp_path / "other.npz", program)
    assert probem.load(tmp_path / "other.npz").params.keys() == fit.params.keys()


@pytest.mark.slow
def test_a_file_from_before_families_were_in_it(tmp_path) -> None:
    fit = probem.fit(program, X, families={"precision": probem.Conjugate()})
    fit.save(tmp_path / "fit.npz")
    with np.load(tmp_path / "fit.npz") as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays["meta"]))
    del meta["families"]
    np.savez(tmp_path / "old.npz", **arrays | {"meta": np.array(json.dumps(meta))})
    old = probem.load(tmp_path / "old.npz", program)
    assert old.families == fit.families
    assert old.elbo_terms == pytest.approx(fit.elbo_terms)


def test_a_family_without_a_posterior_and_one_that_changes() -> None:
    with pytest.raises(probem.InputError, match=r"the family Nowhere\(\) on 'loc', a location of densities; expected"):
        probem.fit(program, X, families={"loc": Nowhere()})

    @dataclasses.dataclass(frozen=True)
    class Listed(Conjugate):
        numbers: list

    with pytest.raises(probem.InputError, match="Listed as the family of 'loc', which cannot be hashed; expected"):
        probem.fit(program, X, families={"loc": Listed([1])})


@dataclasses.dataclass(frozen=True)
class Noted(Conjugate):
    """That of a location as probem has it, with notes."""

    notes: Any = ()


@pytest.mark.slow
@pytest.mark.parametrize("notes", [(1, ("a", 2.5)), (np.int64(3), None, np.float32(0.5))], ids=repr)
def test_a_family_without_a_posterior_of_its_own_comes_back(tmp_path, notes) -> None:
    fit = fitted(Noted(notes))
    fit.save(tmp_path / "fit.npz")
    for again in (probem.load(tmp_path / "fit.npz", program), pickle.loads(pickle.dumps(fit)), copy.deepcopy(fit)):
        assert again.families["loc"] == Noted(notes)
        assert again.plan == fit.plan
        assert again.elbo_terms == pytest.approx(fit.elbo_terms)


def test_fields_that_json_cannot_write(tmp_path) -> None:
    fit = fitted(Noted(frozenset({1})))
    with refused(r"Noted.notes of type frozenset"):
        fit.save(tmp_path / "fit.npz")
    assert not list(tmp_path.iterdir())
    assert pickle.loads(pickle.dumps(fit)).families["loc"] == Noted(frozenset({1}))


@pytest.mark.slow
def test_a_fresh_process_unpickles_it(tmp_path) -> None:
    (tmp_path / "fit.pickle").write_bytes(pickle.dumps(fitted(Independent())))
    many = probem.fit_many(program, X[None], families={"loc": Noted((1,)), "precision": probem.Conjugate()})
    (tmp_path / "many.pickle").write_bytes(pickle.dumps(many))
    code = "import pickle, sys; [print(pickle.load(open(path, 'rb'))) for path in sys.argv[1:]]"
    paths = [str(tmp_path / name) for name in ("fit.pickle", "many.pickle")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ManyFits(1: " in done.stdout


@pytest.mark.slow
def test_a_pickle_from_before_families_were_in_it() -> None:
    fit = fitted(Noted((1,)))
    rebuild, (_, program, family, _) = fit.__reduce__()
    assert rebuild(storage.arrays_of(fit), program, family).families == fit.families
