"""Rules of convergence against their definitions, noise that the M half-step sees, empty clusters that are filled."""

import functools
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import probem
from probem import stopping
from probem.models import GaussianPrior, bayesian_gmm, diagonal, full, gmm, identity, kmeans, tied
from probem.models.covariance import shared_spherical, spherical
from probem.plan.chunking import Chunking
from probem.plan.plan import Plan
from tests.oracles.gaps import groups
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


def test_rows_are_counted_by_their_weight() -> None:
    """Weight 2 for all: twice the bound, twice the weight, the same step."""
    rule = stopping.BoundChange(1e-5, per_row=True)
    assert stopped(rule, row_weights=np.full(90, 2.0)).num_steps == stopped(rule).num_steps


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


# Noise that the M half-step sees.

MATRIX = np.array([[0.5, 0.2, 0.0], [0.2, 0.3, 0.1], [0.0, 0.1, 0.4]])
ROWS = groups(40, 3, 0)
Q = np.random.default_rng(1).dirichlet([1.0, 1.0], 40)
PRIOR = GaussianPrior(np.zeros(3), 0.5, 6.0, np.eye(3))
STRUCTURES = {
    "full": functools.partial(gmm, num_components=2, covariance=full),
    "tied": functools.partial(gmm, num_components=2, covariance=tied),
    "diagonal": functools.partial(gmm, num_components=2, covariance=diagonal),
    "spherical": functools.partial(gmm, num_components=2, covariance=spherical),
    "shared": functools.partial(gmm, num_components=2, covariance=shared_spherical),
    "MAP": functools.partial(bayesian_gmm, num_components=2, prior=PRIOR),
    "posterior": functools.partial(bayesian_gmm, num_components=2, prior=PRIOR),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["diagonal", *(pytest.param(name, marks=pytest.mark.slow) for name in STRUCTURES if name != "diagonal")]
)
def test_noise_is_that_of_rows_scattered_by_it(name: str) -> None:
    """One M-step: each row replaced by points around it with the covariance of the noise, to rounding."""
    families = probem.VARIATIONAL_BAYES if name == "posterior" else probem.EM
    options: dict[str, Any] = {"max_steps": 1, "families": families, "throw": False}
    for noise in (0.3, MATRIX):
        root = np.linalg.cholesky(noise * np.eye(3) if np.isscalar(noise) else noise) * np.sqrt(3)
        points = np.concatenate([ROWS + sign * root[:, d] for d in range(3) for sign in (-1, 1)])
        own = probem.fit(STRUCTURES[name], ROWS, init=probem.Responsibilities(Q), added_variance=noise, **options)
        scattered = probem.fit(
            STRUCTURES[name],
            points,
            init=probem.Responsibilities(np.tile(Q, (6, 1))),
            row_weights=np.full(240, 1 / 6),
            **options,
        )
        for site, value in scattered.params.items():
            np.testing.assert_allclose(own.params[site], value, rtol=1e-9, atol=1e-10, err_msg=site)


@pytest.mark.slow
def test_noise_keeps_spreads_above_it_and_need_not_be_of_full_rank() -> None:
    same = np.repeat(ROWS[:2], 20, axis=0)
    fit = probem.fit(STRUCTURES["full"], same, added_variance=1e-3, key=1, throw=False)
    assert fit.result is probem.Result.CONVERGED
    np.testing.assert_allclose(fit.params["covariance"], np.stack([1e-3 * np.eye(3)] * 2), rtol=1e-9, atol=1e-12)
    direction = np.array([1.0, 2.0, 3.0]) / 7
    fit = probem.fit(STRUCTURES["full"], ROWS, added_variance=np.outer(direction, direction), max_steps=2, throw=False)
    assert np.isfinite(fit.elbo)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (-1.0, "added_variance=-1.0; expected a finite number from 0"),
        (np.ones(3), r"added_variance of shape \(3,\); expected a number, or shape \(3, 3\)"),
        (-np.eye(3), "expected a finite number from 0, or a covariance matrix"),
        (np.triu(np.ones((3, 3))) + np.eye(3), "expected a finite number from 0, or a covariance matrix"),
        (np.nan, "added_variance=nan; expected a finite number from 0"),
    ],
)
def test_noise_that_cannot_be_is_one_sentence(noise: Any, message: str) -> None:
    with pytest.raises(probem.InputError, match=message):
        probem.fit(STRUCTURES["full"], ROWS, added_variance=noise)


# Empty clusters.


def filled_lloyd(x: np.ndarray, loc: np.ndarray, weights: np.ndarray, steps: int) -> np.ndarray:
    """Lloyd's iterations in which the farthest rows, one each, go to the clusters without rows."""
    for _ in range(steps):
        distance = ((x[:, None] - loc) ** 2).sum(2)
        labels, own = distance.argmin(1), distance.min(1)
        own[weights == 0] = -np.inf
        counts = np.array([weights[labels == k].sum() for k in range(len(loc))])
        farthest = np.argsort(-own, kind="stable")
        for row, k in zip(farthest, np.flatnonzero(counts == 0), strict=False):
            labels[row] = k
        fresh = loc.copy()
        for k in range(len(loc)):
            if weights[labels == k].sum() > 0:
                fresh[k] = np.average(x[labels == k], axis=0, weights=weights[labels == k])
        loc = fresh
    return loc


