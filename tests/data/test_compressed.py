"""Sparse rows: what is taken from SciPy, and sums over their non-zeros against SciPy's products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from probem.data.checks import check_data
from probem.data.compressed import CompressedBlock, CompressedRows, compressed
from probem.data.observations import distinct_compressed_rows
from probem.errors import InputError

RANDOM = np.random.default_rng(0)


def rows(num_rows: int, num_columns: int, density: float) -> np.ndarray:
    return np.where(RANDOM.random((num_rows, num_columns)) < density, RANDOM.normal(size=(num_rows, num_columns)), 0.0)


# Rows and columns of more non-zeros than a strip has lines, empty ones, more rows than a strip has, and no non-zeros.
SHAPES = {
    "long": np.concatenate([rows(40, 700, 0.02), rows(2, 700, 0.9), np.zeros((3, 700))]),
    "tall": rows(5000, 17, 0.4),
    "one": rows(1, 9, 1.0),
    "nothing": np.zeros((6, 4)),
}


# Many terms of a sum, in a row and in a column, are what float32 may lose digits of.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, np.float64) for name in SHAPES), ("long", np.float32), ("tall", np.float32)]
)
def test_sums_over_non_zeros_are_products(name, dtype):
    x = SHAPES[name].astype(dtype)
    size = len(x) + 5
    block = CompressedBlock.of(compressed(sp.csr_array(x), "data"), size, np.dtype(dtype), is_summed=True)
    weight = RANDOM.normal(size=(3, x.shape[1])).astype(dtype)
    q = RANDOM.random((size, 3)).astype(dtype)
    padded = np.pad(x, ((0, 5), (0, 0))).astype(float)
    # Of n sums, each of random signs, in the dtype: the rounding of a product of absolute values.
    eps = 8 * np.finfo(dtype).eps
    for statistic in (lambda values: values, lambda values: values**2):
        here = statistic(padded)
        allowed = eps * (abs(here) @ abs(weight.T) + 1) * 8
        assert (abs(block.times(jnp.asarray(weight), statistic) - here @ weight.T.astype(float)) <= allowed).all()
        allowed = eps * (q.T @ abs(here) + 1) * 8
        assert (abs(block.weighted_sums(jnp.asarray(q), statistic) - q.T.astype(float) @ here) <= allowed).all()
    assert block.shape == padded.shape
    np.testing.assert_array_equal(block.taken(jnp.array([0, size - 1])), padded[[0, -1]].astype(dtype))


def test_restarts_side_by_side_share_the_non_zeros():
    x = SHAPES["long"]
    block = CompressedBlock.of(compressed(sp.csr_array(x), "data"), len(x), np.dtype(float), is_summed=True)
    weights = RANDOM.normal(size=(4, 3, x.shape[1]))
    together = jax.jit(jax.vmap(lambda weight: block.times(weight)))(weights)
    np.testing.assert_allclose(together, np.einsum("nd,rkd->rnk", x, weights), rtol=1e-12, atol=1e-12)
    larger = jax.vmap(
        lambda weight: block.compared(weight, lambda v, y: (v[:, None] > y).astype(y.dtype) * (v != 0)[:, None])
    )
    counted = ((x[None, :, None] > weights[:, None]) & (x != 0)[None, :, None]).sum(3)
    np.testing.assert_array_equal(larger(weights), counted)


def unsorted(x: np.ndarray) -> sp.csr_array:
    """Indices in reverse, every value in two halves, a zero that is stored in every row."""
    data, indices, indptr = [], [], [0]
    for row in x:
        (columns,) = row.nonzero()
        (zero,) = np.flatnonzero(row == 0)[:1]
        indices += [*columns[::-1], *columns, zero]
        data += [*row[columns[::-1]] / 2, *row[columns] / 2, 0.0]
        indptr.append(len(data))
    return sp.csr_array((data, indices, indptr), x.shape)


FORMATS = {
    "csr_matrix": sp.csr_matrix,
    "csc_array": sp.csc_array,
    "coo_array": sp.coo_array,
    "lil_matrix": sp.lil_matrix,
    "int64 indices": lambda x: _with_indices(sp.csr_array(x), np.int64),
    "duplicates": unsorted,
}


def _with_indices(matrix, dtype):
    matrix.indices, matrix.indptr = matrix.indices.astype(dtype), matrix.indptr.astype(dtype)
    return matrix


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_the_same_rows_and_stays_as_it_is(name):
    x = rows(30, 20, 0.3)
    given = FORMATS[name](x)
    before = given.copy()
    (taken,) = check_data((given,), sparse=True)
    assert isinstance(taken, CompressedRows)
    np.testing.assert_array_equal(taken.dense(), x)
    assert taken.matrix.has_canonical_format
    assert taken.matrix.data.all()
    if given.format == "csr":
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(given, part), getattr(before, part))
    np.testing.assert_array_equal(taken[np.array([4, 4, 1])].dense(), x[[4, 4, 1]])
    np.testing.assert_array_equal(taken[3:7].dense(), x[3:7])


def test_sparse_rows_that_cannot_be_used_are_one_sentence():
    x = rows(6, 4, 0.9)
    holed = sp.csr_array(np.where(x == x.max(), np.nan, x))
    column = int(np.argmax(x.max(0)))
    for data, message in (
        ((holed,), rf"got 1 NaN or infinite values in sparse rows \(column {column}\); expected finite numbers"),
        ((sp.csr_array(x * 1j),), "got sparse data of type complex128; expected real numbers"),
        ((sp.coo_array(x[0]),), r"got sparse data of shape \(4,\); expected rows and columns"),
        ((sp.csr_array(x), x), "got 2 data arguments, one of them sparse; expected sparse rows that are all"),
        ((sp.csr_array((0, 4)),), "zero rows"),
    ):
        with pytest.raises(InputError, match=message):
            check_data(data, missing=True, sparse=True)
    with pytest.raises(InputError, match=r"got sparse rows; expected an array.*toarray"):
        check_data((sp.csr_array(x),))
    with pytest.raises(TypeError, match="taken for an array"):
        np.asarray(CompressedRows(sp.csr_array(x)))


def test_distinct_sparse_rows_are_counted():
    x = np.repeat(np.array([[0.0, 0], [1, 0], [0, 1], [1, 0]]), 5, axis=0)
    assert distinct_compressed_rows(compressed(unsorted(x), "data"), 10) == 3
    assert distinct_compressed_rows(compressed(sp.csr_array(x), "data"), 2) == 2
