"""``select``: what is chosen by which criterion, what ends it, and what is refused before anything runs."""

import functools
import importlib

import numpy as np
import pytest

import probem
from probem import Result
from tests.oracles import plain
from tests.programs.fits import KMEANS, PROGRAM, START, X, bayesian, normal_table

SELECTION = importlib.import_module("probem.selection.select")


@pytest.mark.slow
def test_what_is_fixed_is_not_counted_and_what_is_known_is() -> None:
    """P by hand; the likelihood of rows with a known component is that of the row and its component."""
    known = np.where(np.arange(len(X)) < 30, X[:, 0] > 0, -1).astype(int)
    nan = np.nan
    fixed = {"weights": [0.5, nan], "loc": [[nan, 0.0], [nan, nan]], "scale": [[1.0, 1.0], [nan, nan]]}
    chosen = probem.select({"it": PROGRAM}, X, fixed=fixed, labels=known, init=START, max_steps=5000)
    (row,) = chosen.table
    assert row.num_parameters == 0 + 3 + 2
    table = normal_table({name: np.asarray(value) for name, value in row.fit.params.items()}, X)
    terms = np.where(known < 0, np.logaddexp.reduce(table, axis=1), table[np.arange(len(X)), known])
    np.testing.assert_allclose(row.log_likelihood, terms.sum(), rtol=1e-12)
    np.testing.assert_allclose(row.log_likelihood, row.elbo, rtol=1e-7)  # EM has converged
    np.testing.assert_allclose(row.bic, -2 * terms.sum() + 5 * np.log(len(X)), rtol=1e-12)
    certain = np.where(known < 0, table.max(1) - terms, 0.0)
    np.testing.assert_allclose(row.icl, row.bic - 2 * certain.sum(), rtol=1e-12)


@pytest.mark.slow
def test_weights_are_repetition_and_failures_are_rows() -> None:
    """Ready programs; the second is no mixture, the third no program for this start."""
    programs = {"two": PROGRAM, "no mixture": lambda x: None, "three": KMEANS}
    weights = 1 + np.arange(len(X)) % 2
    weighted = probem.select(programs, X, row_weights=weights, init=START)
    repeated = probem.select({"two": PROGRAM}, np.repeat(X, weights, axis=0), init=START)
    for name in ("log_likelihood", "bic", "aic", "icl", "elbo"):
        np.testing.assert_allclose(getattr(weighted.table[0], name), getattr(repeated.table[0], name), rtol=1e-10)
    assert weighted.best_settings == {"program": "two"}
    assert [row.result for row in weighted.table] == [Result.CONVERGED, None, None]
    assert "no plate over the rows" in weighted.table[1].message
    assert "got an initial value" in weighted.table[2].message
    assert [weighted.table[n].num_parameters for n in range(3)] == [9, None, 6]
    # The criterion of ICL is of the posterior, row by row.
    row, table = repeated.table[0], normal_table(weighted.best.params, X)
    largest = np.log(plain.posterior(table).max(1))
    np.testing.assert_allclose(weighted.table[0].icl, weighted.table[0].bic - 2 * weights @ largest, rtol=1e-10)
    assert row.num_parameters == 9


def test_all_failed() -> None:
    """Two distinct rows: two components collapse on them, and three are refused."""
    x = np.repeat(X[:2], 5, axis=0)
    with pytest.raises(
        probem.FitError, match=r"none of 2 candidates converged \(1 SINGULAR, 1 refused\); use fewer .*in the error's"
    ) as caught:
        probem.select({"two": PROGRAM, "three": KMEANS}, x)
    assert [row.result for row in caught.value.fit.table] == [Result.SINGULAR, None]
    with pytest.raises(probem.InputError, match="3 components for 2 distinct rows"):
        probem.select({"three": KMEANS}, x)
    with pytest.raises(probem.InputError, match="no plate over the rows"):
        probem.select({"no mixture": lambda x: None}, X)


def test_control_c_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    right, calls = SELECTION.fitted, []

    def interrupted(*arguments, **options):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return right(*arguments, **options)

    monkeypatch.setattr(SELECTION, "fitted", interrupted)
    programs = {"two": PROGRAM, "three": KMEANS}
    calls.append(None)  # before the first fit, when there is nothing to keep
    with pytest.raises(KeyboardInterrupt):
        probem.select(programs, X)
    calls.clear()
    found = probem.select(programs, X, init=START)
    assert found.interrupted
    assert [row.settings["program"] for row in found.table] == ["two"]
    assert found.best.result is Result.CONVERGED
    assert "interrupted: the other candidates were not fitted" in str(found)


