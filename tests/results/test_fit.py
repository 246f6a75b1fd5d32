"""What a fit answers about rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probem
from tests.oracles import plain
from tests.programs import fits
from tests.programs.fits import PROGRAM, START, X, hard, hard_gap, normal_table, soft


@pytest.mark.parametrize("num_rows", [90, 700])
def test_log_densities_can_be_differentiated_by_the_rows(num_rows: int) -> None:
    """The score, in one chunk and in several: against central differences, whose error is the square of the step."""
    fit = fits.soft()
    x = jnp.asarray(np.random.default_rng(2).normal(size=(num_rows, 2)))
    scores = jax.grad(lambda rows: fit.log_density(rows).sum())(x)
    for column in np.eye(2):
        ahead, behind = (np.asarray(fit.log_density(x + step * column)) for step in (1e-5, -1e-5))
        np.testing.assert_allclose(scores @ column, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-7)


def test_answers_about_rows() -> None:
    fit = soft()
    table = normal_table(fit.params, X)
    np.testing.assert_allclose(fit.log_density(X), np.logaddexp.reduce(table, axis=1), rtol=1e-12)
    np.testing.assert_allclose(fit.responsibilities(X), plain.posterior(table), atol=1e-12)
    np.testing.assert_array_equal(fit.predict(X), table.argmax(1))
    np.testing.assert_allclose(fit.gap(X), 0, atol=1e-10)
    np.testing.assert_allclose(hard().gap(X), hard_gap(), rtol=1e-10)
    new = X[:7] + 100.0
    np.testing.assert_allclose(
        fit.log_density(new), np.logaddexp.reduce(normal_table(fit.params, new), axis=1), rtol=1e-11
    )
    assert fit.families == {"t": probem.Categorical()}
    assert repr(fit).startswith("Fit(CONVERGED, elbo=")
    with pytest.raises(
        probem.InputError, match=r"got data of row shapes \(3,\) float64; expected \(2,\) float64 as fitted"
    ):
        fit.predict(np.ones((4, 3)))
    with pytest.raises(probem.InputError, match=r"1 value that is infinite in the data \(column 1\)"):
        fit.predict(np.array([[0.0, np.inf]]))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, bool])
def test_rows_of_another_kind_of_number_are_those_numbers(dtype) -> None:
    rows = np.abs(2 * X).astype(dtype)
    fit, same = soft(), rows.astype(float)
    np.testing.assert_array_equal(fit.predict(rows), normal_table(fit.params, same).argmax(1))
    for answer in (fit.predict, fit.responsibilities, fit.log_density):
        np.testing.assert_array_equal(answer(rows), answer(same))
        assert answer(rows).dtype == answer(same).dtype


@pytest.mark.slow
def test_rows_that_the_fitted_type_cannot_hold_are_refused() -> None:
    single = probem.fit(PROGRAM, X.astype(np.float32), init=START, max_steps=2, throw=False)
    with pytest.raises(probem.InputError, match=r"float64 values beyond the range of float32; expected values that"):
        single.predict(np.where(X == X[3, 0], 1e300, X))


@pytest.mark.parametrize("rows", [X[:, :1], X[:, 0], X[:, :, None]], ids=lambda rows: str(rows.shape))
def test_rows_of_another_shape_are_refused(rows) -> None:
    with pytest.raises(probem.InputError, match=r"^got data of row shapes [^;]*; expected \(2,\) float64 as fitted; "):
        soft().predict(rows)
    with pytest.raises(probem.InputError, match=r"\(2,\) float64, \(2,\) float64; expected \(2,\) float64 as fitted"):
        soft().predict(X, X)
