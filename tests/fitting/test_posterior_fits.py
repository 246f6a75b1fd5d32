"""What every fit promises, kept by one with full posteriors: weights, blocks, restarts, digits."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probem
from probem.plan.chunking import Chunking
from probem.plan.plan import Plan
from tests.programs.bayesian import EXAMPLES, NORMAL, PRIOR, dirichlet, mixture, write

VB, ME = probem.VARIATIONAL_BAYES, probem.MAXIMIZATION_EXPECTATION
HALF = np.tile([[0.7, 0.3], [0.4, 0.6]], (20, 1))
slow = pytest.mark.slow


@slow
def test_a_warm_start_goes_on_where_it_stood() -> None:
    whole = probem.fit(mixture("full"), NORMAL, families=VB, key=1, max_steps=9, tolerance=0.0, throw=False)
    first = probem.fit(mixture("full"), NORMAL, families=VB, key=1, max_steps=5, tolerance=0.0, throw=False)
    init = probem.Parameters(first.variational)
    rest = probem.fit(mixture("full"), NORMAL, families=VB, init=init, max_steps=5, tolerance=0.0, throw=False)
    np.testing.assert_allclose(rest.history.elbo, whole.history.elbo[8:], rtol=1e-12)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9), rest.variational, whole.variational)


@slow
def test_a_weighted_row_is_a_repeated_row() -> None:
    weights = np.random.default_rng(0).integers(1, 4, size=40)
    options = {"families": VB, "max_steps": 20, "tolerance": 0.0, "throw": False}
    weighted = probem.fit(mixture("full"), NORMAL, row_weights=weights, init=probem.Responsibilities(HALF), **options)
    repeated = probem.fit(
        mixture("full"),
        np.repeat(NORMAL, weights, 0),
        init=probem.Responsibilities(np.repeat(HALF, weights, 0)),
        **options,
    )
    np.testing.assert_allclose(weighted.history.elbo, repeated.history.elbo, rtol=1e-10)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    jax.tree.map(same, weighted.variational, repeated.variational)


@slow
def test_several_blocks_are_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"families": VB, "init": probem.Responsibilities(HALF), "max_steps": 10, "tolerance": 0.0, "throw": False}
    one = probem.fit(mixture("diagonal"), NORMAL, **options)
    monkeypatch.setattr(Plan, "cut", lambda self, num_rows: Chunking(16, 8))
    three = probem.fit(mixture("diagonal"), NORMAL, **options)
    np.testing.assert_allclose(three.history.elbo, one.history.elbo, rtol=1e-12)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10), three.variational, one.variational)
    np.testing.assert_allclose(three.log_density(NORMAL), one.log_density(NORMAL), rtol=1e-10)


@slow
def test_of_several_restarts_the_best_is_returned() -> None:
    fit = probem.fit(mixture("diagonal"), NORMAL, families=VB, key=3, restarts=3)
    assert len(fit.restart_elbos) == 3
    assert fit.elbo == fit.restart_elbos.max()
    assert sum(fit.elbo_terms.values()) == pytest.approx(fit.elbo, rel=1e-12)
    alone = [
        probem.fit(mixture("diagonal"), NORMAL, families=VB, key=key).elbo
        for key in jax.random.split(jax.random.key(3), 3)
    ]
    np.testing.assert_allclose(fit.restart_elbos, alone, rtol=1e-9)


@slow
@pytest.mark.parametrize("name", ["full", "diagonal"])
def test_rows_far_from_the_origin_keep_their_digits(name: str) -> None:
    """A million standard deviations away, and the prior with them: ten digits are left, less conditioning."""
    offset = np.array([1e6, -2e6])
    example = EXAMPLES[name]
    structure: Any = example.component
    far = functools.partial(structure.func, prior=PRIOR._replace(mean=PRIOR.mean + offset))
    program = write(far, dirichlet, 2)
    options = {"families": VB, "init": probem.Responsibilities(HALF), "max_steps": 10, "tolerance": 0.0, "throw": False}
    moved = probem.fit(program, NORMAL + offset, **options)
    near = probem.fit(mixture(name), NORMAL, **options)
    np.testing.assert_allclose(moved.history.elbo, near.history.elbo, rtol=1e-7)
    loc = np.asarray(moved.variational["loc"]["loc"]).reshape(2, 2) - offset
    np.testing.assert_allclose(loc, np.asarray(near.variational["loc"]["loc"]).reshape(2, 2), atol=1e-7)
    for site in ("precision", "weights"):
        same = functools.partial(np.testing.assert_allclose, rtol=1e-7)
        jax.tree.map(same, moved.variational[site], near.variational[site])


@slow
@pytest.mark.parametrize("families", [probem.HARD_EM, VB], ids=lambda corner: corner.name)
def test_float32_works_in_every_corner(families: Any) -> None:
    """These two have every family of the assignments and of the parameters; EM is in test_unseen_programs."""
    init = probem.Labels((NORMAL[:, 0] > 0).astype(int))
    low = probem.fit(mixture("diagonal"), NORMAL.astype(np.float32), families=families, init=init, tolerance=1e-6)
    high = probem.fit(mixture("diagonal"), NORMAL, families=families, init=init, tolerance=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(low.variational)} == {jnp.dtype(jnp.float32)}
    assert low.elbo == pytest.approx(high.elbo, rel=1e-4)


@slow
@pytest.mark.parametrize("families", [VB, ME], ids=lambda corner: corner.name)
def test_empty_components_are_no_error(families: Any) -> None:
    """One of three components has no row at the start; two rows are fewer than three components."""
    labels = probem.Labels((NORMAL[:, 0] > 0).astype(int))
    fit = probem.fit(mixture("full", 3), NORMAL, families=families, init=labels)
    assert fit.result is probem.Result.CONVERGED
    few = probem.fit(mixture("full", 3), NORMAL[:2], families=families)
    assert few.result is probem.Result.CONVERGED
    assert np.isfinite([fit.elbo, few.elbo]).all()
    if families is ME:
        empty = np.asarray(few.counts) == 0
        assert empty.any()
        # What no row speaks of has its prior.
        q = few.variational
        np.testing.assert_allclose(np.asarray(q["loc"]["strength"])[empty], 1.0, rtol=1e-12)
        np.testing.assert_allclose(np.asarray(q["precision"]["concentration"])[empty], PRIOR.dof, rtol=1e-12)
        wanted = np.broadcast_to(PRIOR.scatter, (empty.sum(), 2, 2))
        np.testing.assert_allclose(np.asarray(q["precision"]["rate_matrix"])[empty], wanted, rtol=1e-12)
