"""Rows and components in another order, moved, scaled or rotated: the fit goes along, and F by the log Jacobian."""

import functools
from typing import Any

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import probem
from probem.models import GaussianPrior, bayesian_gmm, diagonal, full, gmm, kmeans, poisson_mixture, tied
from probem.models.covariance import spherical

N, D, K, STEPS = 48, 2, 3, 6
STRUCTURES = {"full": full, "tied": tied, "diagonal": diagonal, "spherical": spherical}
PROGRAMS = {name: functools.partial(gmm, num_components=K, covariance=own) for name, own in STRUCTURES.items()}
KMEANS = functools.partial(kmeans, num_components=K)
POISSON = functools.partial(poisson_mixture, num_components=K)
SEEDS = st.integers(0, 2**16)
SHIFTS = st.tuples(st.floats(-100, 100), st.floats(-100, 100))
SCALES = st.floats(-4, 4).map(np.exp)
ANGLES = st.floats(0, 2 * np.pi)
# Rounding of sums of some fifty terms, carried through six iterations; shifts of a hundred standard deviations cost two
# digits of sixteen, condition numbers of covariances up to 1e4 four.
CLOSE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in three groups, and a first assignment that has something of them."""
    random = np.random.default_rng(seed)
    groups = np.arange(N) % K
    x = 2.0 * random.normal(size=(K, D))[groups] + random.normal(size=(N, D))
    return x, np.where(random.random(N) < 0.3, (groups + 1) % K, groups)


def run(program: Any, x: np.ndarray, labels: np.ndarray, families: Any = None) -> probem.Fit:
    init = probem.Labels(labels)
    return probem.fit(program, x, init=init, families=families, max_steps=STEPS, tolerance=0, throw=False)


def moved(params: Any, matrix: np.ndarray, shift: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters of rows x @ matrix.T + shift; scales go with a diagonal matrix alone."""
    found = {name: np.asarray(value) for name, value in params.items()}
    found["loc"] = found["loc"] @ matrix.T + shift
    if "covariance" in found:
        found["covariance"] = matrix @ found["covariance"] @ matrix.T
    if "scale" in found:
        sizes = np.sqrt(np.diag(matrix @ matrix.T))
        found["scale"] = found["scale"] * (sizes if found["scale"].ndim == 2 else sizes[0])
    return found


def assert_moved(before: probem.Fit, after: probem.Fit, x: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> None:
    size = np.abs(matrix).max()
    for name, value in moved(before.params, matrix, shift).items():
        scale = size**2 if name == "covariance" else size if name in ("loc", "scale") else 1.0
        np.testing.assert_allclose(after.params[name], value, rtol=1e-8, atol=1e-8 * scale, err_msg=name)
    np.testing.assert_allclose(after.responsibilities(x @ matrix.T + shift), before.responsibilities(x), **CLOSE)
    jacobian = N * np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(after.history.elbo, before.history.elbo - jacobian, **CLOSE)


@pytest.mark.slow
@given(seed=SEEDS, shift=SHIFTS, size=SCALES, angle=ANGLES)
@settings(max_examples=10)
@pytest.mark.parametrize(
    "name", ["full", *(pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS if name != "full")]
)
def test_mixtures_move_scale_and_turn_with_their_rows(
    name: str, seed: int, shift: tuple[float, float], size: float, angle: float
) -> None:
    """Each structure under every linear map that keeps it."""
    x, labels = draw(seed)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    columns = np.diag([size, 1 / size])
    maps = {"full": turn @ columns, "tied": turn @ columns, "diagonal": columns, "spherical": size * turn}
    before = run(PROGRAMS[name], x, labels)
    matrix, shift_array = maps[name], np.array(shift)
    assert_moved(before, run(PROGRAMS[name], x @ matrix.T + shift_array, labels), x, matrix, shift_array)


@given(seed=SEEDS)
@settings(max_examples=10)
@pytest.mark.parametrize(
    "name",
    [
        "kmeans",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "tied", "diagonal", "spherical", "poisson")),
    ],
)
def test_rows_and_components_have_no_order(name: str, seed: int) -> None:
    x, labels = draw(seed)
    if name == "poisson":
        x = np.random.default_rng(seed).poisson(np.exp(0.3 * x)).astype(float)
    program = PROGRAMS.get(name, KMEANS if name == "kmeans" else POISSON)
    families = probem.HARD_EM if name == "kmeans" else None
    random = np.random.default_rng(seed + 1)
    order, names = random.permutation(N), random.permutation(K)
    before = run(program, x, labels, families)
    after = run(program, x[order], names[labels[order]], families)
    for site, value in before.params.items():
        own = np.asarray(value)
        if own.ndim and not (site == "covariance" and own.ndim == 2):
            own = own[np.argsort(names)]
        np.testing.assert_allclose(after.params[site], own, **CLOSE, err_msg=site)
    np.testing.assert_allclose(after.history.elbo, before.history.elbo, **CLOSE)
    expected = before.responsibilities(x)[order][:, np.argsort(names)]
    np.testing.assert_allclose(after.responsibilities(x[order]), expected, **CLOSE)


