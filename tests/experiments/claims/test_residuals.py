"""A residual that is not a number fails: in the one place that reduces comparisons, and in every claim."""

import ast
import dataclasses
import inspect
import math
import types
from pathlib import Path

import numpy as np
import pytest

import probem
from probem.checking import check
from probem.checking.residuals import excess, violations, worst
from probem.experiments.bayes.evidence import steps as evidence_steps
from probem.experiments.bayes.priors import bounded_likelihood, degeneracy, nuts, pruning
from probem.experiments.claims.claim import NO_DATASET, Check
from probem.experiments.claims.datasets import load
from probem.experiments.kmeans import limits as kmeans_limits
from probem.experiments.kmeans import paths as kmeans_paths
from probem.experiments.kmeans import trajectories
from probem.experiments.oracles.lloyd import Iteration
from probem.experiments.outcomes.all_claims import CLAIMS
from probem.experiments.outcomes.record import Task
from probem.experiments.verification import work

SEED = 5
BY_ID = {claim.id: claim for claim in CLAIMS}
# The modules in which claims compare; loops that serve as references choose among rows, and may.
CHECKS = [each for claim in CLAIMS for each in (claim.check, claim.by_itself) if each]
CHECKS += [each for claim in CLAIMS for each in [claim.full_by_itself] if isinstance(each, types.FunctionType)]
CHECKS += [compare for _, compare in check.CLAIMS.values()]
COMPARING = sorted({inspect.getsourcefile(inspect.unwrap(each)) for each in CHECKS} | {trajectories.__file__})


# --- the one place ---


def test_the_worst_residual_is_the_largest_and_nan_before_all():
    assert worst(1.0, [2.0, 3.0], np.eye(2)) == 3.0
    assert math.isnan(worst([1.0, math.nan], 5.0))
    assert math.isnan(worst(math.nan, 5.0))
    assert worst(math.inf, 5.0) == math.inf


@pytest.mark.parametrize("nothing", [(), ([],), (np.empty((0, 2)), [])])
def test_nothing_is_no_residual(nothing):
    with pytest.raises(ValueError, match="nothing was compared"):
        worst(*nothing)


def test_an_excess_is_counted_from_a_limit():
    assert excess([1.0, 3.0], 2.0) == 1.0
    assert excess([1.0, -math.inf], 2.0) == 0.0
    assert math.isnan(excess([1.0, math.nan], 2.0))
    assert math.isnan(excess(1.0, math.nan))


def test_comparisons_with_nan_are_violations():
    values = np.array([1.0, math.nan, 3.0])
    assert violations(values < 2) == 2
    assert violations([True, np.True_]) == 0
    with pytest.raises(ValueError, match="no comparison to count"):
        violations([])
    with pytest.raises(TypeError, match="true or false"):
        violations([0, 1])


def test_a_check_keeps_the_worst_of_its_residuals():
    check = Check("A1", "blobs", "both sides", [[1e-13, 3e-13]], 1e-12)
    assert (check.residual, check.holds) == (3e-13, True)
    assert not Check("A1", "blobs", "both sides", [0.0, math.nan], 1e-12).holds
    assert not Check("A1", "blobs", "both sides", math.inf, 1e300).holds


@pytest.mark.parametrize(
    ("residual", "tolerance", "message"),
    [
        ([], 1.0, "nothing was compared"),
        (-1.0, 1.0, "a distance is at least 0"),
        (0.0, -1.0, "at least 0, and finite"),
        (0.0, math.inf, "at least 0, and finite"),
        (0.0, math.nan, "at least 0, and finite"),
    ],
)
def test_what_is_no_check(residual, tolerance, message):
    with pytest.raises(ValueError, match=message):
        Check("A1", "blobs", "both sides", residual, tolerance)


# --- the source: NaN is lost where Python compares it ---


@pytest.mark.parametrize("path", COMPARING, ids=lambda path: Path(path).stem)
def test_no_claim_reduces_with_max_or_min(path):
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    lost = [node.lineno for node in called if isinstance(node.func, ast.Name) and node.func.id in ("max", "min")]
    skipped = [
        node.lineno
        for node in called
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("nanmax", "nanmin", "fmax", "fmin", "nan_to_num")
    ]
    assert lost + skipped == []


# --- the claims: an engine that answers NaN ---


def outcome(name, dataset):
    """The claim as a run makes it: an error is a failure, too."""
    return work._outcome(BY_ID[name], Task(name, dataset), SEED, lambda: False)


def nan_like(value):
    return np.full(np.shape(value), math.nan)


def fit_without_numbers(params=None):
    """As much of a fit as a claim may ask for, without a number in it."""
    history = types.SimpleNamespace(elbo=np.full(4, math.nan), half=np.array(["E", "M", "E", "M"]))
    fields = {
        "params": params or {},
        "bound": types.SimpleNamespace(elbo=math.nan),
        "history": history,
        "result": probem.Result.CONVERGED,
        "component": 0,
        "num_steps": 2,
    }
    fit = object.__new__(probem.Fit)
    for name, value in fields.items():
        object.__setattr__(fit, name, value)
    return fit


