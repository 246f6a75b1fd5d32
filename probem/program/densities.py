"""Densities as NumPyro has them: a distribution under its wrappers, and the log density of the events observed."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from numpyro import handlers
from numpyro.distributions import (
    Beta,
    CategoricalLogits,
    CategoricalProbs,
    Dirichlet,
    ExpandedDistribution,
    Gamma,
    ImproperUniform,
    Independent,
    MaskedDistribution,
    biject_to,
)

# Nats by which a value outside bounds that are computed is less dense than the formula says; None: by all.
_outside: ContextVar[float | None] = ContextVar("_outside", default=None)


@contextlib.contextmanager
def finite_outside() -> Iterator[None]:
    """Inside the block, densities outside of bounds that are computed are the formula, less many nats: rows that are
    impossible tell on which parameters they depend, too.
    """
    before = _outside.set(1e3)
    try:
        yield
    finally:
        _outside.reset(before)


def drawn(function: Callable[..., Any], seed: int) -> Callable[..., Any]:
    """The program with a value for every site: a draw, or the middle of the support of what has no sampler."""
    return handlers.seed(handlers.substitute(function, substitute_fn=_undrawable), seed)


def _undrawable(site: dict[str, Any]) -> Any:
    if (
        site["type"] != "sample"
        or site["is_observed"]
        or not isinstance(base_distribution(site["fn"]), ImproperUniform)
    ):
        return None
    bijection = biject_to(site["fn"].support)
    return bijection(jnp.zeros(bijection.inverse_shape(site["fn"].shape())))


def base_distribution(distribution: Any) -> Any:
    """The distribution under to_event, expand and mask."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def log_prob_of_events(distribution: Any, value: Any, observed: Bool[Array, "..."] | None) -> Float[Array, "..."]:
    """The log density, summed over the events that were observed."""
    innermost, events = distribution, 0
    while isinstance(innermost, Independent):
        innermost, events = innermost.base_dist, events + innermost.reinterpreted_batch_ndims
    inner: Any = innermost
    bounded = any(isinstance(bound, Array) for bound in jax.tree.leaves(inner.support))
    if observed is None and not bounded:
        return distribution.log_prob(value)
    log_prob = log_prob_within(inner, value) if bounded else inner.log_prob(value)
    if observed is not None:
        event_ndim = len(inner.event_shape)
        here = observed.any(tuple(range(observed.ndim - event_ndim, observed.ndim)))
        log_prob = jnp.where(here, log_prob, 0.0)
    return log_prob.sum(tuple(range(log_prob.ndim - events, log_prob.ndim)))


def log_prior_density(distribution: Any, value: Any) -> Float[Array, "..."]:
    """The log density of a prior; on an edge of its support where NumPyro has 0 log 0, that beside the edge: a flat
    Dirichlet distribution is flat up to there.
    """
    log_prob = log_prob_of_events(distribution, value, None)
    inner = distribution
    while isinstance(inner, Independent | ExpandedDistribution | MaskedDistribution):
        inner = inner.base_dist
    if not isinstance(inner, Beta | Dirichlet | Gamma):
        return log_prob
    number = jnp.finfo(jnp.result_type(value))
    beside = jnp.where(value == 0, number.tiny, value)
    if isinstance(inner, Beta):
        beside = jnp.where(value == 1, 1 - number.epsneg, beside)
    return jnp.where(jnp.isnan(log_prob), log_prob_of_events(distribution, beside, None), log_prob)


def log_prob_within(distribution: Any, value: Any) -> Float[Array, "..."]:
    """The log density between bounds that are computed, minus infinity outside of them, zero where it is masked.

    NumPyro's density of a uniform distribution, say, is that inside its bounds everywhere, since a check of values
    would refuse the others. Bounds that are parameters move, and so does where the density is zero.
    """
    if isinstance(distribution, Independent):
        log_prob = log_prob_within(distribution.base_dist, value)
        return log_prob.sum(tuple(range(log_prob.ndim - distribution.reinterpreted_batch_ndims, log_prob.ndim)))
    if isinstance(distribution, ExpandedDistribution | MaskedDistribution):
        log_prob = log_prob_within(distribution.base_dist, value)
        log_prob = jnp.broadcast_to(log_prob, jnp.broadcast_shapes(log_prob.shape, distribution.batch_shape))
        return (
            jnp.where(distribution._mask, log_prob, 0.0) if isinstance(distribution, MaskedDistribution) else log_prob
        )
    inside = distribution.support(value)
    if _outside.get() is not None:
        log_prob = distribution.log_prob(value)
        return jnp.where(inside, log_prob, log_prob - _outside.get())
    # What lies outside is replaced before the formula is asked: its slope may be no number there, and would make that
    # of the whole none.
    entries = jnp.reshape(inside, (*inside.shape, *(1,) * len(distribution.event_shape)))
    log_prob = distribution.log_prob(jnp.where(entries, value, _value_within(distribution, value)))
    return jnp.where(inside, log_prob, -jnp.inf)


def _value_within(distribution: Any, value: Any) -> Any:
    """Values inside the support in the shape of the density's; those given where NumPyro has none."""
    shape = (*distribution.batch_shape, *distribution.event_shape)
    value = jnp.broadcast_to(value, jnp.broadcast_shapes(jnp.shape(value), shape))
    try:
        within = distribution.support.feasible_like(value)
    except NotImplementedError:
        return value
    return jnp.where(jnp.isfinite(within), within, value).astype(value.dtype)


def is_categorical(site: dict[str, Any]) -> bool:
    """Whether the values of a site are indices to NumPyro."""
    return isinstance(base_distribution(site["fn"]), CategoricalProbs | CategoricalLogits)


def broadcast_value(value: Any, distribution: Any) -> Any:
    """The value as the density takes it: that of NumPyro's MultivariateNormal does not broadcast over its matrices."""
    if not base_distribution(distribution).event_shape:
        return value
    shape = (*distribution.batch_shape, *distribution.event_shape)
    return jnp.broadcast_to(value, jnp.broadcast_shapes(jnp.shape(value), shape))
