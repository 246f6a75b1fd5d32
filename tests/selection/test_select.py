"""``select``: criteria against scikit-learn and formulas, what is chosen, and what is refused before anything runs."""

import dataclasses
import functools
import importlib

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from sklearn.mixture import GaussianMixture

import probem
from probem import Result
from probem.analysis.routes import make_plan
from probem.families.choice import choose_families
from probem.models import diagonal, full, gmm, spherical, tied
from probem.program.reading import read
from probem.selection.candidates import programs_of, shown
from probem.selection.criteria import num_parameters
from tests.oracles import plain
from tests.programs.fits import KMEANS, PROGRAM, START, X, normal_table

SELECTION = importlib.import_module("probem.selection.select")
SKLEARN = {full: "full", tied: "tied", diagonal: "diag", spherical: "spherical"}


@functools.cache
def grid() -> probem.Selection:
    """One to three diagonal components, of which three are right."""
    return probem.select(
        functools.partial(gmm, covariance=diagonal), X, over={"num_components": range(1, 4)}, restarts=3
    )


def other_side(fit: probem.Fit, covariance) -> GaussianMixture:
    """scikit-learn's mixture at the parameters of a fit."""
    params = {name: np.asarray(value) for name, value in fit.params.items()}
    mixture = GaussianMixture(len(params["loc"]), covariance_type=SKLEARN[covariance])
    mixture.weights_, mixture.means_ = params["weights"], params["loc"]
    if "scale" in params:
        mixture.precisions_cholesky_ = 1 / params["scale"]
    else:
        factor = np.linalg.inv(np.linalg.cholesky(params["covariance"]))
        mixture.precisions_cholesky_ = np.swapaxes(factor, -1, -2)
    return mixture


def assert_criteria(row: probem.Candidate, covariance) -> None:
    theirs = other_side(row.fit, covariance)
    np.testing.assert_allclose([row.bic, row.aic], [theirs.bic(X), theirs.aic(X)], rtol=1e-10)
    np.testing.assert_allclose(row.log_likelihood, theirs.score_samples(X).sum(), rtol=1e-10)
    certain = theirs.predict_proba(X).max(1)
    np.testing.assert_allclose(row.icl, theirs.bic(X) - 2 * np.log(certain).sum(), rtol=1e-10)
    assert row.num_parameters == theirs._n_parameters()


@pytest.mark.slow
def test_criteria_are_those_of_scikit_learn() -> None:
    for row in grid().table:
        assert_criteria(row, diagonal)
        assert row.elbo == row.fit.elbo


@pytest.mark.slow
def test_criteria_of_every_covariance() -> None:
    """The last name varies fastest; the posterior of ICL is the program's, whatever the family of the fit."""
    some, others = list(SKLEARN)[::2], list(SKLEARN)[1::2]
    over = {"num_components": [1, 3], "covariance": some}
    found = probem.select(gmm, X, over=over, criterion="icl", restarts=4)
    assert [tuple(row.settings.values()) for row in found.table] == [(K, own) for K in (1, 3) for own in some]
    hard = probem.select(gmm, X, over={"num_components": [3], "covariance": others}, families=probem.HARD_EM)
    for row in found.table + hard.table:
        assert_criteria(row, row.settings["covariance"])


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
def test_what_is_fixed_as_a_whole_is_not_counted() -> None:
    fixed = {"covariance": np.stack([np.eye(2), np.full((2, 2), np.nan), np.eye(2)]), "weights": [0.2, 0.3, 0.5]}
    (row,) = probem.select(
        {"it": functools.partial(gmm, num_components=3)}, X, fixed=fixed, max_steps=5000, restarts=2
    ).table
    assert row.num_parameters == 0 + 6 + 3


