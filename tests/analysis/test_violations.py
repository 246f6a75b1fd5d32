"""What the random trials of a plan cannot see shows where the posterior lies: a clipped value, a shared one."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import probem
from probem.analysis import violations
from probem.analysis.routes import make_plan
from probem.analysis.violations import are_violated, conjugacy_violation
from probem.families.choice import choose_families
from probem.program.reading import read
from probem.results import failures
from probem.solver.result import RESULTS
from tests.programs.contradictions import COUNTS, LINE, clipped, twice, vague


@pytest.mark.slow
def test_full_posteriors_of_a_clipped_location_are_refused_with_the_fit_in_hand() -> None:
    with pytest.raises(probem.FitError, match=r"does not depend on the parameters .* \(site 'x'\)") as caught:
        probem.fit(clipped, LINE, families=probem.VARIATIONAL_BAYES)
    assert np.isfinite(caught.value.fit.elbo)
    returned = probem.fit(clipped, LINE, families=probem.VARIATIONAL_BAYES, throw=False)
    assert returned.result is caught.value.fit.result is probem.Result.NOT_CONJUGATE
    steps = list(probem.iterate(clipped, LINE, families=probem.VARIATIONAL_BAYES, throw=False))
    assert [step.result for step in steps] == [None] * (len(steps) - 1) + [probem.Result.NOT_CONJUGATE]
    # Who interrupts a fit gets it as it is.
    interrupted = dataclasses.replace(returned, result=probem.Result.INTERRUPTED)
    assert failures.judged(interrupted) is interrupted


@pytest.mark.slow
def test_a_covariance_that_is_none_to_rounding_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise np.linalg.LinAlgError

    looks = []
    monkeypatch.setattr(violations, "_drawn", fails)
    monkeypatch.setattr(violations, "find_violation", lambda *arguments, drawn: looks.append(drawn))
    known = read(vague, (COUNTS[:, 0],))
    mean_field = make_plan(known, choose_families(known, probem.VARIATIONAL_BAYES)).mean_field
    assert conjugacy_violation(mean_field, mean_field.start(jax.tree.map(jnp.asarray, known.random_params(0)))) is None
    assert looks == [False]


@pytest.mark.slow
def test_many_posteriors_are_looked_at_as_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """At their means, at draws, and where a covariance is none; of what is not finite nothing is said."""
    known = read(clipped, (LINE,))
    mean_field = make_plan(known, choose_families(known, probem.VARIATIONAL_BAYES)).mean_field
    start = mean_field.start(jax.tree.map(jnp.asarray, known.random_params(0)))

    def at(loc: list[float], deviation: float) -> dict:
        covariances = jnp.full_like(start["loc"]["covariance"], deviation**2)
        return {**start, "loc": {"loc": jnp.asarray(loc)[:, None], "covariance": covariances}}

    # The clip is at 20: within it, beyond it, and within it at the mean alone.
    every = [at([1.0, -1.0], 0.1), at([1.0, 45.0], 0.1), at([19.0, -19.0], 1e3), at([1.0, np.nan], 0.1)]
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), *every)
    for _ in range(2):
        alone = [conjugacy_violation(mean_field, each) is not None for each in every[:3]]
        assert are_violated(mean_field, many).tolist() == [*alone, False] == [False, True, True, False]
        monkeypatch.setattr(np.linalg, "cholesky", _once_broken(np.linalg.cholesky))
    # Near the clip the draws decide, and each q has those that it has alone.
    monkeypatch.undo()
    near = [at([loc, 0.0], 30.0) for loc in np.linspace(-19.0, 19.0, 20)]
    alone = [conjugacy_violation(mean_field, each) is not None for each in near]
    assert 0 < sum(alone) < len(alone)
    assert are_violated(mean_field, jax.tree.map(lambda *leaves: jnp.stack(leaves), *near)).tolist() == alone


def _once_broken(function: Any) -> Any:
    calls = iter([True])

    def call(*arguments: Any) -> Any:
        if next(calls, False):
            raise np.linalg.LinAlgError
        return function(*arguments)

    return call


@pytest.mark.slow
def test_a_point_at_a_clipped_location_is_maximised_numerically() -> None:
    """One group lies inside the clip, and its mode is that of the normal; the other beyond: its mode is the corner."""
    fit = probem.fit(clipped, LINE)
    near, far = np.sort(fit.params["loc"])
    np.testing.assert_allclose(near, LINE[:20].sum() / (20 + 1e-4), atol=1e-6)
    np.testing.assert_allclose(far, 20.0, rtol=1e-8)
    np.testing.assert_allclose(fit.params["weights"], 0.5, rtol=1e-8)
    table = scipy.stats.norm.logpdf(LINE[:, None], np.clip(fit.params["loc"], -20, 20)) + np.log(0.5)
    # Dirichlet(2, 2) has the density 6 w (1 - w), here 3/2.
    log_prior = scipy.stats.norm.logpdf(fit.params["loc"], 0, 100).sum() + np.log(1.5)
    np.testing.assert_allclose(fit.elbo, np.logaddexp.reduce(table, axis=1).sum() + log_prior, rtol=1e-10)


@pytest.mark.slow
def test_iterate_begins_again_as_fit_does() -> None:
    fit, steps = probem.fit(clipped, LINE, throw=False), list(probem.iterate(clipped, LINE, throw=False))
    numbers = [step.num_steps for step in steps]
    again = numbers.index(1, 1)
    assert numbers == [*range(1, again + 1), *range(1, fit.num_steps + 1)]
    assert [step.result for step in steps] == [None] * (len(steps) - 1) + [fit.result]
    np.testing.assert_allclose([step.elbo for step in steps[again:]], fit.history.elbo[::2], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("families", [probem.EM, pytest.param(probem.VARIATIONAL_BAYES, marks=pytest.mark.slow)])
def test_solve_says_so_inside_a_trace(families: probem.families.Corner) -> None:
    """Of data sets side by side, of the one whose groups lie where the location is clipped."""
    data = jnp.stack([LINE, jnp.where(LINE > 20, LINE - 40, LINE)])
    found = jax.jit(jax.vmap(lambda x: probem.solve(clipped, x, families=families, key=1)))(data)
    assert [RESULTS[int(code)] for code in found.result] == [probem.Result.NOT_CONJUGATE, probem.Result.CONVERGED]
    assert np.isfinite(found.elbo).all()


@pytest.mark.slow
def test_counts_that_share_a_rate_have_no_predictive_density_of_their_own() -> None:
    fit = probem.fit(twice, COUNTS[:, 0], COUNTS[:, 1], families=probem.VARIATIONAL_BAYES)
    with pytest.raises(probem.InputError, match="'y', with an uncertain value that another observed site shares"):
        fit.log_density(COUNTS[:, 0], COUNTS[:, 1])
    assert np.isfinite(fit.log_density(COUNTS[:, 0], COUNTS[:, 1], plug_in=True)).all()


@pytest.mark.slow
def test_a_vague_hierarchy_starts_at_its_means() -> None:
    fit = probem.fit(vague, COUNTS[:, 0], families=probem.VARIATIONAL_BAYES, max_steps=50, throw=False)
    assert len(fit.history) > 2
    assert (np.diff(fit.history.elbo) > -1e-10).all()


def test_components_that_one_parameter_is_too_short_for_are_refused() -> None:
    def short(x):
        loc = numpyro.param("loc", jnp.arange(2.0))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

    with pytest.raises(probem.InputError, match="one distribution for the last two of the 3 values of 't'"):
        probem.explain(short, LINE)


def scaled(x, scale, asks=False):
    loc = numpyro.param("loc", jnp.arange(2.0))
    scale = jnp.where(scale > 0, scale, 1.0) if not asks else (scale if scale > 0 else 1.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(loc[t], scale), obs=x)


def test_a_traced_number_that_has_to_be_known_is_refused() -> None:
    for run in (
        lambda scale: probem.fit(functools.partial(scaled, scale=scale), LINE).elbo,
        lambda scale: probem.solve(functools.partial(scaled, scale=scale), LINE).elbo,
    ):
        with pytest.raises(probem.InputError, match="a traced value bound to the program"):
            jax.jit(run)(jnp.asarray(1.0))
