"""Values as NumPyro's densities take them: categories in whole numbers, no density outside a support, and flat priors
that are flat up to their edges.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers


class WholeNumbers(handlers.Messenger):
    """Categories that are observed as floats, as NumPyro takes them."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or not msg["is_observed"] or "Categorical" not in _name(msg["fn"]):
            return
        value = jnp.asarray(msg["value"])
        if jnp.issubdtype(value.dtype, jnp.floating):
            msg["value"] = value.astype(int)


class Supports(handlers.Messenger):
    """Observed sites whose bounds are computed, with a density of zero outside of them.

    NumPyro's own is that inside everywhere, since a check of values, which no compiled code has, would refuse the rest.
    """

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or not msg["is_observed"]:
            return
        if any(isinstance(bound, jax.Array | np.ndarray) for bound in jax.tree.leaves(msg["fn"].support)):
            msg["fn"] = _Bounded(msg["fn"])


class Edges(handlers.Messenger):
    """Priors with the densities on the edge of their support that they have beside it, where NumPyro has 0 log 0."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and not msg["is_observed"] and _name(msg["fn"]) in ("Beta", "Dirichlet", "Gamma"):
            msg["fn"] = _UpToEdges(msg["fn"])


class _Around(dist.Distribution):
    """A distribution with another density."""

    pytree_data_fields = ("base",)

    def __init__(self, base: dist.Distribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.base.support


class _UpToEdges(_Around):
    """A distribution with exponents of the value, and of one minus it; an exponent of zero says nothing there."""

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.base.sample(key, sample_shape)

    def log_prob(self, value: Any) -> Float[Array, "..."]:
        number = jnp.finfo(jnp.result_type(value))
        beside = jnp.where(value == 0, number.tiny, value)
        if _name(self.base) == "Beta":
            beside = jnp.where(value == 1, 1 - number.epsneg, beside)
        there = self.base.log_prob(value)
        return jnp.where(jnp.isnan(there), self.base.log_prob(beside), there)


class _Bounded(_Around):
    """A distribution whose density outside its support is zero."""

    def log_prob(self, value: Any) -> Float[Array, "..."]:
        return _log_prob(self.base, value)


def _log_prob(distribution: Any, value: Any) -> Float[Array, "..."]:
    """The log density of every event, minus infinity outside the support and zero under a mask.

    What lies outside is moved inside before NumPyro is asked, since the slope there may be no number. NumPyro's mask
    does so as well, but not for a value that has fewer axes than the bounds.
    """
    if isinstance(distribution, dist.Independent):
        each = _log_prob(distribution.base_dist, value)
        return each.sum(tuple(range(-distribution.reinterpreted_batch_ndims, 0)))
    if isinstance(distribution, dist.MaskedDistribution):
        return jnp.where(jnp.asarray(distribution._mask), _log_prob(distribution.base_dist, value), 0.0)
    value = jnp.broadcast_to(value, jnp.broadcast_shapes(jnp.shape(value), distribution.shape()))
    inside = jnp.asarray(distribution.support(value))
    try:
        within = distribution.support.feasible_like(value)
    except NotImplementedError:
        within = value
    within = jnp.where(jnp.isfinite(within), within, value)
    is_event = inside[(...,) + (None,) * distribution.event_dim]
    return jnp.where(inside, distribution.log_prob(jnp.where(is_event, value, within)), -jnp.inf)


def _name(distribution: Any) -> str:
    """The name of a distribution without what is wrapped around it."""
    while hasattr(distribution, "base_dist") and distribution.base_dist is not None:
        distribution = distribution.base_dist
    return type(distribution).__name__
