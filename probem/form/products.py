"""Sites whose statistics are x and the products of its entries, by a matrix product for each component.

    <T(x), eta_k> = x' (b_k - Lambda_k x / 2),    sum_n r_nk T(x_n) from sum_n r_nk x_n and X' diag(r_k) X

The D (D + 1) / 2 products of each row are then never formed, which with few components is most of the work; with many,
one product with all of them has half as many operations.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from probem.data.blocks import Block
from probem.form.centring import centred_events
from probem.form.form import ExponentialForm, NaturalParameters
from probem.form.sites import ExponentialSite
from probem.form.statistics import DataTotals


def events_of(
    form: ExponentialForm, terms: tuple[ExponentialSite, ...], block: Block, totals: DataTotals
) -> dict[str, Float[Array, "n _ _"]]:
    """The events of some terms less their origins, ``[n, C, D]``, by site."""
    events = form.events(block.data, terms, block.events)
    return {
        term.site: centred_events(term, events[term.site].astype(form.program.dtype), totals.shifts) for term in terms
    }


def weights_of(form: ExponentialForm, term: ExponentialSite, natural: NaturalParameters) -> Float[Array, "K _ S"]:
    """The natural parameters of a term, by component and copy."""
    return natural.weight[:, form.natural_columns(term)].reshape(-1, term.copies, term.num_statistics)


def quadratic_table(
    term: ExponentialSite, natural: Float[Array, "K C S"], events: Float[Array, "n C D"]
) -> Float[Array, "n K"]:
    """<T(x_n), eta_k>, summed over copies; it lies in memory components first."""
    linear, precision = term.view.canonical(natural)
    residuals = jnp.swapaxes(linear, 0, 1)[..., None] - 0.5 * jnp.einsum("kcde,nce->ckdn", precision, events)
    return (residuals * jnp.transpose(events, (1, 2, 0))[:, None]).sum((0, 2)).T


def residual_table(
    term: ExponentialSite,
    natural: Float[Array, "K C S"],
    events: Float[Array, "n C D"],
    here: Float[Array, "n C"] | None = None,
) -> Float[Array, "n K"]:
    """``quadratic_table`` of a linear predictor whose coefficients are points, of the events that are ``here``.

    Lambda is tau v v' with v = (1, -c), and b is -tau g v: x' (b - Lambda x / 2) = -tau ((v' x + g)^2 - g^2) / 2. A
    residual keeps its digits however far out the row is; products of two entries do not.
    """
    linear, matrix = term.view.canonical(natural)
    precision = matrix[..., 0, 0]
    direction, gap = matrix[..., 0] / precision[..., None], -linear[..., 0] / precision
    residuals = jnp.einsum("kcd,ncd->ckn", direction, events)
    each = -0.5 * precision.T[..., None] * residuals * (residuals + 2.0 * gap.T[..., None])
    if here is not None:
        each = jnp.where(here.T[:, None] > 0, each, 0.0)
    return each.sum(0).T


def quadratic_sums(
    term: ExponentialSite, weights: Float[Array, "n K"], events: Float[Array, "n C D"]
) -> Float[Array, "K S"]:
    """sum_n w_nk T(x_n) of all copies."""
    weighted = weights.T[None, :, None, :] * jnp.transpose(events, (1, 2, 0))[:, None]
    first, second = weighted.sum(-1), jnp.einsum("ckdn,nce->ckde", weighted, events)
    sums = jnp.swapaxes(term.view.packed(first, second), 0, 1)
    return sums.reshape(sums.shape[0], -1)
