"""Whether a posterior density has a mode to be found: not where a prior is unbounded, and the data do not hold it.

A Dirichlet density with a concentration below 1 is infinite where that probability is zero, and so is the posterior
density: other components explain the rows. A point that climbs it (MAP) goes to the edge, and never arrives. Found by
evaluation: a density that rises by the same amount each time the edge comes nearer by the same factor has no bound.
What the rows add is looked at as well, since a likelihood that vanishes there, as that of a precision which all
components share, keeps the mode inside. A prior whose arguments are parameters themselves is looked at for several
values of theirs, and refused if it is unbounded for one of them: then the joint density is.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int
from numpyro.distributions import constraints

from probem.errors import InputError
from probem.jit.compilation import concrete
from probem.program.program import Program
from probem.program.sites import Params
from probem.program.support_rules import log_density, one_event, unmasked

# How near the edge is come, as powers of 1 / e: at zero as far as squares do not overflow, and within the digits of a
# number.
_AT_ZERO, _WITHIN_DIGITS = (100.0, 200.0, 300.0), (10.0, 20.0, 30.0)
# The least slope in nats per power that counts, and how much smaller it may be at the end than before.
_SLOPE, _STEADY = 1e-6, 0.98
# Entries of a simplex, and of a site, that are brought to the edge one by one.
_MOST_ENTRIES = 16
# Priors whose densities are bounded whatever their arguments: they need no look.
_BOUNDED = (dist.Exponential, dist.HalfCauchy, dist.HalfNormal, dist.InverseGamma, dist.InverseWishart, dist.Uniform)
# Seeds and scales of the parameters that a prior depends on.
_DRAWS = ((71, 1.0), (72, 3.0), (73, 3.0))


@functools.lru_cache(maxsize=256)
def check_bounded(program: Program, points: tuple[str, ...]) -> None:
    """Refuse points under a prior with which the posterior density has no bound.

    Parameters
    ----------
    points : names of sites with a prior, whose q is a point

    Raises
    ------
    InputError
        Naming the site, and the ways out.
    """
    edges = _edges(program, points)
    if not edges:
        return
    with jax.enable_x64(True):
        for seed, scale in _DRAWS:
            params = program.random_params(seed, scale)
            for name, paths in _along(program, params, points=points).items():
                for edge, (values, log_density) in enumerate(paths):
                    rising = _is_rising(log_density, edges[name][edge])
                    for cell in np.argwhere(rising)[:_MOST_ENTRIES]:
                        if _rises_with_rows(program, name, params, values, cell, edges[name][edge]):
                            _refuse(program, name)


def _refuse(program: Program, name: str) -> None:
    def look(sites: dict[str, dict[str, Any]]) -> str:
        return type(unmasked(sites[name]["fn"])[0]).__name__

    prior = program.abstract_trace(look, 1)
    raise InputError(
        f"a point (MAP) for '{name}' under a {prior} prior whose density has no bound at the edge of its support, so"
        " that the posterior has no mode",
        "a prior with a bounded density, or a full posterior",
        f"use the family Conjugate() on '{name}' (families=probem.VARIATIONAL_BAYES) or, where that is not conjugate,"
        " Gaussian(), a concentration of at least 1, or"
        " numpyro.param for no prior",
    )


def _is_rising(log_density: Float[np.ndarray, "3 ..."], powers: tuple[float, ...]) -> Bool[np.ndarray, "..."]:
    """Whether a log density ``[3, ...]`` goes on rising toward the edge at a steady slope."""
    with np.errstate(invalid="ignore"):
        before, after = (
            (log_density[n + 1] - log_density[n]) / (powers[n + 1] - powers[n]) for n in range(len(powers) - 1)
        )
        return np.asarray((after > _SLOPE) & (after > _STEADY * before) & np.isfinite(log_density[-1]))


def _edges(program: Program, points: tuple[str, ...]) -> dict[str, list[tuple[float, ...]]]:
    """By site, the powers at which each of its edges is come near; sites without an edge are left out."""

    def look(sites: dict[str, dict[str, Any]]) -> dict[str, list[tuple[float, ...]]]:
        return {name: [powers for powers, _ in _toward(sites[name]["fn"])] for name in points}

    return {name: edges for name, edges in program.abstract_trace(look, 1).items() if edges}


@concrete
def _along(
    program: Program, params: Params, *, points: tuple[str, ...]
) -> dict[str, list[tuple[Float[Array, "3 ..."], Float[Array, "3 ..."]]]]:
    """By site, for each edge, values ``[3, *batch, *event]`` and their log densities ``[3, *batch]``."""
    sites = program.enumerated_trace(params, program.spec.zeros(1))
    paths = {}
    for name in points:
        if edges := _toward(sites[name]["fn"]):
            base, _ = unmasked(sites[name]["fn"])
            paths[name] = [(values, jnp.stack([log_density(base, value) for value in values])) for _, values in edges]
    return paths


def _toward(prior: Any) -> list[tuple[tuple[float, ...], Float[Array, "3 ..."]]]:
    """For each edge of the support of a distribution, powers and values ``[3, *batch, *event]`` that come near it."""
    base, _ = unmasked(prior)
    constraint, shape = one_event(base.support), (*prior.batch_shape, *prior.event_shape)
    if type(base) in _BOUNDED or constraint is None or constraint.is_discrete or 0 in shape:
        return []

    def near(value: Any, powers: tuple[float, ...]) -> tuple[tuple[float, ...], Float[Array, "3 ..."]]:
        return powers, jnp.stack([jnp.broadcast_to(value(math.exp(-power)), shape) for power in powers])

    size = shape[-1] if shape else 1
    last = np.arange(size) == size - 1
    if constraint is constraints.simplex and size > 1:
        if type(base) is dist.Dirichlet:
            # Toward the entry where it rises most, or falls least.
            entries = [jnp.argmin(base.concentration, axis=-1)[..., None]]
        else:
            entries = list(range(min(size, _MOST_ENTRIES)))
        masks = [np.arange(size) == entry for entry in entries]
        return [near(lambda d, mask=mask: jnp.where(mask, d, (1 - d) / (size - 1)), _AT_ZERO) for mask in masks]
    if constraint in (constraints.positive_definite, constraints.lower_cholesky):
        return [near(lambda d: jnp.diag(jnp.where(last, d, 1.0)), _AT_ZERO)]
    if constraint is constraints.corr_cholesky and size > 1:
        first = np.arange(size) == 0
        row = lambda d: jnp.where(last, d, jnp.where(first, math.sqrt(1 - d * d), 0.0))  # noqa: E731
        return [near(lambda d: jnp.where(last[:, None], row(d), jnp.eye(size)), _AT_ZERO)]
    if constraint is constraints.corr_matrix and size > 1:
        both = np.outer(last, np.arange(size) == 0)
        return [near(lambda d: jnp.where(both | both.T, 1 - d, jnp.eye(size)), _WITHIN_DIGITS)]
    low, high = (getattr(constraint, name, None) for name in ("lower_bound", "upper_bound"))
    if constraint.event_dim or (low is None and high is None):
        return []
    width = 1.0 if low is None or high is None else high - low
    edges = []
    if low is not None:
        at_zero = isinstance(low, int | float) and low == 0
        edges.append(near(lambda d: low + d * width, _AT_ZERO if at_zero else _WITHIN_DIGITS))
    if high is not None:
        edges.append(near(lambda d: high - d * width, _WITHIN_DIGITS))
    return edges


def _rises_with_rows(
    program: Program,
    name: str,
    params: Params,
    values: Float[np.ndarray, "3 ..."],
    cell: Int[np.ndarray, " _"],
    powers: tuple[float, ...],
) -> bool:
    """Whether the log density of the parameters and three rows rises as well, with one event alone on its way."""
    (site,) = (other for other in program.globals if other.name == name)
    at_once = np.broadcast_to(params[name], site.shape)
    batch = values.shape[1 : 1 + len(cell)]
    events = values.reshape(len(values), *batch, -1)
    kept = np.broadcast_to(at_once, np.broadcast_shapes(site.shape, values.shape[1:])).reshape(*batch, -1)
    moved = []
    for value in events:
        point = kept.copy()
        point[tuple(cell)] = value[tuple(cell)]
        moved.append(point.reshape(site.shape))
    with_rows = _joint(program, params, np.stack(moved), program.spec.examples()[0], name=name)
    return bool(np.isnan(with_rows).any() or (with_rows == -np.inf).all() or _is_rising(with_rows, powers))


@concrete
def _joint(
    program: Program, params: Params, values: Float[Array, "3 ..."], data: tuple[Any, ...], *, name: str
) -> Float[Array, " 3"]:
    """log p(rows, params) ``[3]``, nats, for each of the values of one site."""

    def at(value: Float[Array, "..."]) -> Float[Array, ""]:
        point = {**params, name: value}
        return jax.nn.logsumexp(program.log_joint(point, data), axis=1).sum() + program.log_prior(point)

    return jnp.stack([at(value) for value in values])
