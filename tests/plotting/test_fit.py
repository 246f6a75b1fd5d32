"""What the figure of a fit draws."""

import dataclasses
import functools
import re

import jax.numpy as jnp
import matplotlib
import matplotlib.colors
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.sparse

import probem
from probem import models
from probem.experiments.claims.datasets import load
from probem.models import gmm, poisson_mixture
from probem.plotting.fit import SERIES, blank_figure
from probem.results.plot import gaussian_components
from tests.programs.fits import PROGRAM, START, X, soft


@pytest.mark.parametrize(
    "structure", [models.covariance.full, pytest.param(models.covariance.diagonal, marks=pytest.mark.slow)]
)
def test_components_are_those_of_the_fit(structure):
    fit = probem.fit(lambda x: models.gmm(x, num_components=2, covariance=structure), load("old_faithful").rows, key=0)
    means, covariances = zip(*gaussian_components(fit, 2), strict=True)
    np.testing.assert_array_equal(means, fit.params["loc"])
    wanted = fit.params.get("covariance")
    wanted = wanted if wanted is not None else [np.diag(scale**2) for scale in fit.params["scale"]]
    np.testing.assert_allclose(covariances, wanted, rtol=1e-12)


@pytest.mark.slow
def test_a_gaussian_around_a_covariate_is_not_drawn():
    def program(x):
        slope = numpyro.param("slope", jnp.array([-1.0, 1.0]))
        with numpyro.plate("rows", len(x)):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.full(2, 0.5)))
            loc = jnp.stack(jnp.broadcast_arrays(0.0, slope[t] * x[:, 0]), -1)
            numpyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    assert gaussian_components(probem.fit(program, load("old_faithful").rows, key=0), 2) is None


def drawn(fit, *data, **options):
    """Both axes, in a figure that no window shows."""
    _, axes = blank_figure()
    assert fit.plot(*data, axes=axes, **options).tolist() == axes.tolist()
    return axes


def test_rows_have_the_colour_of_their_component_and_f_its_trace():
    rows, trace = drawn(soft(), X, columns=["length", "width"])
    (points,) = rows.collections
    np.testing.assert_allclose(np.asarray(points.get_offsets()), X)
    expected = matplotlib.colors.to_rgba_array([SERIES[k] for k in soft().predict(X)], alpha=0.7)
    np.testing.assert_allclose(points.get_facecolors(), expected)
    assert (rows.get_xlabel(), rows.get_ylabel()) == ("length", "width")
    np.testing.assert_array_equal(trace.lines[0].get_ydata(), soft().history.elbo)
    centres = [ellipse.get_center() for ellipse in rows.patches]
    np.testing.assert_allclose(centres, soft().params["loc"])
    # Two standard deviations to either side.
    sides = np.sort([(ellipse.width, ellipse.height) for ellipse in rows.patches])
    np.testing.assert_allclose(sides, np.sort(4 * np.asarray(soft().params["scale"])), rtol=1e-6)
    assert [text.get_text() for text in rows.texts] == ["0", "1"]


def test_the_rows_of_another_day_are_drawn_as_well():
    rows, _ = drawn(soft(), X[:7])
    assert len(rows.collections[0].get_offsets()) == 7


@pytest.mark.slow
def test_rows_with_gaps_are_rings_where_they_are_expected():
    gaps = X.copy()
    gaps[3, 0] = gaps[5] = np.nan
    fit = probem.fit(PROGRAM, gaps, init=START, throw=False)
    points, rings = drawn(fit, gaps)[0].collections
    assert len(points.get_offsets()) == len(X) - 2
    np.testing.assert_allclose(np.asarray(rings.get_offsets()), fit.impute(gaps)[[3]])
    assert rings.get_facecolors().size == 0


@pytest.mark.slow
def test_one_column_is_a_histogram_of_all_rows():
    fit = probem.fit(functools.partial(gmm, num_components=2), X[:, :1], init=probem.Labels(X[:, 0] > 0))
    rows, _ = drawn(fit, X[:, :1])
    assert sum(bar.get_height() for bar in rows.patches) == pytest.approx(len(X))
    assert rows.get_xlabel() == "x"
    # A curve for each component, of which all are the rows.
    areas = [np.trapezoid(line.get_ydata(), line.get_xdata()) for line in rows.lines]
    assert sum(areas) <= len(X) * rows.patches[0].get_width()
    assert sum(areas) >= 0.9 * len(X) * rows.patches[0].get_width()


def test_components_without_rows_are_not_drawn():
    loc = [[-3.0, 0.0], [2.0, 0.0], [500.0, 500.0]]
    program = functools.partial(probem.models.kmeans, num_components=3)
    fit = probem.fit(program, X, init=probem.Parameters({"loc": loc}), fixed={"loc": loc}, max_steps=1, throw=False)
    rows, _ = drawn(fit, X)
    assert [text.get_text() for text in rows.texts] == ["0", "1"]
    assert len(rows.patches) == 2
    assert rows.get_xlim()[1] < 20


@pytest.mark.slow
def test_many_columns_are_seen_along_their_principal_components():
    x = load("iris").rows
    fit = probem.fit(functools.partial(poisson_mixture, num_components=2), np.round(x), key=0)
    rows, _ = drawn(fit, np.round(x))
    offsets = np.asarray(rows.collections[0].get_offsets())
    values = np.linalg.eigvalsh(np.cov(np.round(x).T))[::-1][:2]
    np.testing.assert_allclose(np.cov(offsets.T), np.diag(values), atol=1e-9)
    # Not Gaussian: named where its rows are.
    assert not rows.patches
    assert [text.get_text() for text in rows.texts] == ["0", "1"]


def test_a_fit_without_steps_says_so():
    bare = dataclasses.replace(soft(), history=probem.History.of([], 1.0))
    assert [text.get_text() for text in drawn(bare, X)[1].texts] == ["no steps on record"]


def test_axes_are_those_of_a_new_figure():
    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = soft().plot(X)
    assert axes.shape == (2,)
    assert pyplot.gcf() is axes[0].figure
    pyplot.close(axes[0].figure)


@pytest.mark.parametrize(
    ("data", "options", "sentence"),
    [
        ((), {}, "got no data; expected at least one array"),
        ((X[:, :1],), {}, "got data of row shapes (1,) float64; expected (2,) float64 as fitted"),
        ((X,), {"columns": ["a"]}, "got columns=['a']; expected 2 names, one for each column of the data"),
        ((X,), {"columns": "ab"}, "got columns='ab'; expected 2 names"),
        ((X,), {"axes": [None]}, "got 1 axes; expected two, for the rows and for F"),
        ((np.full_like(X, np.nan),), {}, "got rows of which every value is missing; expected a value in some row"),
        ((scipy.sparse.csr_array(X),), {}, "got sparse rows; expected an array"),
    ],
)
def test_what_cannot_be_drawn_is_refused(data, options, sentence):
    with pytest.raises(probem.InputError, match=re.escape(sentence)):
        soft().plot(*data, **options)
