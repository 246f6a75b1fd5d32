"""The criterion F + log K!, and which programs it is for."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.models import GaussianPrior, bayesian_gmm, stick_breaking
from probem.program.reading import read
from probem.selection.symmetry import log_relabellings

ROWS = np.random.default_rng(0).standard_normal((12, 2)) + np.repeat([[-4.0], [4.0]], 6, axis=0)
PRIOR = GaussianPrior(np.zeros(2), 0.5, 4.0, np.eye(2))


def centres(x, K, order=False):
    """Locations by themselves, of which ``order`` makes the first component another one."""
    with numpyro.plate("components", K):
        place = 1.0 * jnp.arange(K) if order else 0.0
        loc = numpyro.sample("loc", dist.Normal(place, 5.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.full(K, 1 / K)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def two_assignments(x):
    with numpyro.plate("three", 3):
        loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
    with numpyro.plate("two", 2):
        shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.full(3, 1 / 3)))
        s = numpyro.sample("s", dist.Categorical(probs=jnp.full(2, 1 / 2)))
        numpyro.sample("x", dist.Normal(loc[t] + shift[s], 1.0), obs=x)


def relabellings(program, *data):
    return log_relabellings(read(program, data))


@pytest.mark.slow
@pytest.mark.parametrize("K", [1, 2, 3])
def test_components_alike_have_all_relabellings(K):
    # Two columns: a parameter of two entries for each component is not taken for one of two components.
    program = functools.partial(bayesian_gmm, num_components=K, prior=PRIOR)
    assert relabellings(program, ROWS) == pytest.approx(math.log(math.factorial(K)))


def test_several_assignments_are_relabelled_each_by_itself():
    assert relabellings(two_assignments, ROWS[:, 0]) == pytest.approx(math.log(6 * 2))


@pytest.mark.parametrize(
    "program",
    [
        functools.partial(bayesian_gmm, num_components=2, prior=PRIOR, weights=stick_breaking),
        functools.partial(centres, K=2, order=True),
    ],
    ids=["sticks", "priors in an order"],
)
def test_components_that_differ_are_refused(program):
    rows = ROWS if program.func is bayesian_gmm else ROWS[:, 0]
    with pytest.raises(probem.InputError, match=r"components of 't' that are not exchangeable.*use criterion='elbo'"):
        relabellings(program, rows)


@pytest.mark.slow
def test_it_is_chosen_by_name():
    found = probem.select(
        centres, ROWS[:, 0], over={"K": [1, 2]}, criterion="log_evidence", families=probem.VARIATIONAL_BAYES
    )
    assert [row.log_evidence - row.elbo for row in found.table] == pytest.approx([0.0, math.log(2)])
    assert found.best_settings == {"K": 2}
    assert "F + log K!" in str(found)
    assert found.to_dict()["log_evidence"] == [row.log_evidence for row in found.table]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": probem.EM}, "for a point on 'loc'.*VARIATIONAL_BAYES"),
        (
            {"families": probem.VARIATIONAL_BAYES, "labels": np.zeros(12, int)},
            "beside labels=.*every numbering of them is as probable",
        ),
    ],
)
def test_it_is_refused_where_it_means_nothing(options, message):
    with pytest.raises(probem.InputError, match=message):
        probem.select(centres, ROWS[:, 0], over={"K": [2]}, criterion="log_evidence", **options)