@pytest.mark.slow
def test_the_best_is_the_lowest_and_is_marked() -> None:
    found = grid()
    bic = [row.bic for row in found.table]
    assert found.best is found.table[int(np.argmin(bic))].fit
    assert found.best_settings == {"num_components": 3}
    assert found.criterion == "bic"
    lines = str(found).splitlines()
    assert lines[0].split() == ["num_components", "parameters", "log", "p(X)", "BIC", "AIC", "ICL", "F", "result"]
    assert [line[0] for line in lines[2:5]] == [" ", " ", "*"]
    assert f"{min(bic):.2f}" in lines[4]
    assert len({len(line) for line in lines[:1]} | {len(line) for line in lines[2:5]}) <= 2
    assert lines[-1] == "* lowest BIC; nats, totals over the data"
    assert not found.interrupted


@pytest.mark.slow
def test_columns_for_a_data_frame() -> None:
    columns = grid().to_dict()
    assert list(columns) == [
        *("num_components", "num_parameters", "log_likelihood", "elbo", "log_evidence", "bic", "aic", "icl"),
        *("result", "message", "best"),
    ]
    assert columns["num_components"] == [1, 2, 3]
    assert columns["best"] == [False, False, True]
    assert columns["result"] == ["CONVERGED"] * 3
    assert {len(column) for column in columns.values()} == {3}


@pytest.mark.slow
def test_the_figure_shows_every_value() -> None:
    figure = grid().plot()
    (axes,) = figure.axes
    line, crosses, ring = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(line.get_ydata(), [row.bic for row in grid().table])
    assert len(crosses.get_xdata()) == 0
    np.testing.assert_allclose(ring.get_xydata(), [[3, grid().table[2].bic]])
    assert axes.get_xlabel() == "num_components"
    assert axes.get_ylabel() == "BIC (nats, lower is better)"


def ended(result: Result | None, **values) -> probem.Candidate:
    """A row of a table, without a fit."""
    named = dict.fromkeys(("log_likelihood", "elbo", "bic", "aic", "icl"), float("nan")) | values
    return probem.Candidate({"K": 1, "shape": full}, 3, **named, result=result, fit=None, message="said why")


def test_what_failed_is_never_chosen() -> None:
    """However good it looks."""
    rows = (
        ended(Result.SINGULAR, bic=-1e9),
        ended(Result.CONVERGED, bic=5.0),
        ended(Result.CONVERGED, bic=float("nan")),
        ended(Result.EMPTY_COMPONENT, bic=1.0),
        ended(None),
    )
    found = probem.Selection(rows, "bic")
    assert found.best_candidate is rows[1]
    table = str(found)
    assert "full" in table
    assert "refused" in table
    assert table.endswith("K=1, shape=full: said why")
    figure = found.plot()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "full",
        "best: 5.0 nats",
        "did not converge",
    ]
    # In the order of the axis, whatever that of the grid.
    reverse = tuple(dataclasses.replace(rows[1], settings={"K": K, "shape": full}) for K in (3, 1, 2))
    np.testing.assert_array_equal(probem.Selection(reverse, "bic").plot().axes[0].lines[0].get_xdata(), [1, 2, 3])
    none = probem.Selection(rows[:1] + rows[3:], "bic")
    with pytest.raises(probem.FitError, match=r"none of 3 candidates converged \(1 SINGULAR, 1 EMPTY_COMPONENT, 1 ref"):
        _ = none.best
    assert "no fit converged" in str(none)
    assert none.to_dict()["best"] == [False] * 3


def test_the_bound_is_best_where_it_is_highest() -> None:
    rows = (ended(Result.CONVERGED, elbo=-7.0), ended(Result.CONVERGED, elbo=-6.0))
    assert probem.Selection(rows, "elbo").best_candidate is rows[1]


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
    right, calls = SELECTION.fit, []

    @functools.wraps(right)
    def interrupted(*arguments, **options):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return right(*arguments, **options)

    monkeypatch.setattr(SELECTION, "fit", interrupted)
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
    module = importlib.import_module("probem.fitting.fit")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_advance", interrupted)
    found = probem.select({"two": PROGRAM, "three": KMEANS}, X, init=START)
    assert [row.result for row in found.table] == [Result.INTERRUPTED]
    assert found.interrupted
    assert found.table[0].fit is not None
    with pytest.raises(probem.FitError, match="none of 1 candidates converged"):
        _ = found.best


