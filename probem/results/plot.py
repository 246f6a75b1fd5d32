"""What ``Fit.plot`` draws: a fit and its data as numbers, for ``probem.plotting``."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Bool, Float, Shaped

from probem.data.checks import check_data
from probem.errors import InputError
from probem.exponential import MultivariateNormal, Normal
from probem.plotting.fit import Drawn, Gaussian, draw_fit
from probem.program.as_fitted import as_fitted
from probem.results.record import FitRecord


def checked_rows(fit: FitRecord, data: tuple[Any, ...]) -> Shaped[np.ndarray, "N D"]:
    """The data arguments side by side, every row flattened.

    Raises
    ------
    InputError
        For data that no fit takes, or another than the one fitted, and for sparse rows.
    """
    plan, _ = fit._ready()
    data = as_fitted(check_data(data, missing=True), plan.program.spec)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(data)]
    return np.concatenate([leaf.reshape(len(leaf), -1).astype(float) for leaf in leaves], axis=1)


def column_names(fit: FitRecord, columns: Sequence[str] | None, count: int) -> list[str]:
    """What the columns are called: as given, else by their numbers.

    Raises
    ------
    InputError
        For another number of names than of columns.
    """
    if columns is None:
        return [f"column {number}" for number in range(count)] if count > 1 else [", ".join(_observed(fit))]
    if isinstance(columns, str) or len(columns) != count:
        raise InputError(f"columns={columns!r}", f"{count} names, one for each column of the data", "change them")
    return [str(name) for name in columns]


def _observed(fit: FitRecord) -> tuple[str, ...]:
    return fit._ready()[0].program.observed


def draw(
    fit: FitRecord,
    rows: Float[np.ndarray, "N D"],
    filled: Float[np.ndarray, "N D"],
    responsibilities: Float[np.ndarray, "N K"],
    columns: Sequence[str],
    axes: Any,
) -> np.ndarray:
    """Both pictures in these axes, or in those of a new figure of pyplot; returns the axes."""
    missing: Bool[np.ndarray, "N D"] = np.isnan(rows)
    if missing.all():
        raise InputError("rows of which every value is missing", "a value in some row", "check the data")
    axes = _new_axes() if axes is None else np.asarray(axes, object).reshape(-1)
    if len(axes) != 2:
        raise InputError(f"{len(axes)} axes", "two, for the rows and for F", "pass plt.subplots(1, 2)[1]")
    gaussians = gaussian_components(fit, rows.shape[1])
    draw_fit(tuple(axes), Drawn(filled, missing, responsibilities, columns, gaussians, fit.history.elbo))
    return axes


def _new_axes() -> np.ndarray:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise InputError(
            "plot without the package matplotlib", "it to be installed", "run: pip install 'probem[cli]'"
        ) from None
    return pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained", width_ratios=(3, 2))[1]


def gaussian_components(fit: FitRecord, num_columns: int) -> list[Gaussian] | None:
    """The components, or None unless all that is observed is one Gaussian of this many entries.

    A Gaussian that depends on a covariate is no such: every row has a mean of its own.
    """
    if fit.plan is None or len(fit.plan.program.observed) != 1 or not fit.plan.form.data_terms:
        return None
    (term,) = fit.plan.form.data_terms
    many = (term.copies, *term.event_shape)
    if term.transforms or (type(term.view), many) not in (
        (Normal, (num_columns,)),
        (MultivariateNormal, (1, num_columns)),
    ):
        return None
    arguments = fit.plan.form.arguments(fit.params)[term.site]
    # A fit that collapsed is drawn too, and its covariance may be singular by a rounding.
    gaussians = term.view.distributions[0](**arguments, validate_args=False)
    means = np.asarray(gaussians.mean).reshape(-1, num_columns)
    if isinstance(gaussians, dist.MultivariateNormal):
        covariances = np.asarray(gaussians.covariance_matrix)[:, 0]
    else:
        covariances = [np.diag(variance) for variance in np.asarray(gaussians.variance)]
    return [Gaussian(*pair) for pair in zip(means, covariances, strict=True)]
