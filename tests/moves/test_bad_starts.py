"""From random labels in twenty components to those of the data, beside ten restarts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.models import GaussianPrior, bayesian_covariance, dirichlet_process_gmm, stick_breaking


def answers(x: jax.Array, num_components: int) -> None:
    """A truncated Dirichlet process of independent yes-or-no answers."""
    weights = stick_breaking(num_components)
    with numpyro.plate("components", num_components):
        probs = numpyro.sample("probs", dist.Beta(1.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Bernoulli(probs[t]).to_event(1), obs=x)


def gaussians() -> tuple:
    """Five clusters in the plane, at least five standard deviations from one another."""
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0], [7.0, 7.0], [13.0, 2.0]])
    truth = random.integers(5, size=500)
    x = centres[truth] + random.normal(size=(500, 2))
    prior = GaussianPrior.from_data(jnp.asarray(x), 5)
    covariance = bayesian_covariance.diagonal
    return functools.partial(dirichlet_process_gmm, num_components=20, prior=prior, covariance=covariance), x, truth


def bernoulli() -> tuple:
    """Six classes, thirty items, many of which nearly all or nearly nobody of a class answers with yes."""
    random = np.random.default_rng(3)
    truth = random.integers(6, size=500)
    x = (random.random((500, 30)) < random.beta(0.5, 0.5, size=(6, 30))[truth]).astype(float)
    return functools.partial(answers, num_components=20), x, truth


@pytest.mark.slow
@pytest.mark.parametrize("scene", [gaussians, bernoulli])
def test_moves_end_higher_than_the_best_of_ten_restarts_in_fewer_steps(scene) -> None:
    program, x, truth = scene()
    fit = functools.partial(probem.fit, program, x, families=probem.VARIATIONAL_BAYES, verbose=0)
    start = fit(init=probem.Labels(np.random.default_rng(1).integers(20, size=len(x))))
    refined = probem.refine(start, x)
    restarts = [fit(key=seed) for seed in range(10)]
    assert (refined.counts > 0.5).sum() == len(np.unique(truth)) < (start.counts > 0.5).sum()
    assert refined.elbo > np.max([each.elbo for each in restarts])
    tried = sum(move.num_steps for move in refined.moves) + refined.num_steps
    assert start.num_steps + tried < sum(each.num_steps for each in restarts)
    # Each component has the rows of one cluster, but for those between them.
    together = np.zeros((20, len(np.unique(truth))))
    np.add.at(together, (refined.predict(x), truth), 1)
    assert together.max(1).sum() >= 0.98 * len(x)
    assert len({*together.argmax(0)}) == together.shape[1]