def bayesian(x, num_components, centre=True):
    """Conjugate priors on all but, perhaps, a common scale."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(num_components, 2.0)))
    with numpyro.plate("components", num_components):
        loc = numpyro.sample("loc", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
    scale = 1.0 if centre else numpyro.param("scale", jnp.ones(()), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], scale).to_event(1), obs=x)


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
    ("over", "match"),
    [
        (None, r"nothing to choose over; expected keyword arguments .*range\(1, 7\)"),
        ({}, "nothing to choose over"),
        ([1, 2], "over of type list"),
        ({"num_component": [1]}, r"over\['num_component'\]; .* did you mean 'num_components'"),
        ({"x": [1]}, r"over\['x'\], a data argument of the program"),
        ({"num_components": []}, r"over\['num_components'\] without a value"),
        ({"num_components": 3}, r"over\['num_components'\]=3; expected a list of the values to try; write \[3\]"),
        ({"covariance": full}, r"over\['covariance'\]=full; expected a list"),
        ({"weights": "free"}, r"over\['weights'\]=free; expected a list"),
        ({"num_components": [1, 2, 1]}, r"1 twice in over\['num_components'\]; expected every candidate once"),
        ({"covariance": [full, full]}, r"full twice in over\['covariance'\]"),
    ],
)
def test_what_is_no_grid(over, match) -> None:
    with pytest.raises(probem.InputError, match=match):
        probem.select(gmm, X, over=over)


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


def test_the_grid_takes_what_python_takes() -> None:
    def any_keyword(x, **options):
        return options

    found = programs_of(any_keyword, {"a": np.array([1, 2]), "b": iter("xy")}, 1)
    assert [settings for settings, _ in found] == [{"a": a, "b": b} for a in (1, 2) for b in "xy"]
    assert found[2][1](None) == {"a": 2, "b": "x"}
    # What partial has bound may be tried otherwise.
    ((_, rebound),) = programs_of(functools.partial(gmm, num_components=2), {"num_components": [3]}, 1)
    assert rebound.keywords["num_components"] == 3
    assert shown(functools.partial(gmm, num_components=2)) == "gmm(num_components=2)"
    assert shown(np.zeros((2, 3))) == "array[2, 3]"
    assert shown("a" * 60) == "a" * 60
    assert len(shown(list(range(100)))) == 40


def hierarchical(x):
    """``spread`` reaches the data through the prior of ``loc`` alone, and ``unused`` not at all."""
    spread = numpyro.sample("spread", dist.Gamma(2.0, 1.0))
    loc = numpyro.sample("loc", dist.Normal(0.0, spread).expand([3, 2]).to_event(2))
    numpyro.param("unused", jnp.zeros(5))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(("program", "count"), [(PROGRAM, 1 + 4 + 4), (KMEANS, 6), (hierarchical, 6)])
def test_free_parameters(program, count) -> None:
    known = read(program, (X,))
    assert num_parameters(make_plan(known, choose_families(known, None))) == count


@pytest.mark.slow
def test_faithful_as_mclust_has_it() -> None:
    """Three components of one covariance: log likelihood -1126.326, 11 parameters, BIC 2314.316 on this scale.

    Source: ``summary(Mclust(faithful))`` of the R package mclust 5.
    """
    x = np.loadtxt("experiments/data/old_faithful.csv", delimiter=",", skiprows=1)
    found = probem.select(gmm, x, over={"num_components": range(1, 5), "covariance": [full, tied]}, restarts=5)
    assert found.best_settings == {"num_components": 3, "covariance": tied}
    best = found.best_candidate
    assert best.num_parameters == 11
    np.testing.assert_allclose([best.log_likelihood, best.bic], [-1126.326, 2314.316], atol=0.03)