@given(seed=SEEDS, shift=SHIFTS, size=SCALES, angle=ANGLES)
@settings(max_examples=10)
def test_kmeans_moves_scales_and_turns_with_its_rows(
    seed: int, shift: tuple[float, float], size: float, angle: float
) -> None:
    """Squared distances grow by the square of one scale, and so does F but for its constant."""
    x, labels = draw(seed)
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    before, after = (run(KMEANS, rows, labels, probem.HARD_EM) for rows in (x, x @ turn.T + np.array(shift)))
    np.testing.assert_array_equal(after.predict(x @ turn.T + np.array(shift)), before.predict(x))
    expected = np.asarray(before.params["loc"]) @ turn.T + np.array(shift)
    np.testing.assert_allclose(after.params["loc"], expected, rtol=1e-9, atol=1e-9 * size)
    constant = -N * np.log(K) - 0.5 * N * D * np.log(2 * np.pi)
    np.testing.assert_allclose(after.history.elbo - constant, (before.history.elbo - constant) * size**2, rtol=1e-8)


@pytest.mark.slow
@given(seed=SEEDS)
@settings(max_examples=10)
def test_counts_have_no_order_of_columns(seed: int) -> None:
    x, labels = draw(seed)
    x = np.random.default_rng(seed).poisson(np.exp(0.3 * x)).astype(float)
    before, after = run(POISSON, x, labels), run(POISSON, x[:, ::-1], labels)
    np.testing.assert_allclose(after.params["rate"], np.asarray(before.params["rate"])[:, ::-1], **CLOSE)
    np.testing.assert_allclose(after.history.elbo, before.history.elbo, **CLOSE)


@given(seed=SEEDS, shift=SHIFTS, size=SCALES, angle=ANGLES)
@settings(max_examples=2)
@pytest.mark.slow
def test_full_posteriors_go_along_with_a_prior_made_from_the_rows(
    seed: int, shift: tuple[float, float], size: float, angle: float
) -> None:
    """Each prior is a program of its own, and compiles: few examples."""
    x, labels = draw(seed)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix, shift_array = turn @ np.diag([size, 1 / size]) * size, np.array(shift)
    fits = []
    for rows in (x, x @ matrix.T + shift_array):
        own = functools.partial(bayesian_gmm, num_components=K, prior=GaussianPrior.from_data(jnp.asarray(rows), K))
        fits.append(run(own, rows, labels, probem.VARIATIONAL_BAYES))
    before, after = fits
    jacobian = N * np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(after.history.elbo, before.history.elbo - jacobian, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(
        after.responsibilities(x @ matrix.T + shift_array), before.responsibilities(x), atol=1e-7
    )
    expected = np.asarray(before.params["loc"]) @ matrix.T + shift_array
    np.testing.assert_allclose(after.params["loc"], expected, atol=1e-6 * np.abs(matrix).max())
