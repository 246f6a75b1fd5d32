"""How far F is off: beside more nodes, and where there is nothing to be off."""

import functools

import numpy as np
import pytest

import probem
from tests.programs import gaussian_posteriors as programs
from tests.programs.fits import soft
from tests.programs.gaussian_posteriors import ROWS, SCALES, TWO

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

VB = probem.VARIATIONAL_BAYES


def scaled(nodes: int) -> probem.Fit:
    program = functools.partial(programs.scaled, prior=SCALES["half Cauchy"])
    return probem.fit(program, ROWS, families=VB | {"scale": probem.Gaussian(nodes=nodes)})


def test_few_nodes_are_found_out() -> None:
    few, many = scaled(3), scaled(32)
    error = few.quadrature_error()
    assert error.standard_error == error.optimism == 0.0
    assert error.grid > 1e-4
    # F differs by what the nodes of the first miss, and by q, which is a little worse there.
    np.testing.assert_allclose(abs(few.elbo - many.elbo), error.grid, rtol=0.2)
    assert many.quadrature_error().grid < 1e-9


def test_quasi_random_nodes_have_a_standard_error() -> None:
    sites = ("mean", "spread", "loc")
    fits = {
        draws: probem.fit(programs.levelled, TWO, families=VB | dict.fromkeys(sites, probem.Gaussian(draws=draws)))
        for draws in (64, 4096)
    }
    few, many = (fits[draws].quadrature_error(32) for draws in (64, 4096))
    assert 0 < 5 * many.standard_error < few.standard_error
    apart = fits[64].elbo - few.optimism - fits[4096].elbo
    # The mean over 32 randomisations, and the q that was fitted to 64 nodes is a little worse.
    assert -4 * few.standard_error < apart < 4 * few.standard_error / np.sqrt(32)


def test_what_has_no_nodes_is_refused() -> None:
    with pytest.raises(probem.InputError, match=r"without a Gaussian q; expected a site with the family Gaussian\(\)"):
        soft().quadrature_error()
    with pytest.raises(probem.InputError, match="num_randomisations=1; expected a whole number of at least 2"):
        soft().quadrature_error(1)