def lost_rows(program, rows, start, max_steps=1000):
    """What hard EM answers if it drops every row: centres and F are no numbers, and every row is of cluster 0."""
    loc = nan_like(start["loc"])
    iterations = (Iteration(loc, np.zeros(len(rows), int)),) * 2
    params = ({"loc": loc, "scale": np.array(math.nan), "weights": np.full(len(loc), math.nan)},) * 2
    return trajectories.Trajectory(iterations, params, np.full(2, math.nan), fit_without_numbers())


@pytest.fixture
def no_numbers(monkeypatch):
    trajectories.forget()
    pruning.forget()
    for module in (trajectories, kmeans_paths):
        monkeypatch.setattr(module, "hard_em", lost_rows)
    lost = lambda program, rows, start, corner, steps: lost_rows(program, rows, start)  # noqa: E731
    monkeypatch.setattr(kmeans_limits, "follow_em", lost)
    yield
    trajectories.forget()
    pruning.forget()


@pytest.mark.usefixtures("no_numbers")
@pytest.mark.parametrize("name", ["B5", "B6", "B7", "B8", "B9", "B10"])
def test_kmeans_without_numbers(name):
    """An engine that drops every row of Old Faithful."""
    assert not all(check.holds for check in outcome(name, "old_faithful").checks)


@pytest.mark.usefixtures("no_numbers")
def test_b5_names_the_residual_that_is_not_a_number():
    (check,) = outcome("B5", "old_faithful").checks
    assert math.isnan(check.residual)


@pytest.mark.usefixtures("no_numbers")
def test_b8_by_itself_without_numbers():
    assert not all(check.holds for check in outcome("B8", NO_DATASET).checks)


def params_without_numbers():
    return {"weights": nan_like([0, 0]), "loc": nan_like(np.eye(2)), "covariance": np.tile(np.eye(2), (2, 1, 1))}


def test_d1_without_numbers(monkeypatch):
    fit = fit_without_numbers(params_without_numbers())
    monkeypatch.setattr(degeneracy, "fit_from", lambda *given, **options: fit)
    found = outcome("D1", "old_faithful")
    assert found.error is None
    assert [check.compared.partition(":")[0] for check in found.checks if math.isnan(check.residual)] == [
        "EM from there"
    ]


def test_d2_without_numbers():
    found = list(bounded_likelihood._stays_below("small", "a prior", fit_without_numbers(), -1.0, 0.0))
    assert [check.holds for check in found] == [False, False, True]


def test_e3_without_numbers():
    dataset = load("old_faithful")
    structure = evidence_steps.STRUCTURES[0]
    rows = evidence_steps.few_rows(dataset)
    own = structure.plain(rows, evidence_steps.start_of(rows, SEED), 1)[0].posterior
    for field in dataclasses.fields(own):
        value = getattr(own, field.name).copy()
        value.flat[-1] = math.nan
        assert math.isnan(evidence_steps.distance(dataclasses.replace(own, **{field.name: value}), own))


def test_e5_without_numbers(monkeypatch):
    choice = pruning.Choice(3, math.nan, math.nan, -1.0)
    few = pruning.Left(nan_like([0, 0]), 4, math.nan)
    monkeypatch.setattr(pruning, "prune", lambda *given: few)
    monkeypatch.setattr(pruning, "keep", lambda *given: few)
    monkeypatch.setattr(pruning, "choices", lambda *given: [choice, dataclasses.replace(choice, num_components=4)])
    found = outcome("E5", "blobs")
    assert found.error is None
    failing = [check.compared for check in found.checks if not check.holds]
    assert sum("exp(entropy)" in one for one in failing) == 2
    assert any("does not lower the inertia" in one for one in failing)
    assert any("in closed form" in one for one in failing)


@pytest.mark.parametrize("lost", ["mean", "deviation", "draws"])
def test_e7_without_numbers(monkeypatch, lost):
    draws = np.random.default_rng(0).normal([-1.5, 1.5], 0.2, (100, 2))
    own = nuts.Posteriors(draws.mean(axis=0), draws.std(axis=0), draws)
    own = dataclasses.replace(own, **{lost: nan_like(getattr(own, lost))})
    monkeypatch.setattr(nuts, "posteriors", lambda *given: own)
    found = outcome("E7", "one_dimensional")
    assert found.error is None
    assert sum(math.isnan(check.residual) or not check.holds for check in found.checks) >= 2


def test_e8_without_numbers():
    """Half-steps of which the last is no number."""
    params = {"weights": np.array([0.5, 0.5]), "loc": np.eye(2), "precision": np.tile(np.eye(2), (2, 1, 1))}
    prior = bounded_likelihood.weak_prior(load("old_faithful").rows)
    lost = {**params, "precision": nan_like(params["precision"])}
    assert not bounded_likelihood._modes("small", np.eye(2), prior, [params, lost]).holds
