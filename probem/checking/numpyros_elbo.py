"""F beside NumPyro's bound of the guide: enumerated, by draws of everything, and by draws without their noise."""

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.linalg
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.infer import Trace_ELBO, TraceEnum_ELBO

from probem.checking.climb import Climb, Found, entropy, expected, in_jax
from probem.checking.report import Check
from probem.checking.residuals import SAME, relative, worst
from probem.errors import InputError
from probem.jit.compilation import Effort, by_plan
from probem.jit.tracing import unchecked
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results import interop

# Draws of all latent sites for NumPyro's Monte Carlo bound, and how many standard errors it may be away: by chance
# alone once in sixteen thousand checks.
_DRAWS, _STANDARD_ERRORS = 200, 4.0
# Scores by which draws are freed of noise, at most, and the draws for each of them.
_MOST_SCORES, _FOR_EACH = 400, 4
# Log joints of rows and components that all draws take together, at most: a second or so.
_MOST_DENSITIES = 2 * 10**7
# A bound by draws that is known to a worse share than this is said to be.
_SHARP = 1e-6


class _At(NamedTuple):
    """Where a guide stands: at the posteriors and points of a fit."""

    variational: Params
    params: Params


def _at(climb: Climb) -> _At:
    return _At(dict(climb.end.variational), in_jax(climb.end.params))


def of_the_guide(climb: Climb) -> Found:
    """A6: F is NumPyro's bound with the guide of the fit: by enumeration where all parameters are points, else by
    draws.
    """
    if not climb.ends_with_projection:
        yield "A6: a guide for a q that is no projection of the table."
        return
    try:
        climb.end.guide()
    except InputError as refused:
        yield f"A6: {refused}"
        return
    with warnings.catch_warnings():
        # NumPyro warns of sites that the guide leaves to the model.
        warnings.simplefilter("ignore")
        yield from _of_points(climb) if climb.has_points else _of_posteriors(climb)


def _guide(plan: Plan, at: _At, q: Float[Array, "N K"]) -> Callable[..., None]:
    """The guide of a fit that says q of its rows."""
    return interop.guide(plan, at.variational, at.params, lambda *_: q)


def _of_points(climb: Climb) -> Found:
    """By NumPyro's enumeration, and where it has none, of several assignments, a single component or values that are
    impossible, by the log density of the guide at every value.
    """
    end, theirs, name = climb.end, np.nan, "NumPyro’s ELBO of the guide, and F"
    plan, at, q = climb.plan, _at(climb), climb.q(end)
    enumerates = len(plan.program.assignments) == 1 and plan.num_components > 1

    @climb.compiled
    def loss(at: _At, q: Float[Array, "N K"], data: tuple[Any, ...]) -> Float[Array, ""]:
        bound: Any = TraceEnum_ELBO(max_plate_nesting=climb.numpyro.depth).loss
        return bound(jax.random.key(0), dict(at.params), climb.numpyro.program, _guide(plan, at, q), *data)

    @climb.compiled
    def log_guide(at: _At, q: Float[Array, "N K"], data: tuple[Any, ...]) -> Float[Array, "N K"]:
        columns = []
        for sites in climb.numpyro.runs_of(_guide(plan, at, q), data):
            logs = [sites[each.name]["fn"].log_prob(sites[each.name]["value"]) for each in climb.numpyro.latents]
            columns.append(sum((climb.numpyro.by_row(part) for part in logs), jnp.zeros(climb.numpyro.num_rows)))
        return jnp.stack(columns, axis=1)

    if enumerates:
        try:
            theirs = -float(loss(at, q, climb.rows))
        except (ImportError, ValueError, NotImplementedError) as refused:
            yield f"A6: NumPyro’s enumerated bound, which says: {refused}"
            return
    if not np.isfinite(theirs):
        table = climb.numpyro_log_joint(end)
        possible = np.isfinite(table)
        # NumPyro multiplies what is impossible by a q of zero.
        if not (enumerates and possible.all()):
            log_q = np.asarray(log_guide(at, q, climb.rows), float)
            q = np.where(possible, np.exp(log_q), 0.0)
            theirs = expected(q, table) - expected(q, log_q) + climb.log_prior(end)
            name = "E log p(X, T) - log q(T) by NumPyro’s densities of program and guide, and F"
    residual = relative(theirs, end.elbo, end.bound.expected_log_joint, lost=climb.lost(end))
    yield Check("A6", "", name, residual, SAME, left=theirs, right=end.elbo)


def _of_posteriors(climb: Climb) -> Found:
    """By draws of everything, and by draws of the parameters without their noise."""
    end = climb.end
    draws = _draws(climb)
    values = _drawn(climb, draws)
    mean, error = float(values.mean()), float(values.std() / np.sqrt(len(values)))
    apart = abs(mean - end.elbo) / worst(error, SAME * abs(end.elbo))
    name = f"NumPyro’s ELBO of the guide, {_DRAWS} draws, and F, in standard errors"
    yield Check("A6", "", name, apart, _STANDARD_ERRORS, left=mean, right=end.elbo)
    yield from _without_assignments(climb, draws)


