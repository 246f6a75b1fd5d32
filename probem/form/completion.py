"""Events of which only some entries were observed: the rest is integrated out, and filled in by its moments.

Given the component, log p of an event is <T(x), eta> - A + h, quadratic in x. The entries that are missing are normal
under it given the others, with the precision Lambda_mm and the mean Lambda_mm^-1 (b_m - Lambda_mo x_o), where eta =
(b, Lambda); under a q of the parameters with E[eta] in its place, so it is the best q of these entries. Their
conditional moments complete the statistics, and with their entropy F is that of the values observed. Source: Ghahramani
& Jordan (1994), Supervised learning from incomplete data via an EM approach, section 3; Little & Rubin (2002),
Statistical analysis with missing data, section 11.2.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from probem.data.blocks import Block
from probem.exponential.linalg import cholesky, inverse_triangular
from probem.form.centring import centred_events
from probem.form.form import ExponentialForm, NaturalParameters
from probem.form.sites import ExponentialSite
from probem.form.statistics import DataTotals


class Completed(NamedTuple):
    """One term of n rows under each component.

    ``table`` is the log of exp <T(x), eta> integrated over what is missing, ``entropy`` that of q of it, ``mean`` and
    ``covariance`` the moments of the whole event around the origin, ``here`` whether there is one.
    """

    table: Float[Array, "n K"]
    entropy: Float[Array, "n K"]
    mean: Float[Array, "n K C D"]
    covariance: Float[Array, "n K C D D"]
    here: Bool[Array, "n C"]


def complete(
    form: ExponentialForm, natural: NaturalParameters, block: Block, totals: DataTotals
) -> dict[str, Completed]:
    """Every term that completes, by site."""
    if not form.completing:
        return {}
    events = events_around_origin(form, block, totals)
    completed = {}
    for term in form.completing:
        weight = natural.weight[:, form.natural_columns(term)].reshape(-1, term.copies, term.num_statistics)
        completed[term.site] = complete_term(term, weight, *events[term.site])
    return completed


def events_around_origin(
    form: ExponentialForm, part: Block, totals: DataTotals
) -> dict[str, tuple[Float[Array, "n _ _"], Bool[Array, "n _ _"]]]:
    """The events of every term that completes, less the origin, and which of their entries are there, ``[n, C, D]``."""
    values = form.events(part.data, form.completing)
    observed = form.observed(part.data, part.missing)
    events = {}
    for term in form.completing:
        value = values[term.site].astype(form.program.dtype)
        events[term.site] = centred_events(term, value, totals.shifts), observed[term.site]
    return events


def complete_term(
    term: ExponentialSite, natural: Float[Array, "K C S"], value: Float[Array, "n C D"], observed: Bool[Array, "n C D"]
) -> Completed:
    """One term under each component, by its natural parameters."""
    linear, precision = term.view.canonical(natural)
    here = observed.any(-1)
    given = jnp.where(observed, value, 0.0)[:, None]
    gap = ~observed[:, None]
    both = gap[..., :, None] & gap[..., None, :]
    # The block of what is missing, the unit matrix elsewhere.
    block = jnp.where(both, precision[None], jnp.eye(value.shape[-1], dtype=value.dtype))
    whitening = inverse_triangular(cholesky(block))
    spread = jnp.matmul(jnp.swapaxes(whitening, -1, -2), whitening)
    # log|block^-1|: of what is missing alone.
    log_volume = 2.0 * jnp.log(jnp.diagonal(whitening, axis1=-2, axis2=-1)).sum(-1)
    # Products with many small matrices take ten times as long as one large product, or as a sum along an axis.
    pull = linear[None] - jnp.einsum("ncd,kcde->nkce", given[:, 0], precision)
    filled = (spread * jnp.where(gap, pull, 0.0)[..., None, :]).sum(-1)
    mean = given + filled
    num_missing = gap.sum(-1).astype(value.dtype)
    log_volume = 0.5 * (num_missing * math.log(2 * math.pi) + log_volume)
    statistics = term.view.statistics(mean)
    inner = (statistics * natural[None]).sum(-1) + log_volume
    counted = here[:, None, :]
    return Completed(
        jnp.where(counted, inner, 0.0).sum(-1),
        jnp.where(counted, log_volume + 0.5 * num_missing, 0.0).sum(-1),
        mean,
        jnp.where(both, spread, 0.0),
        here,
    )


def expected_features(term: ExponentialSite, completed: Completed) -> Float[Array, "n K S"]:
    """E[T(x_n) | t_n = k] of all copies; zero where there is no event."""
    features = term.view.statistics(completed.mean)
    features = features + term.view.spread(completed.covariance)
    features = jnp.where(completed.here[:, None, :, None], features, 0.0)
    return features.reshape(*features.shape[:2], -1)
