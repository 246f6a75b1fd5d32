"""What the attributes of a Gaussian mixture say: those of a fit, changed since then, or set by hand."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import NotFittedError

from probem.errors import InputError

#: The attributes that determine the covariances; the first that is there does, and the others have to agree with it.
SPREADS = ("covariances_", "precisions_cholesky_", "precisions_")

# How far the product of a covariance and its precision may be from the unit matrix: numbers typed by hand are rounded.
_AGREEMENT = 1e-3
# How far weights may be from a sum of 1, for the same reason.
_SUM = 1e-5


class Components(NamedTuple):
    """The components of a mixture, ``covariances`` as ``covariance_type`` has them.

    That is ``[K, D, D]`` for "full", ``[D, D]`` for "tied", ``[K, D]`` for "diag" and ``[K]`` for "spherical".
    """

    covariance_type: str
    weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K D"]
    covariances: Float[np.ndarray, "..."]


def shapes_of_covariances(count: int, dim: int) -> dict[str, tuple[int, ...]]:
    """The shape of ``covariances_`` and of both forms of a precision, by covariance type."""
    return {"full": (count, dim, dim), "tied": (dim, dim), "diag": (count, dim), "spherical": (count,)}


def floating(values: Any) -> np.dtype:
    """The floating-point type of an attribute: its own, float64 of whole numbers and lists."""
    dtype = getattr(values, "dtype", np.dtype(float))
    return np.result_type(dtype, np.float32) if np.issubdtype(dtype, np.number) else np.dtype(float)


def numbers_of(
    estimator: Any, name: str, dtype: np.dtype, expected: Sequence[int] | None = None
) -> Float[np.ndarray, "..."]:
    """The attribute ``name`` as finite numbers of this type, and of the ``expected`` shape if there is one.

    Raises
    ------
    NotFittedError
        If it was neither fitted nor set.
    InputError
        If it holds anything else.
    """
    kind = type(estimator).__name__
    if not hasattr(estimator, name):
        raise NotFittedError(f"This {kind} has no {name}; fit it, or set {name} beside the other attributes.")
    given = getattr(estimator, name)
    try:
        values = np.asarray(given)
    except ValueError:  # lists of different lengths
        values = np.asarray(None)
    if values.dtype.kind not in "biuf":
        raise InputError(f"{name} of type {type(given).__name__} that is no array of numbers", "numbers", "set them")
    if expected is not None and values.shape != tuple(expected):
        raise InputError(
            f"{name} of shape {values.shape}", f"the shape {tuple(expected)} of the other attributes", "set both"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{name} with a value that is not finite", "finite numbers", "set others, or fit")
    return values.astype(dtype, copy=False)


def means_of(estimator: Any, name: str = "means_", count: str = "n_components") -> Float[np.ndarray, "K D"]:
    """An attribute with a row for each component, checked."""
    means = numbers_of(estimator, name, floating(getattr(estimator, name, 0.0)))
    if means.ndim != 2 or not means.size:
        raise InputError(f"{name} of shape {means.shape}", f"shape ({count}, n_features)", "set a row for each")
    return means


def components_of(
    estimator: Any, covariance_types: Sequence[str], weights: Float[np.ndarray, " K"] | None = None
) -> Components:
    """The components as the attributes are now, checked.

    Parameters
    ----------
    covariance_types : the first of these whose shape is that of the covariances is theirs
    weights : in the place of ``weights_`` if those are not there

    Raises
    ------
    NotFittedError
        If an attribute is missing that the others do not determine.
    InputError
        For shapes that do not belong together, weights off the simplex, covariances that are not positive definite,
        and covariances and precisions that contradict each other.
    """
    means = means_of(estimator)
    count, dim = means.shape
    if weights is None or hasattr(estimator, "weights_"):
        weights = numbers_of(estimator, "weights_", means.dtype, (count,))
    if (weights < 0).any() or abs(weights.sum(dtype=float) - 1) > _SUM:
        raise InputError(
            f"weights_ with the sum {weights.sum():.6g}",
            "weights that sum to 1, none below 0",
            "divide them by their sum",
        )
    present = [name for name in SPREADS if hasattr(estimator, name)]
    if not present:
        kind = type(estimator).__name__
        raise NotFittedError(f"This {kind} has no covariances_; fit it, or set one of {', '.join(SPREADS)}.")
    spreads = {name: numbers_of(estimator, name, means.dtype) for name in present}
    shapes = shapes_of_covariances(count, dim)
    for name, value in spreads.items():
        fitting = [candidate for candidate in covariance_types if shapes[candidate] == value.shape]
        if not fitting:
            raise InputError(
                f"{name} of shape {value.shape}",
                f"shape {shapes[covariance_types[-1]]} for {covariance_types[-1]} covariances and means_ {means.shape}",
                "set both",
            )
        covariance_types = fitting
    covariance_type = covariance_types[0]
    matrices = covariance_type in ("full", "tied")
    first, *others = present
    covariances = spreads[first] if first == "covariances_" else _inverse(first, spreads[first], matrices)
    _check_positive(first, covariances, matrices)
    for name in others:
        if not _agree(covariances, _precisions(name, spreads[name], matrices), matrices):
            raise InputError(
                f"{name} and {first} that contradict each other",
                "covariances and precisions that are the inverse of each other",
                f"set both, or delete the one that is out of date (del mixture.{name})",
            )
    return Components(covariance_type, weights, means, covariances)


def _precisions(name: str, values: Float[np.ndarray, "*shape"], matrices: bool) -> Float[np.ndarray, "*shape"]:
    """Precisions of themselves or of their factors P: P P'."""
    if name == "precisions_":
        return values
    return values @ np.swapaxes(values, -1, -2) if matrices else values**2


