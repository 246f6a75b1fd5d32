"""Criteria against scikit-learn, mclust and formulas."""

import copy
import dataclasses
import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from sklearn.mixture import GaussianMixture

import probem
from probem.analysis.routes import make_plan
from probem.families.choice import choose_families
from probem.models import diagonal, full, gmm, spherical, tied
from probem.program.reading import read
from probem.selection.criteria import criterion_of, num_parameters
from tests.oracles import plain
from tests.programs.fits import KMEANS, PROGRAM, START, X, bayesian, normal_table
from tests.selection.grid import grid
from tests.sentences import refused

SKLEARN = {full: "full", tied: "tied", diagonal: "diag", spherical: "spherical"}


def other_side(fit: probem.Fit, covariance) -> GaussianMixture:
    """scikit-learn's mixture at the parameters of a fit."""
    params = {name: np.asarray(value) for name, value in fit.params.items()}
    mixture = GaussianMixture(len(params["loc"]), covariance_type=SKLEARN[covariance])
    mixture.weights_, mixture.means_ = params["weights"], params["loc"]
    if "scale" in params:
        mixture.precisions_cholesky_ = 1 / params["scale"]
    else:
        factor = np.linalg.inv(np.linalg.cholesky(params["covariance"]))
        mixture.precisions_cholesky_ = np.swapaxes(factor, -1, -2)
    return mixture


def assert_criteria(row: probem.Candidate, covariance) -> None:
    theirs = other_side(row.fit, covariance)
    np.testing.assert_allclose([row.bic, row.aic], [theirs.bic(X), theirs.aic(X)], rtol=1e-10)
    np.testing.assert_allclose(row.log_likelihood, theirs.score_samples(X).sum(), rtol=1e-10)
    certain = theirs.predict_proba(X).max(1)
    np.testing.assert_allclose(row.icl, theirs.bic(X) - 2 * np.log(certain).sum(), rtol=1e-10)
    assert row.num_parameters == theirs._n_parameters()


@pytest.mark.slow
def test_criteria_are_those_of_scikit_learn() -> None:
    for row in grid().table:
        assert_criteria(row, diagonal)
        assert row.elbo == row.fit.elbo


@pytest.mark.slow
def test_criteria_of_every_covariance() -> None:
    """The last name varies fastest; the posterior of ICL is the program's, whatever the family of the fit."""
    some, others = list(SKLEARN)[::2], list(SKLEARN)[1::2]
    over = {"num_components": [1, 3], "covariance": some}
    found = probem.select(gmm, X, over=over, criterion="icl", restarts=4)
    assert [tuple(row.settings.values()) for row in found.table] == [(K, own) for K in (1, 3) for own in some]
    hard = probem.select(gmm, X, over={"num_components": [3], "covariance": others}, families=probem.HARD_EM)
    for row in found.table + hard.table:
        assert_criteria(row, row.settings["covariance"])


@pytest.mark.slow
def test_what_is_fixed_as_a_whole_is_not_counted() -> None:
    fixed = {"covariance": np.stack([np.eye(2), np.full((2, 2), np.nan), np.eye(2)]), "weights": [0.2, 0.3, 0.5]}
    (row,) = probem.select(
        {"it": functools.partial(gmm, num_components=3)}, X, fixed=fixed, max_steps=5000, restarts=2
    ).table
    assert row.num_parameters == 0 + 6 + 3


def hierarchical(x):
    """``spread`` reaches the data through the prior of ``loc`` alone, and ``unused`` not at all."""
    spread = numpyro.sample("spread", dist.Gamma(2.0, 1.0))
    loc = numpyro.sample("loc", dist.Normal(0.0, spread).expand([3, 2]).to_event(2))
    numpyro.param("unused", jnp.zeros(5))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(("program", "count"), [(PROGRAM, 1 + 4 + 4), (KMEANS, 6), (hierarchical, 6)])
def test_free_parameters(program, count) -> None:
    known = read(program, (X,))
    assert num_parameters(make_plan(known, choose_families(known, None))) == count


@pytest.mark.slow
def test_faithful_as_mclust_has_it() -> None:
    """Three components of one covariance: log likelihood -1126.326, 11 parameters, BIC 2314.316 on this scale.

    Source: ``summary(Mclust(faithful))`` of the R package mclust 5.
    """
    x = np.loadtxt("experiments/data/old_faithful.csv", delimiter=",", skiprows=1)
    found = probem.select(gmm, x, over={"num_components": range(1, 5), "covariance": [full, tied]}, restarts=5)
    assert found.best_settings == {"num_components": 3, "covariance": tied}
    best = found.best_candidate
    assert best.num_parameters == 11
    np.testing.assert_allclose([best.log_likelihood, best.bic], [-1126.326, 2314.316], atol=0.03)


