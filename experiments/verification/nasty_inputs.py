"""What scikit-learn and probem.sklearn make of rows that break a fit.

    python -m probem.experiments.verification.nasty_inputs TABLE.md

An outcome is right if every attribute is finite and the answer is the one that is known: the labels of clusters that
lie far apart, or parameters by plain arithmetic in a frame in which nothing is lost. What is neither right nor said to
be wrong, in an error or a warning that names the cause, is a silent failure.
"""

import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
from sklearn import cluster, mixture
from sklearn.metrics import adjusted_rand_score

import probem.sklearn as ours

#: A judge says what is wrong with a fitted estimator; nothing if it is right.
Judge = Callable[[Any, np.ndarray], str]


class Case(NamedTuple):
    """One input: rows, the name of an estimator with its settings, and what to hold the answer to."""

    name: str
    rows: np.ndarray
    estimator: str
    settings: dict[str, Any]
    judge: Judge
    weights: np.ndarray | None = None


class Outcome(NamedTuple):
    """What came of it: "right", "wrong", "refused", "died", or "warned" (and then right or wrong, as ``text`` says)."""

    kind: str
    text: str


TRUTH = np.repeat(np.arange(3), 60)


def blobs(columns: int = 2, seed: int = 0) -> np.ndarray:
    """Three clusters of unit variance, ten standard deviations and more apart, ``[180, D]``."""
    random = np.random.default_rng(seed)
    centres = np.zeros((3, columns))
    centres[:, 0], centres[:, -1] = (0.0, 12.0, 24.0), (0.0, 12.0, 0.0) if columns > 1 else (0.0, 12.0, 24.0)
    return centres[TRUTH] + random.normal(size=(len(TRUTH), columns))


def finite(estimator: Any, rows: np.ndarray) -> str:
    """Every attribute, and every answer about the rows, is finite."""
    for name, value in vars(estimator).items():
        parts = value if isinstance(value, tuple) else (value,)
        for part in parts:
            is_number = isinstance(part, np.ndarray | float) and np.asarray(part).dtype.kind == "f"
            if name.endswith("_") and not name.startswith("_") and is_number and np.isnan(part).any():
                return f"NaN in {name}"
    if hasattr(estimator, "score_samples") and not np.isfinite(estimator.score_samples(rows)).all():
        return "log densities that are not finite"
    return ""


def separates(estimator: Any, rows: np.ndarray, truth: np.ndarray = TRUTH) -> str:
    """The clusters are those that the rows were made from."""
    index = adjusted_rand_score(truth, estimator.predict(rows))
    return finite(estimator, rows) or ("" if index == 1 else f"adjusted Rand index {index:.2f}, not 1")


def separates_complete(estimator: Any, rows: np.ndarray) -> str:
    """Rows without a gap are in the clusters they were made from; one whose only value two share belongs to either."""
    whole = ~np.isnan(rows).any(1)
    return finite(estimator, rows) or separates(estimator, rows[whole], TRUTH[whole])


def stays_wide(estimator: Any, rows: np.ndarray) -> str:
    """No component shrank to a point, where the likelihood is unbounded and the answer means nothing."""
    covariances = np.asarray(estimator.covariances_)
    spreads = np.linalg.eigvalsh(covariances) if covariances.ndim == 3 else covariances
    least = float(spreads.min() / rows.var())
    return finite(estimator, rows) or (f"a component with {least:.0e} of the variance" if least < 1e-12 else "")


def inertia_is(expected: float) -> Judge:
    """k-means reaches an inertia that is known, to rounding of the rows."""

    def judge(estimator: Any, rows: np.ndarray) -> str:
        scale = np.finfo(rows.dtype).eps * np.abs(rows).max() ** 2 * len(rows)
        missed = abs(estimator.inertia_ - expected) > 1e-9 * expected + scale
        return finite(estimator, rows) or (f"inertia {estimator.inertia_:.3g}, not {expected:.3g}" if missed else "")

    return judge


def moments(offset: Any, scale: Any, tolerance: float) -> Judge:
    """Means and covariances of the three clusters, by plain arithmetic where rows are of order one.

    ``offset`` is one number, or that of each cluster ``[3]``.
    """
    offsets = np.broadcast_to(offset, 3)

    def judge(estimator: Any, rows: np.ndarray) -> str:
        if wrong := separates(estimator, rows):
            return wrong
        plain = (np.asarray(rows, np.longdouble) - offsets[TRUTH, None]) / scale
        errors = []
        for number in range(3):
            label = estimator.predict(rows[TRUTH == number])[0]
            part = plain[TRUTH == number].astype(float)
            means = (np.asarray(estimator.means_[label], np.longdouble) - offsets[number]) / scale
            errors.append(np.abs(means.astype(float) - part.mean(0)).max())
            covariances = np.asarray(estimator.covariances_)
            covariances = covariances if estimator.covariance_type == "tied" else covariances[label]
            variances = (
                np.diagonal(covariances) if covariances.ndim == 2 else np.broadcast_to(covariances, part.shape[1])
            )
            expected = part.var(0)
            if estimator.covariance_type == "tied":
                expected = np.mean([plain[TRUTH == k].astype(float).var(0) for k in range(3)], axis=0)
            if estimator.covariance_type == "spherical":
                expected = np.full(part.shape[1], expected.mean())
            errors.append(np.abs(variances / np.broadcast_to(scale, part.shape[1]) ** 2 - expected).max())
        worst = float(max(errors))
        return "" if worst <= tolerance else f"parameters {worst:.1g} standard deviations off"

    return judge


