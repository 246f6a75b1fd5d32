"""Full posteriors: which parts q has, and the maximum of every update."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probem
from probem.analysis.random_statistics import draw_rows, random_statistics
from probem.analysis.routes import make_plan
from probem.families.choice import choose_families
from probem.mean_field.mean_field import objective
from probem.plan.plan import Plan
from probem.program.reading import read
from tests.programs.bayesian import (
    EXAMPLES,
    MIXED,
    MIXED_CELLS,
    NORMAL,
    mixture,
    sticks,
)

VB = probem.VARIATIONAL_BAYES
slow = pytest.mark.slow


def some_slow(names: Any, quick: tuple[str, ...] = ()) -> Any:
    return pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in quick else slow) for name in names])


@functools.cache
def plan_of(name: str) -> Plan:
    program, families = MIXED[name] if name in MIXED else (mixture(name), VB)
    known = read(program, (NORMAL if name in MIXED else EXAMPLES[name].rows,))
    return make_plan(known, choose_families(known, families))


# The parts of q.


@some_slow([*EXAMPLES, *MIXED], quick=("diagonal", "poisson"))
def test_cells_and_ties_are_found(name: str) -> None:
    expected = MIXED_CELLS[name] if name in MIXED else {"weights": (1, 0, None), **EXAMPLES[name].cells}
    sites = plan_of(name).mean_field.sites
    found = {site.name: (site.cells, site.dim, site.tied and site.tied[0]) for site in sites}
    assert found == expected
    for site in sites:
        if site.tied is not None:
            # Cells and their precisions in the same order, one for each or one for all of a column.
            count = {own.name: own.cells for own in sites}[site.tied[0]]
            shared = np.tile(np.arange(count), site.cells) if name.startswith("tied") else None
            features = np.arange(site.cells) * count // site.cells if shared is None else shared[: site.cells]
            np.testing.assert_array_equal(site.tied[1], features)


@slow
def test_explain_says_the_parts() -> None:
    families = VB | {"precision": probem.Delta()}
    rows = probem.explain(mixture("factorised location"), NORMAL, families=families).rows
    assert {row.site: (row.family, row.update) for row in rows} == {
        "t": ("Categorical()", "posterior"),
        "weights": ("Conjugate()", "closed form: Dirichlet, prior + statistics"),
        "precision": ("Delta() (MAP)", "closed form: mode of its conditional posterior"),
        "loc": ("Conjugate()", "closed form: Normal, 2 entries together, prior + statistics"),
        "x": ("", "exponential family (MultivariateNormal, 5 statistics)"),
    }
    rows = probem.explain(mixture("full", weights=sticks), NORMAL, families=VB).rows
    assert {row.site: row.update for row in rows if row.role == "prior"} == {
        "sticks": "closed form: Beta, prior + statistics",
        "precision": "closed form: Wishart, prior + statistics",
        "loc": "closed form: Normal given 'precision', prior + statistics",
    }
    rows = probem.explain(mixture("poisson"), EXAMPLES["poisson"].rows, families=VB).rows
    assert {row.site: row.update for row in rows}["rate"] == "closed form: Gamma, prior + statistics"


# The update.

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
            if site.point and not site.is_location and site.prior.event_ndim == 1:
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

    if not any(site.point for site in mean_field.sites):
        nearby = jax.jit(jax.vmap(moved))(jax.random.split(jax.random.key(0), 200))
        assert (np.asarray(nearby) < highest).all()
