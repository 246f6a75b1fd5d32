"""Assignments that would be counted wrongly: an index past the end of a parameter, a mask or a scale over them."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import probem

LINE = np.array([-1.5, -0.5, 0.2, 0.9, 1.4, 3.0])


def _two_assignments(num_locs: int):
    def program(x):
        loc = numpyro.param("loc", jnp.arange(float(num_locs)))
        scale = numpyro.param("scale", jnp.ones(2), constraint=dist.constraints.positive)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
            z = numpyro.sample("z", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("x", dist.Normal(loc[t], scale[z]), obs=x)

    return program


def _regression(num_slopes: int):
    def program(x, y):
        slope = numpyro.param("slope", jnp.arange(float(num_slopes)))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
            numpyro.sample("y", dist.StudentT(4.0, slope[t] * x, 1.0), obs=y)

    return program


def _one_location(x):
    loc = numpyro.param("loc", jnp.zeros(1))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


@pytest.mark.parametrize(
    ("program", "data", "size"),
    [(_two_assignments(2), (LINE,), 3), (_regression(2), (LINE, LINE), 3), (_one_location, (LINE,), 2)],
    ids=["two assignments", "known by its values", "two components"],
)
def test_an_index_past_the_end_of_a_parameter_is_refused(program, data, size: int) -> None:
    with pytest.raises(probem.InputError, match=f"one distribution for the last two of the {size} values of 't'"):
        probem.explain(program, *data)


@pytest.mark.slow
def test_parameters_that_are_long_enough_are_not() -> None:
    probem.explain(_two_assignments(3), LINE)
    probem.explain(_regression(3), LINE, LINE)


def _handled(handler, over_assignment: bool):
    def program(x, seen):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("data", x.shape[0]):
            if over_assignment:
                with handler(seen):
                    t = numpyro.sample("t", dist.Categorical(jnp.array([0.3, 0.7])))
                    numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)
            else:
                t = numpyro.sample("t", dist.Categorical(jnp.array([0.3, 0.7])))
                with handler(seen):
                    numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

    return program


def _mask(seen):
    return handlers.mask(mask=seen)


SEEN = np.array([True, True, False, True, False, True])


@pytest.mark.parametrize(
    ("handler", "named"), [(_mask, "handlers.mask"), (lambda seen: handlers.scale(scale=0.5), "handlers.scale")]
)
def test_a_mask_or_a_scale_over_an_assignment_is_refused(handler, named: str) -> None:
    with pytest.raises(probem.InputError, match=rf"{named} over the assignment site 't'; .*row_weights"):
        probem.explain(_handled(handler, True), LINE, SEEN)


@pytest.mark.slow
def test_what_a_handler_leaves_as_it_is_may_stand_over_an_assignment() -> None:
    probem.explain(_handled(lambda seen: handlers.mask(mask=True), True), LINE, SEEN)
    probem.explain(_handled(lambda seen: handlers.scale(scale=1.0), True), LINE, SEEN)


@pytest.mark.slow
def test_a_mask_over_the_observed_site_alone_leaves_its_rows_their_prior() -> None:
    """Against NumPyro's own sum over the assignment; row weights of zero leave the rows out, which is the same F."""
    from numpyro.contrib.funsor import config_enumerate, enum
    from numpyro.contrib.funsor.infer_util import log_density

    start = probem.Parameters({"loc": jnp.array([-1.0, 1.0])})
    masked = _handled(_mask, False)
    fit = probem.fit(masked, LINE, SEEN, init=start, max_steps=1, throw=False)
    enumerated = enum(config_enumerate(handlers.substitute(masked, data={"loc": jnp.array([-1.0, 1.0])})), -2)
    density, _ = log_density(enumerated, (jnp.asarray(LINE), jnp.asarray(SEEN)), {}, {})
    np.testing.assert_allclose(fit.elbo, density, rtol=1e-12)
    weighted = probem.fit(masked, LINE, np.ones(6, bool), init=start, max_steps=1, row_weights=1.0 * SEEN, throw=False)
    np.testing.assert_allclose(weighted.elbo, density, rtol=1e-12)
