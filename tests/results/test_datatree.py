"""The tree that ArviZ takes: what stands in which group, names of axes, new rows, and ArviZ itself where it is
installed.
"""

import functools
import re
import warnings

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from tests.programs.fits import X, bayesian, soft

xarray = pytest.importorskip("xarray")


@functools.cache
def of_posteriors() -> probem.Fit:
    """Full posteriors of weights and locations, these in a plate."""
    return probem.fit(functools.partial(bayesian, num_components=2), X, families=probem.VARIATIONAL_BAYES)


@pytest.mark.slow
def test_groups_and_axes_are_those_that_arviz_looks_for() -> None:
    tree = of_posteriors().to_datatree(X, num_draws=6, num_chains=2)
    assert set(tree.children) == {"posterior", "assignments", "log_likelihood", "observed_data"}
    # What a summary of the posterior goes over: parameters alone, chain and draw first.
    assert tree["posterior"]["loc"].dims == ("chain", "draw", "components", "loc_dim_1")
    assert tree["posterior"]["loc"].shape == (2, 6, 2, 2)
    assert set(tree["posterior"].data_vars) == {"loc", "weights"}
    assert tree["assignments"]["t"].dims == tree["log_likelihood"]["x"].dims == ("chain", "draw", "row")
    assert tree["observed_data"]["x"].dims == ("row", "x_dim_0")
    np.testing.assert_array_equal(tree["log_likelihood"]["row"], np.arange(len(X)))
    # Chains are the same draws in other words.
    single = of_posteriors().to_datatree(X, num_draws=12)
    for group, name in (("posterior", "loc"), ("assignments", "t"), ("log_likelihood", "x")):
        value = single[group][name].values
        np.testing.assert_array_equal(tree[group][name].values.reshape(value.shape), value)


@pytest.mark.slow
def test_axes_and_places_are_named() -> None:
    dims = {"loc": ["component", "measure"], "x": ["measure"]}
    tree = of_posteriors().to_datatree(X, num_draws=3, dims=dims, coords={"measure": ["length", "width"]})
    assert tree["posterior"]["loc"].dims == ("chain", "draw", "component", "measure")
    np.testing.assert_array_equal(tree["observed_data"]["x"].sel(measure="width"), X[:, 1])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dims": {"lok": ["a"]}}, "got dims of 'lok'; expected sites among 'weights', 'loc', 'x'"),
        ({"dims": {"loc": ["a"]}}, "got dims={'loc': ['a']} for values of shape (2, 2); expected 2 names"),
        ({"dims": {"loc": "ab"}}, "got dims={'loc': 'ab'} for values of shape (2, 2); expected 2 names"),
        ({"dims": {"loc": ["a", "a"]}}, "got an axis 'a' in the dims of 'loc'; expected a name that is no site"),
        ({"dims": {"loc": ["t", "a"]}}, "got an axis 't' in the dims of 'loc'"),
        ({"dims": {"x": ["row"]}}, "got an axis 'row' in the dims of 'x'"),
        ({"coords": {"measure": [0, 1]}}, "got coords of 'measure'; expected axes among 'weights_dim_0', 'components'"),
        ({"coords": {"x_dim_0": [0, 1, 2]}}, "got 3 coords of 'x_dim_0'; expected 2, one for each entry"),
        ({"num_chains": 0}, "got num_chains=0; expected a whole number of at least 1"),
        ({"num_draws": True}, "got num_draws=True; expected a whole number of at least 1"),
    ],
)
def test_names_that_fit_nothing_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(probem.InputError, match=re.escape(sentence)):
        of_posteriors().to_datatree(X, **{"num_draws": 2} | options)


@pytest.mark.slow
def test_axes_of_two_lengths_have_two_names() -> None:
    fit = probem.fit(functools.partial(bayesian, num_components=3), X, families=probem.VARIATIONAL_BAYES, throw=False)
    with pytest.raises(
        probem.InputError, match=r"got an axis 'a' of 3 and, in 'x', of 2 entries; expected axes of one"
    ):
        fit.to_datatree(X, num_draws=2, dims={"weights": ["a"], "x": ["a"]})


