"""What ``verbose`` prints, and which of several starts is kept."""

import re
from functools import partial

import jax
import numpy as np
import pytest

import probem
from probem import Result
from probem.models import gmm, spherical
from probem.sklearn import BayesianGaussianMixture, GaussianMixture, KMeans, Mixture, tasks
from tests.sklearn.data import clusters

ROWS = clusters(1, 2, 2, 200, 4.0)


@pytest.mark.slow
def test_kmeans_prints_its_iterations(capsys):
    """Every inertia is that of the centres before; the first of several starts is that of one."""
    fits = {}
    for count in (1, 3):
        ours = KMeans(4, init="random", n_init=count, tol=0, random_state=3, verbose=1).fit(ROWS)
        fits[count] = ours.inertia_
        printed = capsys.readouterr().out
        inertias = [float(number) for number in re.findall(r"Iteration \d+, inertia (\S+)\.", printed)]
        assert len(inertias) == ours.n_iter_
        assert inertias == sorted(inertias, reverse=True)
        np.testing.assert_allclose(inertias[-1], ours.inertia_, rtol=1e-10)
        assert printed.count("Initialization complete") == count
        assert f"Converged at iteration {ours.n_iter_ - 1}: strict convergence." in printed
        ended = [float(number) for number in re.findall(r"Ended with inertia (\S+);", printed)]
        assert len(ended) == count - 1
        assert all(other >= ours.inertia_ * (1 - 1e-10) for other in ended)
    assert min(fits[3], *ended) <= fits[1] * (1 + 1e-10)
    KMeans(4, init="random", n_init=1, random_state=0, tol=0.5, verbose=1).fit(ROWS)
    assert re.search("center shift is within tolerance", capsys.readouterr().out)


@pytest.mark.slow
def test_mixtures_print_their_starts(capsys):
    options = {"init_params": "random", "n_init": 2, "random_state": 0, "max_iter": 12, "tol": 0.0}
    with pytest.warns(UserWarning, match="step limit"):
        ours = GaussianMixture(2, verbose=2, verbose_interval=5, **options).fit(ROWS)
    printed = capsys.readouterr().out
    assert re.findall(r"Initialization (\d)", printed) == ["0", "1"]
    assert re.findall(r"  Iteration (\d+)\t bound (\S+)", printed) == [
        (str(number), f"{ours.lower_bounds_[number - 1]:.5f}") for number in (5, 10)
    ]
    bound = f"{ours.elbo_ / len(ROWS):.5f}"
    assert f"Initialization did not converge, with the bound {bound}." in printed
    assert "another was kept" in printed
    with pytest.warns(UserWarning, match="step limit"):
        ours.set_params(verbose=1).fit(ROWS)
    told = re.findall(r"  Iteration (\d+)\t bound (\S+)\n", capsys.readouterr().out)
    assert told == [(str(number), f"{ours.lower_bounds_[number - 1]:.5f}") for number in (5, 10)]
    with pytest.warns(UserWarning, match="step limit"):
        ours.set_params(verbose=0).fit(ROWS)
    assert not capsys.readouterr().out


@pytest.mark.slow
def test_a_bayesian_mixture_prints_its_bound(capsys):
    ours = BayesianGaussianMixture(n_components=2, random_state=0, verbose=1).fit(ROWS)
    bound = float(re.search(r"Initialization converged, with the bound (\S+)\.\n", capsys.readouterr().out).group(1))
    np.testing.assert_allclose(bound, ours.elbo_, atol=1e-5)


@pytest.mark.slow
def test_a_start_that_fails_does_not_sink_the_others():
    """A component that starts with one row has no variance; the best of the other starts is kept."""
    rows = ROWS
    fine, alone = (rows[:, 0] > np.median(rows[:, 0])).astype(int), (np.arange(len(rows)) == 0).astype(int)
    options = {"covariance_type": "spherical", "reg_covar": 0.0, "n_init": 6, "random_state": 0}

    def mixed(key, _):
        return probem.Labels(np.where(jax.random.bernoulli(key), fine, alone))

    def collapsing(key, _):
        del key
        return probem.Labels(alone)

    kept = GaussianMixture(2, init_params=mixed, **options).fit(rows)
    good = GaussianMixture(2, init_params=lambda key, _: probem.Labels(fine), **options | {"n_init": 1}).fit(rows)
    np.testing.assert_allclose(kept.lower_bound_, good.lower_bound_, rtol=1e-10)
    with pytest.raises(ValueError, match="the spread of a component collapsed"):
        GaussianMixture(2, init_params=collapsing, **options).fit(rows)


@pytest.mark.slow
def test_few_rows_are_the_first_of_more():
    """A number of rows is no reason to compile: as many as the next power of two are drawn."""
    fitted = GaussianMixture(1, random_state=0).fit(ROWS)
    few, more = fitted.sample(5)[0], fitted.sample(8)[0]
    np.testing.assert_array_equal(few, more[:5])
    assert fitted.sample(1)[0].shape == (1, 2)


@pytest.mark.slow
def test_an_acceleration_of_a_program_is_that_of_fit():
    program = partial(gmm, num_components=2, covariance=spherical)
    options = {"init": probem.Labels(np.arange(len(ROWS)) % 2), "acceleration": probem.SQUAREM()}
    ours, fit = Mixture(program, **options).fit(ROWS), probem.fit(program, ROWS, **options)
    assert (ours.n_iter_, ours.elbo_) == (fit.num_steps, fit.elbo)
    assert fit.history.accelerated.any()


def test_every_result_that_is_no_success_has_a_remedy():
    """A new result of the engine is either a warning or an error of the estimators."""
    fine = {Result.CONVERGED, Result.INTERRUPTED}
    assert set(tasks._WARNED) | set(tasks._RAISED) == set(Result) - fine
    assert not set(tasks._WARNED) & set(tasks._RAISED)