def test_control_c_inside_a_fit_ends_the_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("probem.fitting.run")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "advance", interrupted)
    found = probem.select({"two": PROGRAM, "three": KMEANS}, X, init=START)
    assert [row.result for row in found.table] == [Result.INTERRUPTED]
    assert found.interrupted
    assert found.table[0].fit is not None
    with pytest.raises(probem.FitError, match="none of 1 candidates converged"):
        _ = found.best


def test_criteria_that_do_not_compare() -> None:
    over = {"num_components": [2, 3]}
    with pytest.raises(
        probem.InputError, match=r"criterion='bic' for full posteriors of 'weights', 'loc'; expected points, .*'elbo'"
    ):
        probem.select(bayesian, X, over=over, families=probem.VARIATIONAL_BAYES)
    with pytest.raises(
        probem.InputError,
        match=r"points on 'weights' of different shapes \(\(2,\) and \(3,\)\), where F holds densities in .*; use full",
    ):
        probem.select(bayesian, X, over=over, criterion="elbo")
    mixed = {"prior": functools.partial(bayesian, num_components=3), "k-means": KMEANS}
    with pytest.raises(probem.InputError, match=r"points on 'weights' of different shapes \(\(3,\) and none\)"):
        probem.select(mixed, X, criterion="elbo")


def test_the_bound_of_maximum_likelihood_is_no_criterion() -> None:
    programs = {"two": functools.partial(KMEANS, num_components=2), "three": KMEANS}
    with pytest.raises(
        probem.InputError,
        match=r"maximum likelihood on 'loc' of different shapes \(\(2, 2\) and \(3, 2\)\), where F grows",
    ):
        probem.select(programs, X, criterion="elbo")


@pytest.mark.slow
def test_the_bound_chooses_among_full_posteriors() -> None:
    """A point of one shape on one site, in all of them, is allowed."""
    found = probem.select(
        bayesian,
        X,
        over={"num_components": [2, 3], "centre": [False]},
        criterion="elbo",
        families=probem.VARIATIONAL_BAYES,
        restarts=5,
    )
    elbos = [row.elbo for row in found.table]
    assert found.best_settings == {"num_components": int(np.argmax(elbos)) + 2, "centre": False}
    assert found.best_settings["num_components"] == 3
    assert all(np.isnan([row.bic, row.aic, row.icl]).all() for row in found.table)
    assert str(found).splitlines()[0].split()[2:] == ["parameters", "log", "p(X)", "F", "result"]
    np.testing.assert_allclose(
        found.table[1].log_likelihood, np.sum(found.table[1].fit.log_density(X, plug_in=True)), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"criterion": "bik"},
            "criterion='bik'; expected one of 'bic', 'aic', 'icl', 'elbo', 'log_evidence'; did you mean 'bic'",
        ),
        ({"restart": 3}, "the option 'restart'; expected an argument of probem.fit; did you mean 'restarts'"),
        ({"throw": False}, "throw=, which select decides"),
        ({"restarts": 0}, "restarts=0; expected a whole number of at least 1"),
        ({"row_weights": [1.0]}, r"row_weights of shape \(1,\)"),
        ({"families": {"z": probem.Delta()}}, "unknown site 'z'"),
    ],
)
def test_what_is_no_option(options, match) -> None:
    with pytest.raises(probem.InputError, match=match):
        probem.select({"two": PROGRAM}, X, **options)


@pytest.mark.parametrize(
    ("program", "options", "match"),
    [
        ({}, {}, "an empty mapping of programs"),
        ({"two": PROGRAM}, {"over": {"num_components": [2]}}, "over= beside a mapping of programs"),
        ({"two": 2}, {}, "a program of type int under 'two'"),
        ({"a": PROGRAM, "b": PROGRAM}, {}, "the same under a and b in the programs"),
    ],
)
def test_what_is_no_program(program, options, match) -> None:
    with pytest.raises(probem.InputError, match=match):
        probem.select(program, X, **options)
