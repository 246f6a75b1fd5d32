"""F, its terms and the gap against sums over every entry."""

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from probem.e_step.bound import bound_from_table
from tests.oracles import plain
from tests.oracles.plain import ROUNDING

_bound = jax.jit(bound_from_table)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_terms_of_any_q_are_sums_over_every_entry(seed: int, sharp: bool, impossible: bool) -> None:
    random = np.random.default_rng(seed)
    table = random.normal(scale=20, size=(7, 3))
    q = random.dirichlet(np.ones(3) * 0.5, size=7)
    if sharp:
        q = np.eye(3)[random.integers(0, 3, 7)]
    if impossible:
        q[:, 0], q[:, 2] = 0.0, 1.0 - q[:, 1]
        table[:, 0] = -np.inf
    found = _bound(table, q, 1.5)
    np.testing.assert_allclose(found.elbo, plain.bound(table, q) + 1.5, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(found.elbo, found.expected_log_joint + found.entropy + found.log_prior, rtol=ROUNDING)
    # Neal & Hinton: log p(X) = F + sum KL, here without the prior; the KL by its own definition.
    p = plain.posterior(table)
    kl = np.where(q > 0, q * (np.log(np.where(q > 0, q, 1)) - np.log(np.where(q > 0, p, 1))), 0).sum()
    np.testing.assert_allclose(found.gap, kl, rtol=1e-9, atol=1e-9)
    assert found.gap >= -1e-9


def test_a_sign_turned_in_the_entropy_is_seen() -> None:
    """A planted fault in the formula of F."""
    random = np.random.default_rng(0)
    table, q = random.normal(size=(5, 3)), random.dirichlet(np.ones(3), size=5)
    found = _bound(table, q)
    wrong = found.expected_log_joint - found.entropy
    assert abs(wrong - plain.bound(table, q)) > 0.1