def cases() -> list[Case]:
    """Every input, the same each time."""
    random = np.random.default_rng(1)
    x = blobs()
    distinct = np.repeat(random.normal(size=(4, 2)), 10, axis=0)
    grid = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), -1).reshape(-1, 2)
    constant = np.c_[x, np.full(len(x), 3.0)]
    collinear = np.c_[x, x.sum(1)]
    wide = np.r_[random.normal(size=(8, 20)), 10 + random.normal(size=(8, 20))]
    halves = np.repeat(np.arange(2), 8)
    outlier = np.r_[x, [[500.0, 500.0]]]
    copies = np.repeat(x[:60] * 0.1, 5, axis=0)
    gaps = np.where(random.random(x.shape) < 0.1, np.nan, x)
    gaps[np.isnan(gaps).all(1)] = x[np.isnan(gaps).all(1)]
    infinite = x.copy()
    infinite[3, 1] = np.inf
    mixed = x * [1e-8, 1e8]
    apart = x + 1e7 * np.stack([TRUTH, TRUTH], axis=1)
    counts = random.poisson([[1.0, 2.0]] * 90 + [[20.0, 30.0]] * 90).astype(float)
    count_truth = np.repeat(np.arange(2), 90)
    weights = np.zeros(len(x))
    weights[[0, 60, 120, 1, 61, 121, 2]] = 1.0
    km = functools.partial(Case, estimator="KMeans")
    gm = functools.partial(Case, estimator="GaussianMixture")
    bg = functools.partial(Case, estimator="BayesianGaussianMixture")
    three: dict[str, Any] = {"n_components": 3, "random_state": 0, "n_init": 5}
    cases = [
        km("more clusters than distinct rows", distinct, settings={"n_clusters": 6}, judge=inertia_is(0.0)),
        km("all rows the same", np.ones((20, 2)), settings={"n_clusters": 3}, judge=inertia_is(0.0)),
        km("a single row", np.ones((1, 2)), settings={"n_clusters": 1}, judge=inertia_is(0.0)),
        km("as many clusters as rows", x[:12], settings={"n_clusters": 12}, judge=inertia_is(0.0)),
        km("one feature", blobs(1), settings={"n_clusters": 3}, judge=separates),
        km("1e6 standard deviations from the origin", x + 1e6, settings={"n_clusters": 3}, judge=separates),
        km(
            "float32, 1e4 standard deviations from the origin",
            (x + 1e4).astype(np.float32),
            settings={"n_clusters": 3},
            judge=separates,
        ),
        km("scale 1e-8", x * 1e-8, settings={"n_clusters": 3}, judge=separates),
        km("scale 1e8", x * 1e8, settings={"n_clusters": 3}, judge=separates),
        km("heavy ties: an integer grid", grid, settings={"n_clusters": 4}, judge=finite),
        km("10 % missing", gaps, settings={"n_clusters": 3}, judge=separates_complete),
        km("an infinite value", infinite, settings={"n_clusters": 3}, judge=separates),
        km("seven rows with a weight", x, settings={"n_clusters": 3}, judge=separates, weights=weights),
    ]
    for kind in ("full", "tied", "diag", "spherical"):
        settings = three | {"covariance_type": kind}
        cases += [
            gm(f"{kind}: 1e6 sds from the origin", x + 1e6, settings=settings, judge=moments(1e6, 1.0, 1e-4)),
            gm(f"{kind}: scale 1e-8", x * 1e-8, settings=settings, judge=moments(0.0, 1e-8, 1e-4)),
            gm(f"{kind}: scale 1e8", x * 1e8, settings=settings, judge=moments(0.0, 1e8, 1e-4)),
            gm(f"{kind}: a constant column", constant, settings=settings, judge=separates),
            gm(f"{kind}: 10 % missing", gaps, settings=settings, judge=separates_complete),
        ]
    bare = three | {"reg_covar": 0.0}
    cases += [
        gm("clusters 1e7 sds apart", apart, settings=three, judge=moments(1e7 * np.arange(3.0), 1.0, 1e-4)),
        gm("10 % missing, 1e6 sds from the origin", gaps + 1e6, settings=three, judge=separates_complete),
        gm("10 % missing, scale 1e8", gaps * 1e8, settings=three, judge=separates_complete),
        gm("a constant column, reg_covar=0", constant, settings=bare, judge=separates),
        gm("collinear columns", collinear, settings=three, judge=separates),
        gm("collinear columns, reg_covar=0", collinear, settings=bare, judge=separates),
        gm(
            "more columns than rows",
            wide,
            settings={"n_components": 2, "random_state": 0},
            judge=functools.partial(separates, truth=halves),
        ),
        gm(
            "more columns than rows, reg_covar=0",
            wide,
            settings={"n_components": 2, "random_state": 0, "reg_covar": 0.0},
            judge=functools.partial(separates, truth=halves),
        ),
        gm("an outlier gets a component, reg_covar=0", outlier, settings=bare, judge=stays_wide),
        gm("every row five times, reg_covar=0", copies, settings=bare | {"n_components": 20}, judge=stays_wide),
        gm("more components than distinct rows", distinct, settings=three | {"n_components": 6}, judge=finite),
        gm("all rows the same", np.ones((20, 2)), settings=three, judge=finite),
        gm("two rows, two components", x[[0, 60]], settings={"n_components": 2, "random_state": 0}, judge=finite),
        gm("columns of scale 1e-8 and 1e8", mixed, settings=three, judge=moments(0.0, np.array([1e-8, 1e8]), 1e-4)),
        gm("float32, standardised", ((x - x.mean(0)) / x.std(0)).astype(np.float32), settings=three, judge=separates),
        gm("float32, 1e3 sds from the origin", (x + 1e3).astype(np.float32), settings=three, judge=separates),
        gm("one feature", blobs(1), settings=three, judge=separates),
        gm(
            "heavy ties: counts",
            counts,
            settings=three | {"n_components": 2},
            judge=functools.partial(separates, truth=count_truth),
        ),
        gm("an infinite value", infinite, settings=three, judge=separates),
        bg("a constant column", constant, settings=three, judge=separates),
        bg("collinear columns", collinear, settings=three, judge=separates),
        bg(
            "more columns than rows",
            wide,
            settings={"n_components": 2, "random_state": 0},
            judge=functools.partial(separates, truth=halves),
        ),
        bg("scale 1e-8", x * 1e-8, settings=three, judge=separates),
        bg("1e6 standard deviations from the origin", x + 1e6, settings=three, judge=separates),
        bg("all rows the same", np.ones((20, 2)), settings=three, judge=finite),
        bg("10 % missing", gaps, settings=three, judge=separates_complete),
    ]
    return cases


