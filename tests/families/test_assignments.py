"""Families as projections: what each does to a row of log joints, against definitions in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import probem
from probem.data.blocks import Block
from probem.families.posteriors import lowest_argmax
from tests.oracles import plain

SHAPE = (6, 4)
tables = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(scale=5, size=SHAPE))
# Small whole numbers: ties in most rows.
tied_tables = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).integers(0, 2, SHAPE) * 1.0)


_lowest = jax.jit(lowest_argmax)

FAMILIES = [
    probem.Categorical(),
    probem.Delta(),
    probem.Tempered(0.5),
    probem.Tempered(3.0),
    probem.TopC(2),
    probem.Annealed(stop=2.0),
]
LIMITS = [probem.Tempered(1), probem.Tempered(1e9), probem.Tempered(1e-9), *map(probem.TopC, (1, 3, 4, 9))]


@jax.jit
def _project(table):
    """What every family says of one table: one compilation for all of them."""
    features = jnp.arange(12.0).reshape(6, 2)
    block = Block((features,), None, jnp.array([1.0, 2.0, 0.5, 0.0, 1.0, 1.0]), jnp.asarray(5, jnp.int32))
    found = []
    for family in [*FAMILIES, *LIMITS]:
        q = family.project(table)
        found.append((q.dense(), q.entropy(), q.expectation(table), *q.statistics(features, block), family.mode(table)))
    return found


def project(family, table):
    """Probabilities, entropy, expectation of the table, counts, sums, mode."""
    found = _project(jnp.asarray(table))[[*FAMILIES, *LIMITS].index(family)]
    return tuple(map(np.asarray, found))


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@given(table=tables)
def test_every_reduction_is_that_of_the_dense_probabilities(family, table) -> None:
    q, entropy, expectation, counts, sums, mode = project(family, table)
    np.testing.assert_allclose(q.sum(1), 1, rtol=1e-14)
    assert (q >= 0).all()
    np.testing.assert_allclose(entropy, scipy.special.entr(q).sum(1), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(expectation, (q * table).sum(1), rtol=1e-12, atol=1e-12)
    weighted = q * np.array([1.0, 2.0, 0.5, 0.0, 1.0, 0.0])[:, None]  # the last row is padding
    np.testing.assert_allclose(counts, weighted.sum(0), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(sums, weighted.T @ np.arange(12.0).reshape(6, 2), rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(mode, table.argmax(1))


def _objective(table, q, entropy_weight):
    return (q * table).sum(1) + entropy_weight * scipy.special.entr(q).sum(1)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@given(table=tables, seed=st.integers(0, 2**32 - 1))
def test_no_member_of_the_family_does_better(family, table, seed) -> None:
    """argmax of E_q[L] + entropy_weight H(q): random members of the family, and all point masses, are no higher."""
    best = _objective(table, project(family, table)[0], family.entropy_weight)
    random = np.random.default_rng(seed)
    others = [np.eye(4)[[k] * 6] for k in range(4)]
    if not isinstance(family, probem.Delta):
        kept = np.zeros(SHAPE)
        for n, subset in enumerate(random.permuted(np.tile(np.arange(4), (6, 1)), axis=1)):
            kept[n, subset[: getattr(family, "num_kept", 4)]] = 1
        drawn = random.dirichlet(np.ones(4), size=6) * kept
        others.append(drawn / drawn.sum(1, keepdims=True))
    for other in others:
        assert (_objective(table, other, family.entropy_weight) <= best + 1e-10).all()


@given(table=tables)
def test_corners_of_the_families_meet(table) -> None:
    soft = project(probem.Categorical(), table)[0]
    hard = project(probem.Delta(), table)[0]
    np.testing.assert_allclose(soft, scipy.special.softmax(table, axis=1), rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(project(probem.Tempered(1), table)[0], soft, rtol=1e-14)
    np.testing.assert_allclose(project(probem.TopC(4), table)[0], soft, rtol=1e-14)
    np.testing.assert_allclose(project(probem.TopC(9), table)[0], soft, rtol=1e-14)
    np.testing.assert_array_equal(project(probem.TopC(1), table)[0], hard)
    np.testing.assert_allclose(project(probem.Tempered(1e9), table)[0], hard, atol=1e-12)
    np.testing.assert_allclose(project(probem.Tempered(1e-9), table)[0], 0.25, rtol=1e-7)


@given(table=tables)
def test_top_c_lies_between_hard_and_soft_and_rises_with_c(table) -> None:
    """F of the truncated posterior is the log of the sum of the C largest joints."""
    values = []
    for kept in range(1, 5):
        q, entropy, expectation, *_ = project(probem.TopC(kept), table)
        values.append(expectation + entropy)
        largest = np.sort(table, axis=1)[:, -kept:]
        np.testing.assert_allclose(values[-1], scipy.special.logsumexp(largest, axis=1), rtol=1e-12)
        assert (np.count_nonzero(q, axis=1) <= kept).all()
    assert (np.diff(values, axis=0) >= -1e-12).all()


@given(table=tied_tables)
def test_ties_go_to_the_lowest_index(table) -> None:
    expected = table.argmax(1)  # NumPy's argmax takes the first
    np.testing.assert_array_equal(_lowest(table), expected)
    for family in (probem.Delta(), probem.TopC(1)):
        np.testing.assert_array_equal(project(family, table)[0].argmax(1), expected)
    for family in FAMILIES:
        np.testing.assert_array_equal(project(family, table)[5], expected)
    # TopC(2) keeps the first two of those that tie.
    by_value = np.argsort(-table, axis=1, kind="stable")[:, :2]
    kept = project(probem.TopC(2), table)[0] > 0
    np.testing.assert_array_equal(np.sort(by_value, axis=1), [np.flatnonzero(row) for row in kept])


@pytest.mark.parametrize("count", [1, 15, 16, 17, 32, 50])
def test_ties_go_to_the_lowest_index_of_any_number(count) -> None:
    """Components are gone through some at a time, with what is left over first."""
    random = np.random.default_rng(count)
    for table in (random.normal(size=(200, count)), random.integers(0, 3, (200, count)) * 1.0):
        table[:3] = [[-np.inf], [np.nan], [np.inf]]
        # What is no number is never the highest.
        expected = np.where(np.isnan(table), -np.inf, table).argmax(1)
        np.testing.assert_array_equal(_lowest(table), expected)


def test_a_tie_broken_the_other_way_would_be_seen() -> None:
    """A planted fault: the highest index that ties."""
    table = np.zeros(SHAPE)
    wrong = SHAPE[1] - 1 - table[:, ::-1].argmax(1)
    assert (wrong != np.asarray(_lowest(table))).all()


def test_impossible_values_get_no_probability() -> None:
    table = np.full(SHAPE, -np.inf)
    table[:, 2] = -700.0
    for family in FAMILIES:
        q, entropy, expectation, _, _, mode = project(family, table)
        np.testing.assert_array_equal(q, np.eye(4)[[2] * 6])
        np.testing.assert_array_equal(entropy, 0)
        np.testing.assert_array_equal(expectation, -700.0)
        np.testing.assert_array_equal(mode, 2)


def test_a_row_without_any_possible_value_shows_in_the_bound() -> None:
    table = np.full(SHAPE, -np.inf)
    for family in FAMILIES:
        _, entropy, expectation, *_ = project(family, table)
        assert not np.isfinite(entropy + expectation).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_minus_infinity_are_never_nan(dtype) -> None:
    """A row of -inf alone has the uniform q, and makes the bound -inf; one entry of -inf has a q of exactly zero."""
    table = np.array([[-np.inf] * 3, [-np.inf, -3.0, -1.0], [5.0, -np.inf, -np.inf]], dtype)
    q = probem.Categorical().project(jnp.asarray(table))
    assert q.dense().dtype == dtype
    expected = [np.full(3, 1 / 3), scipy.special.softmax(table[1]), [1, 0, 0]]
    np.testing.assert_allclose(q.dense(), expected, rtol=4 * np.finfo(dtype).eps)
    assert (np.asarray(q.dense())[1:][np.isinf(table[1:])] == 0).all()
    # assert_allclose takes no NaN for an infinity.
    bound = [-np.inf, *scipy.special.logsumexp(table[1:], axis=1)]
    np.testing.assert_allclose(q.expectation(jnp.asarray(table)) + q.entropy(), bound, rtol=8 * np.finfo(dtype).eps)
    np.testing.assert_allclose(q.entropy()[0], np.log(3), rtol=4 * np.finfo(dtype).eps)


def test_large_log_joints_do_not_overflow() -> None:
    table = np.array([[1e6, 1e6 - 1.0, -1e6, 0.0]] * 6)
    q = project(probem.Categorical(), table)[0]
    np.testing.assert_allclose(q[0, :2], scipy.special.softmax([1.0, 0.0]), rtol=1e-9)


def test_the_posterior_is_the_maximum_found_by_scipy() -> None:
    """One row, the simplex by softmax of free numbers: the maximum of F is the log of the sum of joints."""
    table = np.random.default_rng(0).normal(size=4)

    def negative(free):
        q = scipy.special.softmax(free)
        return -(q @ table + scipy.special.entr(q).sum())

    found = scipy.optimize.minimize(negative, np.zeros(4), tol=1e-12)
    np.testing.assert_allclose(-found.fun, scipy.special.logsumexp(table), rtol=1e-9)
    q = project(probem.Categorical(), np.tile(table, (6, 1)))[0][0]
    np.testing.assert_allclose(scipy.special.softmax(found.x), q, atol=1e-5)


def test_the_bound_of_every_labelling_is_below_that_of_the_modes() -> None:
    """Hard EM's E-step by enumeration of all 4^3 labellings of three rows."""
    table = np.random.default_rng(1).normal(size=(3, 4))
    bounds = {labels: plain.bound(table, np.eye(4)[list(labels)]) for labels in itertools.product(range(4), repeat=3)}
    assert max(bounds, key=bounds.get) == tuple(np.asarray(_lowest(table)))


@pytest.mark.parametrize("beta", [0, -1.0, float("inf"), float("nan")])
def test_tempered_needs_a_positive_number(beta) -> None:
    with pytest.raises(
        probem.InputError, match=r"got Tempered\(beta=.*\); expected a positive, finite beta; use Delta"
    ):
        probem.Tempered(beta)


@pytest.mark.parametrize("kept", [0, -1])
def test_top_c_needs_a_whole_number(kept) -> None:
    with pytest.raises(probem.InputError, match=r"got TopC\(.*\); expected a whole number of at least 1"):
        probem.TopC(kept)