def _inverse(name: str, values: Float[np.ndarray, "*shape"], matrices: bool) -> Float[np.ndarray, "*shape"]:
    """The covariances of precisions or of their factors; NaN where there are none."""
    if not matrices:
        with np.errstate(divide="ignore"):
            return 1 / _precisions(name, values, matrices)
    try:
        if name == "precisions_":
            return _symmetric(np.linalg.inv(values))
        inverse = np.linalg.inv(values)
    except np.linalg.LinAlgError:
        return np.full_like(values, np.nan)
    return np.swapaxes(inverse, -1, -2) @ inverse


def _symmetric(matrices: Float[np.ndarray, "*batch D D"]) -> Float[np.ndarray, "*batch D D"]:
    return 0.5 * (matrices + np.swapaxes(matrices, -1, -2))


def _check_positive(name: str, covariances: Float[np.ndarray, "..."], matrices: bool) -> None:
    """Refuse what is no covariance."""
    wanted = "positive definite matrices" if matrices else "positive numbers"
    if not matrices:
        proper = np.asarray(np.isfinite(covariances) & (covariances > 0))
        wrong = ~proper.reshape(len(proper), -1).all(axis=1)
    else:
        stacked = covariances.reshape(-1, *covariances.shape[-2:])
        wrong = np.array([not _is_positive_definite(matrix) for matrix in stacked])
    if wrong.any():
        where = f" of component {np.argmax(wrong)}" if np.size(wrong) > 1 else ""
        raise InputError(f"{name}{where} that is no covariance or precision", wanted, "set others, or fit")


def _is_positive_definite(matrix: Float[np.ndarray, "D D"]) -> bool:
    scales = np.sqrt(np.abs(np.diagonal(matrix)))
    if not (np.isfinite(matrix).all() and (np.abs(matrix - matrix.T) <= _AGREEMENT * np.outer(scales, scales)).all()):
        return False
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def _agree(covariances: Float[np.ndarray, "*shape"], precisions: Float[np.ndarray, "*shape"], matrices: bool) -> bool:
    """Whether their products are the unit matrix, to the rounding of either, whatever the units of the columns."""
    if not matrices:
        return bool((np.abs(covariances * precisions - 1) <= _AGREEMENT).all())
    scales = np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1))
    left = covariances / (scales[..., :, None] * scales[..., None, :])
    right = precisions * (scales[..., :, None] * scales[..., None, :])
    rounding = 100 * np.finfo(left.dtype).eps * (np.abs(left) @ np.abs(right)).max(axis=(-2, -1))
    error = np.abs(left @ right - np.eye(left.shape[-1])).max(axis=(-2, -1))
    return bool((error <= _AGREEMENT + rounding).all())
