"""The table of a fit: intervals of q beside draws by NumPyro, and what stands in its lines."""

import dataclasses
import functools
import re
from html.parser import HTMLParser
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import probem
from probem.models import gmm
from probem.results.intervals import width
from tests.programs.fits import PROGRAM, START, X, bayesian, soft

MATRIX = jnp.array([[2.0, 0.6], [0.6, 1.5]])
DRAWS = 20_000
MARGINALS = {
    "normal": dist.Normal(jnp.array([1.0, -2.0]), 0.5).to_event(1),
    "normal vector": dist.MultivariateNormal(jnp.array([[1.0, 2.0], [0.0, 4.0]]), MATRIX).to_event(1),
    "normal vector as a table": dist.TransformedDistribution(
        dist.MultivariateNormal(jnp.arange(4.0), jnp.diag(jnp.array([1.0, 2.0, 3.0, 4.0]))),
        dist.transforms.ReshapeTransform((2, 2), (4,)),
    ),
    "images of normals": dist.TransformedDistribution(
        dist.Normal(jnp.array([0.2, -1.0]), jnp.array([0.3, 0.6])), dist.transforms.ExpTransform()
    ).to_event(1),
    "images of a normal vector": dist.TransformedDistribution(
        dist.MultivariateNormal(jnp.array([1.0, -0.5]), MATRIX), dist.transforms.SigmoidTransform()
    ),
    "images that fall": dist.TransformedDistribution(
        dist.Normal(jnp.zeros(2), 0.5).to_event(1), dist.biject_to(dist.constraints.less_than(3.0))
    ),
    "student": dist.StudentT(jnp.array([5.0, 9.0]), 1.0, 2.0).to_event(1),
    "student vector": dist.MultivariateStudentT(jnp.array([6.0, 9.0]), jnp.zeros(2), jnp.linalg.cholesky(MATRIX)),
    "dirichlet": dist.Dirichlet(jnp.array([0.5, 2.0, 4.0])),
    "beta": dist.Beta(jnp.array([2.0, 0.7]), 3.0),
    "gamma": dist.Gamma(jnp.array([2.0, 7.0]), 3.0),
    "inverse gamma": dist.InverseGamma(jnp.array([6.0, 9.0]), 3.0),
    "wishart": dist.Wishart(jnp.array([5.0, 8.0]), rate_matrix=MATRIX),
    "inverse wishart": dist.InverseWishart(jnp.array([12.0, 15.0]), scale_matrix=MATRIX),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MARGINALS)
def test_widths_are_those_of_draws(name: str) -> None:
    """The share of draws in the interval is its level, and in each tail half of the rest; so is their variance."""
    q = MARGINALS[name]
    draws = np.asarray(q.sample(jax.random.key(1), (DRAWS,)), float)
    found = width(q, 0.9, q.shape())
    assert found is not None
    squares = (draws - draws.mean(0)) ** 2
    # Four standard errors of a mean of squares, and of shares.
    assert (np.abs(squares.mean(0) - found.sd**2) <= 4 * squares.std(0) / np.sqrt(DRAWS)).all()
    defined = ~np.isnan(found.lower)
    for share in ((draws < found.lower).mean(0), (draws > found.upper).mean(0)):
        assert (np.abs(share - 0.05)[defined] <= 4 * np.sqrt(0.05 * 0.95 / DRAWS)).all()
    beside_diagonal = np.broadcast_to(~np.eye(2, dtype=bool), q.shape()) if "wishart" in name else np.zeros(q.shape())
    np.testing.assert_array_equal(~defined, beside_diagonal)


def test_variances_of_random_matrices_are_those_of_scipy() -> None:
    for name, of_scipy in (("wishart", scipy.stats.wishart), ("inverse wishart", scipy.stats.invwishart)):
        q: Any = MARGINALS[name]
        found = width(q, 0.9, q.shape())
        assert found is not None
        for number, freedom in enumerate(np.asarray(q.concentration)):
            scale = np.asarray(MATRIX if name == "inverse wishart" else np.linalg.inv(MATRIX))
            np.testing.assert_allclose(found.sd[number] ** 2, of_scipy.var(freedom, scale), rtol=1e-10)


def test_moments_that_do_not_exist_are_infinite() -> None:
    for q in (dist.StudentT(2.0), dist.InverseGamma(2.0, 1.0), dist.InverseWishart(5.0, scale_matrix=MATRIX)):
        found = width(q, 0.9, q.shape())
        assert found is not None
        assert np.isinf(found.sd).all()
    sure = width(dist.Dirichlet(jnp.array([3.0])), 0.9, (1,))
    assert sure is not None
    assert [float(part[0]) for part in sure] == [0.0, 1.0, 1.0]


def test_a_q_that_is_not_known_has_no_width() -> None:
    """Nor has a subclass, whose density may be another."""

    class Own(dist.Normal):
        pass

    assert width(dist.Cauchy(0.0, 1.0), 0.9, ()) is None
    sticks = dist.TransformedDistribution(dist.Normal(0.0, 1.0).expand([2]), dist.transforms.StickBreakingTransform())
    assert width(sticks, 0.9, (3,)) is None
    assert width(dist.TransformedDistribution(dist.Cauchy(0.0, 1.0), dist.transforms.ExpTransform()), 0.9, ()) is None
    assert width(Own(0.0, 1.0), 0.9, ()) is None
    assert width(Own(jnp.zeros(2), 1.0).to_event(1), 0.9, (2,)) is None