class Draws(NamedTuple):
    """Of draws of the parameters from q: the values of the sites that are random, and of all sites of the program with
    a prior, log q, nats, and of every random site its scores, and the scores times the arguments they belong to.
    """

    random: dict[str, Any]
    params: dict[str, Any]
    log_q: Float[Array | np.ndarray, "*S"]
    scores: list[Any]
    scaled: list[Any]


def _draw(plan: Plan, at: _At, key: Array) -> Draws:
    """A draw by the guide without assignments."""
    guide = interop.guide(plan, at.variational, at.params, None)
    with unchecked():
        sites = handlers.trace(handlers.seed(guide, key)).get_trace()
        drawn = {name: site for name, site in sites.items() if site["type"] == "sample"}
        log_q = sum((site["fn"].log_prob(site["value"]).sum() for site in drawn.values()), jnp.zeros(()))
        random = {name: site for name, site in drawn.items() if not isinstance(_base(site["fn"]), dist.Delta)}
        pairs = [_score(site["fn"], site["value"]) for site in random.values()]
    return Draws(
        {name: site["value"] for name, site in random.items()},
        {site.name: drawn[site.name]["value"] for site in plan.program.globals if site.has_prior},
        log_q,
        [score for score, _ in pairs],
        [scaled for _, scaled in pairs],
    )


@functools.partial(by_plan, foreign=True, effort=Effort.LEAST)
def _many_draws(plan: Plan, at: _At, keys: Array) -> Draws:
    return jax.lax.map(functools.partial(_draw, plan, at), keys)


def _draws(climb: Climb) -> Draws:
    """Draws of the parameters: more of them where there are more scores."""
    plan, at = climb.plan, _at(climb)
    scores = jax.eval_shape(functools.partial(_draw, plan, at), jax.random.key(0)).scores
    wanted = 2 * sum(score.size for score in scores) + _num_products([score.size for score in scores])
    affordable = _MOST_DENSITIES // climb.q(climb.end).size
    most = int(np.maximum(_DRAWS, _FOR_EACH * np.minimum(wanted, _MOST_SCORES)))
    num_draws = int(np.maximum(_DRAWS, np.minimum(most, affordable)))
    draws = _many_draws(plan, at, jax.random.split(jax.random.key(0), most))
    # As many are drawn whatever the number of rows.
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:num_draws], draws)


def _drawn(climb: Climb, draws: Draws) -> Float[np.ndarray, " S"]:
    """NumPyro's estimates of F from one draw of all latent sites each, nats."""
    plan, q = climb.plan, climb.q(climb.end)
    # NumPyro puts a value that is named in the place of a draw: what the guide draws must not be among them.
    free = {site.name: climb.end.params[site.name] for site in plan.program.globals if not site.has_prior}

    @climb.compiled
    def estimates(
        at: _At, q: Float[Array, "N K"], free: Params, values: dict[str, Any], data: tuple[Any, ...]
    ) -> Float[Array, " S"]:
        bound: Any = Trace_ELBO().loss

        def estimate(values: dict[str, Any]) -> Float[Array, ""]:
            guide = handlers.substitute(_guide(plan, at, q), data=values)
            return -bound(jax.random.key(0), dict(free), climb.numpyro.program, guide, *data)

        return jax.lax.map(estimate, values)

    values = {name: value[:_DRAWS] for name, value in draws.random.items()}
    if not plan.is_point:
        values |= _drawn_assignments(climb, q)
    return np.asarray(estimates(_at(climb), q, in_jax(free), values, climb.rows), float)


def _drawn_assignments(climb: Climb, q: Float[np.ndarray, "N K"]) -> dict[str, np.ndarray]:
    """Draws of the assignments from q by the inverse of its distribution function, by site."""
    latents = climb.numpyro.latents
    shares = np.random.default_rng(0).random((_DRAWS, len(q)))
    joint = (shares[:, :, None] * q.sum(1)[:, None] >= q.cumsum(1)[None, :, :-1]).sum(2)
    each = np.unravel_index(joint, [len(latent.values) for latent in latents])
    return {
        latent.name: np.asarray(latent.values)[index].reshape(_DRAWS, *latent.shape)
        for latent, index in zip(latents, each, strict=True)
    }


class Estimates(NamedTuple):
    """Of draws of the parameters from q: estimates of F, nats, and of every site of q its scores, and the scores times
    the arguments they belong to.
    """

    values: Float[np.ndarray, " S"]
    scores: list[Float[np.ndarray, "S _"]]
    scaled: list[Float[np.ndarray, "S _"]]