@pytest.mark.slow
def test_new_rows_have_the_moments_of_the_program_at_their_draw() -> None:
    """Given each draw, E x and E x^2 of the mixture by the formula; of a fit of points, of full posteriors too."""
    for fit in (soft(), of_posteriors()):
        tree = fit.to_datatree(X, num_draws=400, posterior_predictive=True)
        rows = tree["posterior_predictive"]["x"]
        assert rows.dims == ("chain", "draw", "row", "x_dim_0")
        assert rows.shape == (1, 400, *X.shape)
        draws = {name: value.values[0] for name, value in tree["posterior"].data_vars.items()}
        weights, loc = draws["weights"][..., None], draws["loc"]
        variance = draws["scale"] ** 2 if "scale" in draws else np.ones_like(loc)
        new = rows.values[0]
        for power, expected in ((1, loc), (2, variance + loc**2)):
            surplus = (new**power).mean(1) - (weights * expected).sum(1)
            # Independent between draws, with mean zero: four standard errors.
            assert (np.abs(surplus.mean(0)) <= 4 * surplus.std(0) / np.sqrt(400)).all()
        assert len(np.unique(new[:, :, 0])) == new[:, :, 0].size
        # Asking for them changes no other draw.
        np.testing.assert_array_equal(fit.to_datatree(X, num_draws=400)["posterior"]["loc"], tree["posterior"]["loc"])


@pytest.mark.slow
def test_new_rows_are_drawn_given_their_covariates() -> None:
    """With no noise to speak of, each new row is at a mean that its covariate says, of one component or the other."""

    def program(y, z):
        slope = numpyro.param("slope", jnp.array([-1.0, 2.0]))
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.3, 0.7])))
            numpyro.sample("y", dist.Normal(slope[t] * z, 1e-9), obs=y)

    z = np.linspace(1.0, 2.0, 30)
    y = np.where(np.arange(30) % 3 == 0, -1.0, 2.0) * z
    fit = probem.fit(program, y, z, init=probem.Parameters({"slope": [-1.0, 2.0]}), max_steps=1, throw=False)
    tree = fit.to_datatree(y, z, num_draws=200, posterior_predictive=True)
    ratio = tree["posterior_predictive"]["y"].values[0] / z
    near = np.abs(ratio[..., None] - np.asarray(fit.params["slope"])) < 1e-6
    assert (near.sum(-1) == 1).all()
    assert abs(near[..., 1].mean() - 0.7) <= 4 * np.sqrt(0.21 / ratio.size)


@pytest.mark.slow
def test_arviz_takes_the_tree() -> None:
    """Summary, figures and cross-validation by ArviZ itself, 0.x by way of its InferenceData."""
    pytest.importorskip("matplotlib").use("Agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arviz = pytest.importorskip("arviz")
        x = X[:, 0]

        def program(x):
            weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(2, 2.0)))
            with numpyro.plate("components", 2):
                loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
            with numpyro.plate("data", x.shape[0]):
                t = numpyro.sample("t", dist.Categorical(weights))
                numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

        fit = probem.fit(program, x, families=probem.VARIATIONAL_BAYES)
        tree = fit.to_datatree(x, num_draws=250, num_chains=4, posterior_predictive=True)
        is_old = arviz.__version__.startswith("0.")
        data = arviz.InferenceData.from_datatree(tree) if is_old else tree
        summary = arviz.summary(data)
        assert sorted(summary.index) == ["loc[0]", "loc[1]", "weights[0]", "weights[1]"]
        mean = np.asarray([float(summary["mean"][f"loc[{k}]"]) for k in range(2)])
        np.testing.assert_allclose(mean, fit.posterior["loc"].mean, atol=0.05)
        assert len(arviz.summary(data, group="assignments")) == len(x)
        arviz.plot_trace(data)
        arviz.plot_forest(data)
        arviz.plot_rank(data)
        (arviz.plot_ppc if is_old else arviz.plot_ppc_dist)(data)
        elpd = arviz.loo(data)
        # Leaving a row out costs about half a nat for each of three free numbers.
        value = float(elpd.elpd_loo if is_old else elpd.elpd)
        assert -5.0 < value - float(fit.log_density(x).sum()) < 0.0