def test_lines_of_points() -> None:
    table = soft().summary()
    assert [(entry.site, entry.index) for entry in table.entries] == [
        (site, index) for site, value in soft().params.items() for index in np.ndindex(*value.shape)
    ]
    for entry in table.entries:
        assert entry.estimate == soft().params[entry.site][entry.index]
        assert np.isnan([entry.standard_error, entry.sd, entry.lower, entry.upper]).all()
    assert str(table).splitlines()[3].split() == ["site", "index", "estimate"]
    errors = soft().standard_errors(X)
    with_errors = soft().summary(X)
    for entry in with_errors.entries:
        assert entry.standard_error == errors[entry.site][entry.index]
    assert "std. error" in str(with_errors)


def test_the_head_says_how_it_ended() -> None:
    head = soft().summary().head
    assert head[0] == (
        f"CONVERGED after {soft().num_steps} steps; F = {soft().elbo:.6f} nats, total over rows of weight 90"
    )
    counts = soft().responsibilities(X).sum(0)
    np.testing.assert_allclose([float(part) for part in re.findall(r"\d+\.\d", head[1])], counts, atol=0.051)
    short = probem.fit(PROGRAM, X, init=START, max_steps=1, throw=False)
    assert short.summary().head[0].startswith(f"STEP_LIMIT ({probem.Result.STEP_LIMIT.value}) after 1 step; F = ")
    assert dataclasses.replace(soft(), twins=((0, 1),)).summary().head[2].endswith("become equal: 0 and 1")


@pytest.mark.slow
def test_fixed_entries_and_edges_are_marked() -> None:
    fixed = {"loc": [[-3.0, 0.0], [np.nan, np.nan]]}
    fit = probem.fit(PROGRAM, X, init=START, fixed=fixed, throw=False)
    entries = {(entry.site, entry.index): entry for entry in fit.summary(X).entries}
    for index, note in (((0, 0), "fixed"), ((1, 0), "")):
        assert entries["loc", index].note == note
        assert np.isnan(entries["loc", index].standard_error) == bool(note)
    edge = dataclasses.replace(soft(), at_boundary={"weights": np.array([True, False])})
    notes = [entry.note for entry in edge.summary().entries if entry.site == "weights"]
    assert notes == ["on an edge", ""]


@pytest.mark.slow
def test_lines_of_full_posteriors() -> None:
    """Normal locations: the interval is the mean and 1.96 standard deviations."""
    fit = probem.fit(functools.partial(bayesian, num_components=2), X, families=probem.VARIATIONAL_BAYES)
    entries = [entry for entry in fit.summary().entries if entry.site == "loc"]
    variances = np.asarray(fit.posterior["loc"].variance)
    for entry in entries:
        np.testing.assert_allclose(entry.sd, np.sqrt(variances[entry.index]), rtol=1e-12)
        ends = entry.estimate + np.array([-1, 1]) * 1.959963984540054 * entry.sd
        np.testing.assert_allclose([entry.lower, entry.upper], ends, rtol=1e-12)
    assert str(fit.summary(level=0.5)).splitlines()[3].split() == ["site", "index", "estimate", "sd", "25%", "75%"]
    assert str(fit.summary(X)) == str(fit.summary())
    with pytest.raises(probem.InputError, match="row shapes"):
        fit.summary(X[:, None, None])


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, float("nan")])
def test_levels_that_are_no_probabilities_are_refused(level: float) -> None:
    with pytest.raises(probem.InputError, match=re.escape(f"got level={level!r}; expected a probability between")):
        soft().summary(level=level)


class Cells(HTMLParser):
    """The cells of a table, and the tags that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def test_html_has_the_lines_and_escapes_names() -> None:
    fit = dataclasses.replace(soft(), params={"<b>": jnp.arange(3.0)}, plan=None)
    cells = Cells()
    cells.feed(fit._repr_html_())
    assert cells.open == []
    assert cells.rows == [["site", "index", "estimate"], *(["<b>", str(k), str(k)] for k in range(3))]


def test_long_tables_are_cut_and_say_so() -> None:
    fit = dataclasses.replace(soft(), params={"loc": jnp.zeros((50, 9))}, plan=None)
    assert str(fit.summary()).splitlines()[-1] == "... and 250 more lines, in summary.entries"
    assert len(str(fit.summary()).splitlines()) == 3 + 2 + 200 + 1
    assert "and 410 more lines" in fit._repr_html_()
    assert len(fit._repr_html_()) < 20_000
    assert len(fit.summary().entries) == 450


@pytest.mark.slow
def test_symmetric_matrices_are_shown_once() -> None:
    full = probem.fit(functools.partial(gmm, num_components=2), X, init=probem.Labels(X[:, 0] > 0))
    found = [entry.index for entry in full.summary().entries if entry.site == "covariance"]
    assert found == [(k, *place) for k in range(2) for place in ((0, 0), (1, 0), (1, 1))]


def test_a_fit_without_its_program_has_its_numbers(tmp_path) -> None:
    soft().save(tmp_path / "fit.npz")
    loaded = probem.load(tmp_path / "fit.npz")
    assert str(loaded.summary()) == str(soft().summary())
    assert loaded._repr_html_() == soft()._repr_html_()