def _without_assignments(climb: Climb, draws: Draws) -> Found:
    """F by NumPyro's densities at draws of the parameters, assignments summed over, and without the noise of draws.

    The scores of q have mean zero under it, and so has the product of a score with anything that was drawn before it.
    Near a fixed point what is averaged is a constant and a combination of these, exactly where q is conjugate: what is
    left of it after a regression on them has next to no variance. Source: Ranganath, Gerrish & Blei (2014), Black box
    variational inference, section 3.2 (scores as control variates).
    """
    end = climb.end
    estimates = Estimates(_values(climb, draws), draws.scores, draws.scaled)
    mean, error, num_draws = *_without_noise(estimates), len(estimates.values)
    scale = worst(abs(mean), abs(end.elbo), abs(float(end.bound.expected_log_joint)))
    # Chance counts as rounding does.
    lost = _STANDARD_ERRORS * error + climb.lost(end)
    name = f"E log p(X, T, θ) + H(q) by NumPyro’s densities, {num_draws} draws of θ less their scores, and F"
    yield Check("A6", "", name, relative(mean, end.elbo, scale, lost=lost), SAME, left=mean, right=end.elbo)
    if not error <= _SHARP * scale:
        yield f"A6: F by draws of θ to fewer digits: its standard error is {error:.1e} nats."


def _values(climb: Climb, draws: Draws) -> Float[np.ndarray, " S"]:
    """E_q(T) log p(X, T, theta) - log q(T, theta) at draws of theta, nats."""
    q = climb.q(climb.end)

    @climb.compiled
    def log_densities(
        params: Params, drawn: Params, q: Float[Array, "N K"], data: tuple[Any, ...]
    ) -> Float[Array, " S"]:
        def log_density(drawn: Params) -> Float[Array, ""]:
            at = {**params, **drawn}
            terms = jnp.where(q > 0, q * climb.numpyro.log_joint(at, data), 0.0).sum()
            return terms + climb.numpyro.log_prior(at, data)

        return jax.lax.map(log_density, drawn)

    terms = np.asarray(log_densities(in_jax(climb.end.params), draws.params, q, climb.rows), float)
    return terms + entropy(q) - draws.log_q


def _score(distribution: Any, value: Any) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
    """The derivative of log q(value) in the arguments of q, and times these."""
    leaves, tree = jax.tree.flatten(distribution)
    moving = [place for place, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]

    def log_q(arguments: list[Array]) -> Float[Array, ""]:
        given = list(leaves)
        for place, argument in zip(moving, arguments, strict=True):
            given[place] = argument
        return jax.tree.unflatten(tree, given).log_prob(value).sum()

    at = [jnp.asarray(leaves[place], float) for place in moving]
    score = jax.grad(log_q)(at)
    flat = jnp.concatenate([jnp.ravel(leaf) for leaf in score] or [jnp.zeros(0)])
    return flat, flat * jnp.concatenate([jnp.ravel(leaf) for leaf in at] or [jnp.zeros(0)])


def _base(distribution: Any) -> Any:
    while isinstance(distribution, dist.Independent | dist.ExpandedDistribution):
        distribution = distribution.base_dist
    return distribution


def _num_products(sizes: list[int]) -> int:
    return (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2


def _columns(estimates: Estimates, most: int) -> Iterator[Float[np.ndarray, "S _"]]:
    """What has mean zero under q, as far as there are draws for it: scores, then products of those of two sites."""
    left = most
    for each in (estimates.scores, estimates.scaled):
        size = sum(score.shape[1] for score in each)
        if 0 < size <= left:
            yield np.concatenate(each, axis=1)
            left -= size
    scores = estimates.scores
    if 0 < _num_products([score.shape[1] for score in scores]) <= left:
        for number, later in enumerate(scores):
            for earlier in scores[:number]:
                yield (later[:, :, None] * earlier[:, None, :]).reshape(len(later), -1)


def _without_noise(estimates: Estimates) -> tuple[float, float]:
    """The mean of the estimates and its standard error, after a regression on what is known to have mean zero: the
    intercept, by what these leave of a column of ones.
    """
    values, num_draws = estimates.values, len(estimates.values)
    around = float(values.mean())
    columns = np.concatenate([np.zeros((num_draws, 0)), *_columns(estimates, num_draws // 2)], axis=1)
    spreads = np.sqrt((columns**2).mean(0))
    usable = np.isfinite(spreads) & (spreads > 0)
    # With pivots: scores of arguments that say the same are equal.
    factors: Any = scipy.linalg.qr(columns[:, usable] / spreads[usable], mode="economic", pivoting=True)
    basis, triangle = factors[:2]
    sizes = np.abs(np.diag(triangle))
    basis = basis[:, sizes > 1e-10 * sizes[:1]]
    ones = np.ones(num_draws)
    ones -= basis @ (basis.T @ ones)
    rest = values - around
    rest -= basis @ (basis.T @ rest)
    size = float(ones @ ones)
    intercept = float(ones @ rest) / size
    variance = float(((rest - intercept * ones) ** 2).sum()) / (num_draws - basis.shape[1] - 1)
    return around + intercept, float(np.sqrt(variance / size))
