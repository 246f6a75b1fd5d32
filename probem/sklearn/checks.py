"""Checks of what estimators are given: options, and rows as scikit-learn takes them."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, validate_data

from probem.data.checks import check_columns
from probem.data.observations import Observations
from probem.data.row_axes import RowAxes
from probem.errors import InputError, nearest

from .rows import Rows, as_csr, is_csr

# The power of the largest number below which squares of distances, summed over any number of rows, are finite.
_LARGEST_POWER = 0.45

# The precisions of rows.
_PRECISIONS = (np.dtype(np.float64), np.dtype(np.float32))


def is_symmetric(matrices: Float[np.ndarray, "... D D"]) -> bool:
    """Whether matrices are symmetric to some eight digits of their largest entry, in any unit."""
    return np.allclose(matrices, np.swapaxes(matrices, -1, -2), atol=1e-8 * np.abs(matrices).max(initial=0.0))


def seed(random_state: Any) -> int:
    """A seed of the engine from a ``random_state``."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def check_positive(name: str, value: Any, least: int | float = 0, whole: bool = False, strict: bool = False) -> None:
    """One sentence about a number that is out of its range."""
    kind = int | np.integer if whole else int | float | np.integer | np.floating
    if (
        isinstance(value, bool)
        or not isinstance(value, kind)
        or not least <= value < float("inf")
        or (strict and value == 0)
    ):
        number = "whole number" if whole else "number"
        wanted = f"a {number} above 0" if strict else f"a {number} of at least {least:g}"
        raise InputError(f"{name}={value!r}", wanted, "change it")


def check_flag(name: str, value: Any) -> None:
    """One sentence about what is neither True nor False."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}={value!r}", "True or False", "change it")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """One sentence about a word that is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name}={value!r}", "one of " + ", ".join(map(repr, choices)), nearest(str(value), choices))


@functools.cache
def largest_number(dtype: Any) -> float:
    """The size up to which rows are taken."""
    return float(np.finfo(dtype).max ** _LARGEST_POWER)


def valid(estimator: Any, X: Any, **options: Any) -> Rows:
    """Rows as scikit-learn checks them; the estimator remembers the number and the names of the columns.

    Sparse rows have no gaps; they are taken by estimators whose tags say so, and come back as CSR.
    """
    takes_sparse = "csr" if estimator.__sklearn_tags__().input_tags.sparse else False
    gaps = True if is_csr(X) else "allow-nan"
    rows = validate_data(estimator, X, ensure_all_finite=gaps, accept_sparse=takes_sparse, **options)
    rows = as_csr(rows) if is_csr(rows) else np.asarray(rows)
    values = rows.data if is_csr(rows) else rows
    largest = max(np.fmax.reduce(values, axis=None, initial=0), -np.fmin.reduce(values, axis=None, initial=0))
    most = largest_number(rows.dtype)
    if largest > most:
        raise InputError(
            f"{rows.dtype} rows with a value of size {largest:.3g}",
            f"less than {most:.1g}, whose squares are finite",
            "scale the rows (StandardScaler), or leave out what stands for no value",
        )
    if options.get("reset", True) and not is_csr(rows):
        check_columns(Observations((rows,), missing=(np.isnan(rows),)), RowAxes(len(rows)))
    return rows


def are_complete(rows: Float[np.ndarray, "N D"]) -> bool:
    """Whether rows of finite numbers and gaps have none."""
    return not np.isnan(np.add.reduce(rows, axis=None))


def are_within(rows: Float[np.ndarray, "N D"], largest: float) -> bool:
    """Whether no number is missing, or of a larger size."""
    # False for NaN.
    return bool(-largest <= rows.min() and rows.max() <= largest)


def is_plain(estimator: Any, X: Any) -> bool:
    """Whether ``X`` is an array of floats that scikit-learn takes as it is, with as many columns as were fitted:
    ``valid`` can find no fault in it but for its numbers. Its checks take longer than most answers about few rows.
    """
    return (
        type(X) is np.ndarray
        and X.dtype in _PRECISIONS
        and X.ndim == 2
        and X.size > 0
        and X.shape[1] == getattr(estimator, "n_features_in_", X.shape[1])
        and not hasattr(estimator, "feature_names_in_")
    )


def weights_of(sample_weight: Any, rows: Rows) -> Float[np.ndarray, " N"] | None:
    """``sample_weight`` checked; None where every row counts once."""
    if sample_weight is None:
        return None
    return np.asarray(_check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True))


def partial_labels_of(estimator: Any, y: Any) -> Shaped[np.ndarray, "..."] | None:
    """The known components of some rows, if ``y`` is to be read so."""
    if not estimator.partial_labels:
        return None
    if y is None:
        raise InputError("no y with partial_labels=True", "the components of the rows, -1 where unknown", "pass y")
    given = np.asarray(y)
    if given.dtype.kind == "O" or (given.dtype.kind == "f" and np.isnan(given).any()):
        raise InputError(
            f"y of type {given.dtype} with values that are no number",
            "whole numbers, -1 where unknown",
            "write -1 there",
        )
    return given


def clamped(predicted: Int[np.ndarray, " N"], labels: Shaped[np.ndarray, " N"] | None) -> Int[np.ndarray, " N"]:
    """The components predicted, but for those that are known."""
    return predicted if labels is None else np.where(np.asarray(labels) < 0, predicted, labels).astype(predicted.dtype)
