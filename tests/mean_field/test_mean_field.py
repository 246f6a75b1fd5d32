"""Full posteriors: the maximum of every update."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probem.analysis.random_statistics import draw_rows, random_statistics
from probem.errors import InputError
from probem.form.statistics import expected
from probem.mean_field.locations import LocationPosterior
from probem.mean_field.mean_field import objective
from tests.programs.bayesian import (
    EXAMPLES,
)
from tests.programs.plans import plan_of, some_slow

# One of every kind: the others differ from these in shapes only.
SETTLED = (
    "full covariance",
    "tied",
    "diagonal",
    "factorised location",
    "poisson",
    "categorical",
    "hierarchical",
    "param covariance",
    "point location",
    "point precision",
)


@some_slow(SETTLED)
def test_an_update_is_the_maximum_of_the_bound(name: str) -> None:
    """Once the updates in turn have settled, no argument of any q has a slope, and no q nearby is better."""
    plan = plan_of(name)
    mean_field = plan.mean_field
    stats_of_rows = random_statistics(mean_field.form, draw_rows(mean_field.form, 7))
    points = plan.program.random_params(8)

    @jax.jit
    def settled(points: Any) -> Any:
        once = mean_field.maximise(stats_of_rows, mean_field.start(points))
        again = jax.lax.fori_loop(0, 300, lambda _, params: mean_field.maximise(stats_of_rows, params), once)
        return once, again

    def value(own: Any, params: Any) -> jax.Array:
        return objective(mean_field, stats_of_rows, {**params, **own})

    once, params = settled(points)
    names = [site.name for site in mean_field.sites]
    own = {site: params[site] for site in names}
    highest, slope = jax.jit(jax.value_and_grad(value))(own, params)
    for site in mean_field.sites:
        for argument, (at, part) in enumerate(
            zip(*map(jax.tree.leaves, (own[site.name], slope[site.name])), strict=True)
        ):
            part = np.asarray(part)
            if site.is_point and not site.is_location and site.prior.event_ndim == 1:
                # On the simplex: the slope along it.
                part = part - part.mean(-1, keepdims=True)
            if site.name != "loc" and part.ndim == 3:
                part = part + np.swapaxes(part, -1, -2)
            scaled = np.abs(part * np.abs(at).max())
            assert scaled.max() <= 1e-8 * (1 + abs(float(highest))), (site.name, argument)
    # In the plain cases nothing waits for anything: one round is the maximum.
    if name in EXAMPLES and name != "factorised location":
        for first, last in zip(*map(jax.tree.leaves, (once, params)), strict=True):
            np.testing.assert_allclose(first, last, rtol=1e-9, atol=1e-9)

    def shaken(one: jax.Array, key: jax.Array) -> jax.Array:
        noise = 0.03 * jax.random.normal(key, one.shape)
        if one.ndim < 3:
            return one * (1 + noise)
        # Turned and stretched on both sides, a matrix stays positive definite.
        both = jnp.eye(one.shape[-1]) + noise
        return both @ one @ jnp.swapaxes(both, -1, -2)

    def moved(seed: jax.Array) -> Any:
        leaves, treedef = jax.tree.flatten(own)
        keys = jax.random.split(seed, len(leaves))
        return value(jax.tree.unflatten(treedef, map(shaken, leaves, keys)), params)

    if not any(site.is_point for site in mean_field.sites):
        nearby = jax.jit(jax.vmap(moved))(jax.random.split(jax.random.key(0), 200))
        assert (np.asarray(nearby) < highest).all()


@some_slow(SETTLED)
def test_both_in_one_are_natural_parameters_and_log_prior(name: str) -> None:
    """The expected log joint and the log prior that come from one evaluation are the sums over sites."""
    plan = plan_of(name)
    mean_field = plan.mean_field
    params = mean_field.start(plan.program.random_params(9))
    statistics = random_statistics(mean_field.form, draw_rows(mean_field.form, 10))

    @jax.jit
    def evaluated(params: Any) -> Any:
        natural, log_prior = mean_field.evaluated(params, statistics.shifts)
        return expected(natural, statistics), log_prior

    @jax.jit
    def by_terms(params: Any) -> Any:
        log_joints, terms = mean_field.expected_log_joint(params, statistics), mean_field.terms(params)
        return sum(log_joints.values()), sum(term.total for term in terms.values())

    np.testing.assert_allclose(evaluated(params), by_terms(params), rtol=1e-12)


def test_a_location_of_ones_own_has_to_say_what_updates_see() -> None:
    with pytest.raises(InputError, match="define untied"):
        type("Doubled", (LocationPosterior,), {"location": lambda self, q, precision: self.untied(q)})