def outcome(library: Any, case: Case) -> Outcome:
    """Fit, and judge."""
    rows = case.rows.copy()
    settings = ({"random_state": 0, "n_init": 5} if case.estimator == "KMeans" else {}) | case.settings
    estimator = getattr(library, case.estimator)(**settings)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            if case.weights is None:
                estimator.fit(rows)
            else:
                estimator.fit(rows, sample_weight=case.weights)
        except Exception as error:
            kind = "refused" if isinstance(error, ValueError) and "LinAlg" not in type(error).__name__ else "died"
            return Outcome(kind, f"{type(error).__name__}: {_short(error)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrong = case.judge(estimator, rows)
    named = [warning for warning in said if not issubclass(warning.category, FutureWarning)]
    if named:
        last = named[-1]
        verdict = f"wrong ({wrong})" if wrong else "right"
        return Outcome("warned", f"{verdict}, {last.category.__name__}: {_short(last.message)}")
    return Outcome("wrong", wrong) if wrong else Outcome("right", "")


def _short(message: Any) -> str:
    text = " ".join(str(message).split())
    return text if len(text) <= 160 else text[:157] + "..."


class _Theirs:
    KMeans = cluster.KMeans
    GaussianMixture = mixture.GaussianMixture
    BayesianGaussianMixture = mixture.BayesianGaussianMixture


def main(path: str | Path | None = None) -> list[tuple[Case, Outcome, Outcome]]:
    """Judge every case on both sides, and write the table."""
    outcomes = []
    for case in cases():
        theirs, mine = outcome(_Theirs, case), outcome(ours, case)
        outcomes.append((case, theirs, mine))
        print(f"{case.estimator:24}{case.name:44}{theirs.kind:9}{mine.kind}", flush=True)
        for side in (theirs, mine):
            if side.text:
                print(f"    {side.text}")
    if path is not None:
        Path(path).write_text(table(outcomes))
    return outcomes


def table(outcomes: list[tuple[Case, Outcome, Outcome]]) -> str:
    """The outcomes in Markdown."""
    lines = [
        "# Nasty inputs",
        "",
        f"What scikit-learn {sklearn.__version__} and probem.sklearn make of them, from",
        "`python -m probem.experiments.verification.nasty_inputs experiments/verification/nasty_inputs.md`.",
        "*Right*: every attribute is finite and the answer is the one that is known. *Refused*, *warned*: an error or",
        "a warning says what is wrong. *Wrong*: nothing does.",
        "",
        "| estimator | input | scikit-learn | probem |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {case.estimator} | {case.name} | {_cell(theirs)} | {_cell(mine)} |" for case, theirs, mine in outcomes
    ]
    return "\n".join([*lines, ""])


def _cell(outcome: Outcome) -> str:
    text = outcome.text.replace("|", "\\|")
    return f"**{outcome.kind}**: {text}" if text else f"**{outcome.kind}**"


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit("usage: python -m probem.experiments.verification.nasty_inputs [TABLE.md]")
    main(sys.argv[1] if len(sys.argv) == 2 else None)
