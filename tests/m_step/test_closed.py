"""Updates of parameters are maxima of the expected log joint, whichever way they are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints

import probem
from probem.form.statistics import Statistics
from probem.m_step.closed import closed_updates
from probem.m_step.maximise import maximise
from tests.oracles import plain
from tests.programs.examples import EXAMPLES
from tests.programs.fits import normal_table
from tests.programs.routes import (
    ROUTES,
    X,
    in_short,
    plan_of,
    within,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", in_short("partly shared"))
def test_updates_reach_the_maximum(name: str) -> None:
    """SciPy starts from the parameters returned and finds nothing higher in the expected log joint and prior."""
    program, data, expected = ROUTES[name]
    plan = plan_of(program, *data)
    names = sorted(name for name, route in expected.items() if route in ("closed", "numeric", "mode"))
    known = plan.program
    bijections = {name: known.bijection(name) for name in names}
    shifts = {
        term.site: jnp.full((term.copies, *term.event_shape), 0.3 if term.view.is_location else 0.0)
        for term in plan.form.data_terms
    }
    q = np.random.default_rng(5).dirichlet(np.ones(plan.num_components), size=len(jax.tree.leaves(data)[0]))
    if name == "zero-inflated":
        q = plain.posterior(EXAMPLES[name].table())  # a row above zero cannot be of the first component

    @jax.jit
    def update(params):
        phi = plan.form.features(data, shifts)
        stats = Statistics(q.sum(0), q.T @ phi, shifts)
        return maximise(plan, stats, params)

    @jax.jit
    def expected_log_joint(unconstrained, others):
        """By the program alone: nothing of the exponential-family form is used."""
        params = {**others, **{name: bijections[name](value) for name, value in unconstrained.items()}}
        table = known.log_joint(params, data)
        return (q * jnp.where(q > 0, table, 0.0)).sum() + known.log_prior(params)

    start = {name: jnp.asarray(value) for name, value in known.random_params(7).items()}
    found = update(start)
    for _ in range(60 if plan.numeric else 1):  # coupled parameters take turns (ECM)
        found = update(found)
    at = {name: bijections[name].inv(found[name]) for name in names}
    flat, unravel = ravel_pytree(at)
    negative = jax.jit(jax.value_and_grad(lambda vector: -expected_log_joint(unravel(vector), found)))
    reached = float(negative(flat)[0])
    moved = {name: np.asarray(value) for name, value in found.items()}
    best = scipy.optimize.minimize(
        lambda vector: tuple(np.asarray(part, float) for part in negative(jnp.asarray(vector))),
        np.asarray(flat),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9},
    )
    # Both optimisers stop where the objective no longer tells points apart.
    assert reached <= best.fun + 1e-8 * (1 + abs(best.fun))
    if known.num_components > 1 and not plan.numeric:
        # A planted fault: parameters a hundredth off are seen to be lower.
        off = negative(flat + 0.01)[0]
        assert off > best.fun + 1e-6
    assert all(np.isfinite(value).all() for value in moved.values())


@pytest.mark.slow
def test_a_parameter_in_an_interval_is_the_maximum_there() -> None:
    """SciPy maximises the marginal likelihood in a box: one mean is held at its bound, the other lies inside."""
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(-2.0, 1.0, 30), random.normal(0.6, 1.0, 30)])

    def negative(loc):
        return -plain.log_likelihood(normal_table({"loc": loc[:, None]}, x[:, None]))

    best = scipy.optimize.minimize(negative, [-0.5, 0.8], bounds=[(-1.0, 3.0)] * 2, tol=1e-12)
    assert best.x[0] == -1.0
    fit = probem.fit(within(constraints.interval(-1.0, 3.0)), x, init=probem.Parameters({"loc": np.array([-0.5, 0.8])}))
    assert plain.rises(fit.history)
    assert (fit.params["loc"] >= -1).all()
    # Unconstrained space is flat near a bound: a step of the last thousandth gains next to nothing.
    np.testing.assert_allclose(fit.params["loc"], best.x, atol=1e-3)
    np.testing.assert_allclose(fit.elbo, -best.fun, atol=1e-3)


@pytest.mark.slow
def test_an_empty_component_keeps_its_parameters() -> None:
    program, data, _ = ROUTES["full"]
    plan = plan_of(program, *data)
    shifts = {"x": jnp.zeros((1, 2))}
    q = np.zeros((20, 2))
    q[:, 0] = 1.0

    @jax.jit
    def update(params):
        return closed_updates(
            plan.mean_field, plan.closed, Statistics(q.sum(0), q.T @ plan.form.features(data, shifts), shifts), params
        )

    before = plan.program.random_params(3)
    after = update(before)
    np.testing.assert_array_equal(after["loc"][1], before["loc"][1])
    np.testing.assert_array_equal(after["covariance"][1], before["covariance"][1])
    np.testing.assert_allclose(after["loc"][0], np.mean(X, 0), rtol=1e-13)
    np.testing.assert_allclose(after["covariance"][0], np.cov(np.asarray(X).T, bias=True), rtol=1e-12)
    np.testing.assert_array_equal(after["weights"], [1.0, 0.0])
