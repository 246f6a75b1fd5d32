"""The Gaussians that the figure of a fit draws."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem import models
from probem.experiments.claims.datasets import load
from probem.plotting.fit import gaussian_components


@pytest.mark.parametrize(
    "structure", [models.covariance.full, pytest.param(models.covariance.diagonal, marks=pytest.mark.slow)]
)
def test_components_are_those_of_the_fit(structure):
    fit = probem.fit(lambda x: models.gmm(x, num_components=2, covariance=structure), load("old_faithful").rows, key=0)
    means, covariances = zip(*gaussian_components(fit, 2), strict=True)
    np.testing.assert_array_equal(means, fit.params["loc"])
    wanted = fit.params.get("covariance")
    wanted = wanted if wanted is not None else [np.diag(scale**2) for scale in fit.params["scale"]]
    np.testing.assert_allclose(covariances, wanted, rtol=1e-12)


def test_a_gaussian_around_a_covariate_is_not_drawn():
    def program(x):
        slope = numpyro.param("slope", jnp.array([-1.0, 1.0]))
        with numpyro.plate("rows", len(x)):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.full(2, 0.5)))
            loc = jnp.stack(jnp.broadcast_arrays(0.0, slope[t] * x[:, 0]), -1)
            numpyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    assert gaussian_components(probem.fit(program, load("old_faithful").rows, key=0), 2) is None
