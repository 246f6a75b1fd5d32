"""Rules of convergence against their definitions."""

import functools
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import probem
from probem import stopping
from tests.programs.fits import CENTRES, KMEANS, PROGRAM, START, X


@functools.cache
def unstopped() -> probem.Fit:
    return probem.fit(PROGRAM, X, init=START, tolerance=0, max_steps=60, throw=False)


def first(holds: np.ndarray) -> int:
    return int(np.flatnonzero(holds)[0])


def stopped(rule: Any, **options: Any) -> probem.Fit:
    fit = probem.fit(PROGRAM, X, init=START, tolerance=rule, max_steps=60, throw=False, **options)
    assert fit.result is probem.Result.CONVERGED
    return fit


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_a_relative_rise_is_one_of_the_bound_and_of_all_that_would_follow(tolerance: float) -> None:
    bounds = unstopped().history.elbo[::2]
    rises = np.diff(bounds)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.append(np.inf, rises[1:] ** 2 / (rises[:-1] - rises[1:]))
    last = 1 + first((rises <= 90 * tolerance) & (left <= 90 * tolerance))
    for rule in (tolerance, stopping.RelativeRise(tolerance)):
        assert stopped(rule).num_steps == last + 1


@pytest.mark.parametrize("half", ["E", "M"])
@pytest.mark.parametrize("per_row", [False, True])
def test_a_change_of_the_bound_is_looked_at_after_either_half_step(half: Any, per_row: bool) -> None:
    """Parameters made by the iteration that met the rule are those returned, with their own bound."""
    changes = [np.abs(np.diff(unstopped().history.elbo[first_entry::2])) for first_entry in (0, 1)]
    # Between the changes of the tenth iteration, so that the two halves stop at different ones.
    least = np.sqrt(changes[0][10] * changes[1][10])
    steps = [first(own < least) for own in changes]
    assert steps[0] != steps[1]
    tolerance = least / (90 if per_row else 1)
    last = 1 + steps[half == "M"]
    fit = stopped(stopping.BoundChange(tolerance, half=half, per_row=per_row))
    assert fit.num_steps == last + 2
    assert fit.settled
    assert fit.elbo == fit.history.elbo[-2]


def test_the_bound_before_the_first_step_may_be_known() -> None:
    first_bound = unstopped().history.elbo[0]
    fit = stopped(stopping.BoundChange(1.0, start=first_bound + 0.5))
    assert fit.num_steps == 2
    assert stopped(stopping.BoundChange(0.4, start=first_bound + 0.5)).num_steps > 2


@pytest.mark.parametrize(("rise", "holds"), [(0.12, True), (0.13, False), (-0.12, True), (-63.0, True), (-65.0, False)])
def test_a_rise_within_a_part_of_a_rounding_is_none(rise: float, holds: bool) -> None:
    """A float32 bound of terms of some thousand nats, computed twice, differs by that at a maximum."""
    rounding = 1e-3
    progress = stopping.Progress(
        objectives=(jnp.float32(rise * rounding), jnp.float32(0.0)),
        lasts=(jnp.float32(0.0), jnp.float32(0.0)),
        promised=jnp.float32(0.0),
        allowance=jnp.float32(64 * rounding),
        before={},
        params={},
        weight=jnp.float32(1.0),
    )
    assert bool(stopping.RelativeRise(1e-10).at_once(progress)) is holds


def test_rows_are_counted_by_their_weight() -> None:
    """Weight 2 for all: twice the bound, twice the weight, the same step."""
    rule = stopping.BoundChange(1e-5, per_row=True)
    assert stopped(rule, row_weights=np.full(90, 2.0)).num_steps == stopped(rule).num_steps


@pytest.mark.slow
def test_a_shift_of_the_parameters_is_the_sum_of_its_squares() -> None:
    steps = list(probem.iterate(PROGRAM, X, init=START, tolerance=0, max_steps=60, throw=False))
    values = [{name: np.asarray(value) for name, value in step.params.items()} for step in steps]
    shifts = [sum(((new[name] - old[name]) ** 2).sum() for name in new) for old, new in itertools.pairwise(values)]
    tolerance = 1e-5
    assert stopped(stopping.ParameterShift(tolerance)).num_steps == first(np.array(shifts) <= tolerance) + 2


def test_a_rule_that_never_holds_and_rules_that_cannot_be() -> None:
    fit = probem.fit(PROGRAM, X, init=START, tolerance=stopping.Stopping(), max_steps=60, throw=False)
    assert fit.result is probem.Result.STEP_LIMIT
    for rule in (stopping.RelativeRise(-1.0), stopping.BoundChange(float("nan")), stopping.ParameterShift(-1e-3)):
        with pytest.raises(probem.InputError, match=f"in {type(rule).__name__}; expected a finite number from 0"):
            probem.fit(PROGRAM, X, tolerance=rule)


def test_a_shift_of_centres_stops_kmeans_as_well() -> None:
    fit = probem.fit(KMEANS, X, families=probem.HARD_EM, init=CENTRES, tolerance=stopping.ParameterShift(1e9))
    assert fit.num_steps == 2