AWAY = np.concatenate([ROWS[:2], 100 + np.arange(9.0).reshape(3, 3) ** 2])


@pytest.mark.parametrize(
    ("blocks", "restarts"),
    [(False, 1), *(pytest.param(*own, marks=pytest.mark.slow) for own in ((False, 2), (True, 1), (True, 2)))],
)
def test_several_empty_clusters_at_once_get_the_farthest_rows(
    blocks: bool, restarts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = functools.partial(kmeans, num_components=5)
    if blocks:
        monkeypatch.setattr(Plan, "cut", lambda plan, num_rows: Chunking(16, 8))
        # A program of its own, whose plan has these blocks.
        program = functools.partial(program, covariance=lambda *arguments: identity(*arguments))
    weights = np.random.default_rng(2).integers(0, 3, 40).astype(float)
    for steps in (2, 3):
        fit = probem.fit(
            program,
            ROWS,
            families={"t": probem.Delta(fill_empty=True)},
            init=lambda key, rows: {"loc": jnp.asarray(AWAY)},
            restarts=restarts,
            row_weights=weights,
            max_steps=steps,
            tolerance=0,
            throw=False,
        )
        np.testing.assert_allclose(fit.params["loc"], filled_lloyd(ROWS, AWAY, weights, steps - 1), rtol=1e-11)


FILL: dict[str, Any] = {"families": {"t": probem.Delta(fill_empty=True)}, "throw": False}


@pytest.mark.parametrize(
    ("rows", "weights", "loc"),
    [
        ([0, 1, 2, 50, 70], [5, 5, 5, 0.1, 0.2], [1, 20, 1e3, 1e4]),
        ([0, 1, 2.5, 50, 60, 75], [5, 5, 5, 0.7, 0.1, 0.2], [1, 20, 1e3, 1e4, 1e5]),
    ],
)
def test_a_component_that_gave_up_all_its_rows_has_none(rows: list, weights: list, loc: list) -> None:
    """The weights of what is taken, subtracted from their sum, leave a rounding, which is no row."""
    x, begin = np.array(rows, float)[:, None], np.array(loc, float)[:, None]
    init, program = probem.Parameters({"loc": begin}), functools.partial(kmeans, num_components=len(loc))
    for steps in (2, 3):
        fit = probem.fit(program, x, init=init, row_weights=weights, max_steps=steps, **FILL)
        expected = filled_lloyd(x, begin, np.array(weights), steps - 1)
        np.testing.assert_allclose(fit.params["loc"], expected, rtol=1e-11)
    whole = probem.fit(program, x, init=init, row_weights=weights, **FILL)
    assert whole.result is probem.Result.CONVERGED
    assert (whole.counts > 0.05).all()


@pytest.mark.parametrize("row_weights", [None, [1.0] * 20 + [0.1, 0.2]], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(("value", "num_components"), [(0.0, 4), (0.3, 5)])
def test_fewer_distinct_rows_than_components_leave_some_empty(
    row_weights: Any, value: float, num_components: int
) -> None:
    x = np.array([[value]] * 20 + [[50.0], [70.0]])
    program = functools.partial(kmeans, num_components=num_components)
    for key in range(4):
        fit = probem.fit(program, x, row_weights=row_weights, key=key, max_steps=50, **FILL)
        assert fit.result is probem.Result.EMPTY_COMPONENT
        assert np.count_nonzero(fit.counts) == 3


# Row weights, and the order of the rows.


@pytest.mark.slow
@pytest.mark.parametrize("init", [probem.KMeansPlusPlus(), probem.RandomRows()], ids=repr)
def test_random_starts_depend_on_the_rows_as_a_multiset(init: Any) -> None:
    """Repeated, in another order, beside rows of no weight however far away: the same seeds."""
    random = np.random.default_rng(3)
    weights = random.integers(0, 4, 40)
    order = random.permutation(weights.sum())
    repeated = np.repeat(ROWS, weights, axis=0)[order]
    far = np.concatenate([ROWS, np.full((2, 3), 1e6)])
    for key in range(4):
        options: dict[str, Any] = {"init": init, "key": key, "throw": False, "max_steps": 30, "tolerance": 0}
        program = STRUCTURES["tied"]
        weighted = probem.fit(program, ROWS, row_weights=weights, **options)
        for other in (
            probem.fit(program, repeated, **options),
            probem.fit(program, far, row_weights=np.append(weights, [0, 0]), **options),
        ):
            # Sums in another order, thirty times over.
            np.testing.assert_allclose(other.history.elbo, weighted.history.elbo, rtol=1e-10)
            np.testing.assert_allclose(other.params["loc"], weighted.params["loc"], rtol=1e-8)