class HannanQuinn(probem.Criterion):
    """-2 L + 2 P log log N. Source: Hannan & Quinn (1979)."""

    name, label = "hannan_quinn", "HQ"

    def value(self, measures):
        return -2 * measures.log_likelihood + 2 * measures.num_parameters * math.log(math.log(measures.total_weight))


@pytest.mark.slow
def test_a_criterion_of_your_own() -> None:
    """Beside those that are known, in the table, the columns and the figure; the second program is refused."""
    found = probem.select({"two": PROGRAM, "three": KMEANS}, X, criterion=HannanQuinn(), init=START)
    two, three = found.table
    by_hand = -2 * plain.log_likelihood(normal_table(two.fit.params, X)) + 2 * 9 * math.log(math.log(len(X)))
    np.testing.assert_allclose(two.hannan_quinn, by_hand, rtol=1e-12)
    assert math.isnan(three.hannan_quinn)
    assert found.best_candidate is two
    assert {"BIC", "HQ"} < set(str(found).splitlines()[0].split())
    assert "* lowest HQ" in str(found)
    assert found.to_dict()["hannan_quinn"][0] == two.hannan_quinn
    assert found.plot().axes[0].get_ylabel() == "HQ (nats, lower is better)"
    assert copy.copy(two).bic == two.bic
    assert not hasattr(two, "bik")
    options: dict[str, Any] = {"criterion": HannanQuinn(), "families": probem.VARIATIONAL_BAYES}
    with pytest.raises(probem.InputError, match="criterion='hannan_quinn' for full posteriors of 'weights', 'loc'"):
        probem.select(bayesian, X, over={"num_components": [2, 3]}, **options)


class Bad(HannanQuinn):
    """Of three components alone it is no number."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def value(self, measures):
        if len(measures.fit.params["loc"]) < 3:
            return np.float32(2.5)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


BAD = {
    "criterion='hannan_quinn', whose value raises ZeroDivisionError (by zero)": ZeroDivisionError("by\nzero"),
    "criterion='hannan_quinn', whose value is None": None,
    "criterion='hannan_quinn', whose value is an array of shape (2,)": jnp.ones(2),
    "criterion='hannan_quinn', whose value is str": "3",
}


@pytest.mark.slow
@pytest.mark.parametrize("message", BAD)
def test_a_criterion_that_is_no_number_loses_no_fit(message: str) -> None:
    criterion, programs = Bad(BAD[message]), {"two": functools.partial(KMEANS, num_components=2), "three": KMEANS}
    selection = probem.select(programs, X, criterion=criterion)
    assert selection.best_settings == {"program": "two"}
    assert selection.best_candidate.hannan_quinn == 2.5
    three = selection.table[1]
    assert math.isnan(three.hannan_quinn)
    assert math.isfinite(three.bic)
    assert f"got {message}; expected one number (nats); " in three.message
    assert f"three: {three.message}" in str(selection).splitlines()[-1]
    with pytest.raises(probem.FitError, match=r"no finite HQ among the fits that converged \(1 of 1\)") as caught:
        probem.select({"three": KMEANS}, X, criterion=criterion)
    assert caught.value.fit.table[0].fit is not None
    assert "no fit with a finite HQ" in str(caught.value.fit)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (HannanQuinn, r"criterion=HannanQuinn, which is a class; .*; write criterion=HannanQuinn\(\)"),
        (type("C", (HannanQuinn,), {"name": None})(), "a criterion C without a name"),
        (type("C", (HannanQuinn,), {"label": 3})(), "a criterion C with label=3"),
        (type("C", (HannanQuinn,), {"label": "BIC"})(), "a criterion C with label='BIC', which another"),
        (type("C", (HannanQuinn,), {"label": "log p(X)"})(), r"a criterion C with label='log p\(X\)', which another"),
    ],
)
def test_criteria_without_words(criterion, message: str) -> None:
    with refused(message):
        criterion_of(criterion)


def test_names_that_candidates_have() -> None:
    fields = {field.name for field in dataclasses.fields(probem.Candidate)}
    for name in {*dir(probem.Candidate), *fields, "best"}:
        with refused(f"a criterion C with name='{name}', which a candidate has for something else"):
            criterion_of(type("C", (HannanQuinn,), {"name": name})())
    assert criterion_of(type("C", (HannanQuinn,), {"name": "bic", "label": "BIC"})()).name == "bic"
