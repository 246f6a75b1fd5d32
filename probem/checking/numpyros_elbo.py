"""F beside NumPyro's bound of the guide: enumerated, by draws of everything, and by draws without their noise."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.infer import Trace_ELBO, TraceEnum_ELBO

from probem.checking.climb import Climb, Found, entropy, expected
from probem.checking.report import Check
from probem.checking.residuals import SAME, relative, worst
from probem.errors import InputError
from probem.jit.tracing import unchecked

# Draws of all latent sites for NumPyro's Monte Carlo bound, and how many standard errors it may be away: by chance
# alone once in sixteen thousand checks.
_DRAWS, _STANDARD_ERRORS = 200, 4.0
# Scores by which draws are freed of noise, at most, and the draws for each of them.
_MOST_SCORES, _FOR_EACH = 400, 4
# Log joints of rows and components that all draws take together, at most: a second or so.
_MOST_DENSITIES = 2 * 10**7
# A bound by draws that is known to a worse share than this is said to be.
_SHARP = 1e-6


def of_the_guide(climb: Climb) -> Found:
    """A6: F is NumPyro's bound with the guide of the fit: by enumeration where all parameters are points, else by
    draws.
    """
    end = climb.end
    if climb.plan.is_stochastic:
        yield "A6: a guide for assignments that are drawn."
        return
    try:
        guide = end.guide()
    except InputError as refused:
        yield f"A6: {refused}"
        return
    data = tuple(jax.tree.map(jnp.asarray, climb.data))
    params = {name: jnp.asarray(value) for name, value in end.params.items()}
    with warnings.catch_warnings():
        # NumPyro warns of sites that the guide leaves to the model.
        warnings.simplefilter("ignore")
        if climb.has_points:
            yield from _of_points(climb, guide, params, data)
            return
        # NumPyro puts a value that is named in the place of a draw: what the guide draws must not be among them.
        params = {site.name: params[site.name] for site in climb.plan.program.globals if not site.has_prior}
        values = _drawn(climb, guide, params, data)
    mean, error = float(values.mean()), float(values.std() / np.sqrt(len(values)))
    apart = abs(mean - end.elbo) / worst(error, SAME * abs(end.elbo))
    name = f"NumPyro’s ELBO of the guide, {_DRAWS} draws, and F, in standard errors"
    yield Check("A6", "", name, apart, _STANDARD_ERRORS, left=mean, right=end.elbo)
    yield from _of_posteriors(climb, params, data)


def _of_points(climb: Climb, guide: Callable[..., Any], params: Mapping[str, Any], data: tuple[Any, ...]) -> Found:
    """By NumPyro's enumeration, and where it has none, of several assignments, a single component or values that are
    impossible, by the log density of the guide at every value.
    """
    end, theirs, name = climb.end, np.nan, "NumPyro’s ELBO of the guide, and F"
    enumerates = len(climb.plan.program.assignments) == 1 and climb.plan.num_components > 1
    if enumerates:
        try:
            bound = TraceEnum_ELBO(max_plate_nesting=climb.numpyro.depth).loss
            with unchecked():
                computed = _computed(guide, data)
                theirs = -float(bound(jax.random.key(0), dict(params), climb.numpyro.program, computed, *data))
        except (ImportError, ValueError, NotImplementedError) as refused:
            yield f"A6: NumPyro’s enumerated bound, which says: {refused}"
            return
    if not np.isfinite(theirs):
        table = np.asarray(climb.numpyro.log_joint(params), float)
        possible = np.isfinite(table)
        # NumPyro multiplies what is impossible by a q of zero.
        if not (enumerates and possible.all()):
            log_q = _log_guide(climb, guide, data)
            q = np.where(possible, np.exp(log_q), 0.0)
            theirs = expected(q, table) - expected(q, log_q) + climb.log_prior(params)
            name = "E log p(X, T) - log q(T) by NumPyro’s densities of program and guide, and F"
    residual = relative(theirs, end.elbo, end.bound.expected_log_joint, lost=climb.lost(end))
    yield Check("A6", "", name, residual, SAME, left=theirs, right=end.elbo)


def _computed(guide: Callable[..., Any], data: tuple[Any, ...]) -> Callable[..., None]:
    """The guide with its q computed once, so that NumPyro's bound is formed around it."""
    sites = handlers.trace(handlers.seed(guide, 0)).get_trace(*data)
    kept = {name: site for name, site in sites.items() if site["type"] == "sample"}

    def constant(*data: Any) -> None:
        for name, site in kept.items():
            with contextlib.ExitStack() as plates:
                for frame in site["cond_indep_stack"]:
                    plates.enter_context(numpyro.plate(frame.name, frame.size, dim=frame.dim))
                numpyro.sample(name, site["fn"], infer=site["infer"])

    return constant


def _log_guide(climb: Climb, guide: Callable[..., Any], data: tuple[Any, ...]) -> Float[np.ndarray, "N K"]:
    """log q(t_n = k) by the guide's own distributions."""
    columns = []
    for sites in climb.numpyro.runs_of(guide, data):
        logs = [sites[latent.name]["fn"].log_prob(sites[latent.name]["value"]) for latent in climb.numpyro.latents]
        columns.append(sum((climb.numpyro.by_row(values) for values in logs), jnp.zeros(climb.numpyro.num_rows)))
    return np.stack([np.asarray(column, float) for column in columns], axis=1)


def _drawn(
    climb: Climb, guide: Callable[..., Any], params: Mapping[str, Any], data: tuple[Any, ...]
) -> Float[np.ndarray, " S"]:
    """NumPyro's estimates of F from one draw of all latent sites each, nats."""
    loss: Any = Trace_ELBO().loss

    @jax.jit
    def estimates(keys: Any) -> Any:
        with unchecked():
            return jax.lax.map(lambda key: -loss(key, dict(params), climb.numpyro.program, guide, *data), keys)

    return np.asarray(estimates(jax.random.split(jax.random.key(0), _DRAWS)), float)


class Estimates(NamedTuple):
    """Of draws of the parameters from q: estimates of F, nats, and of every site of q its scores, and the scores times
    the arguments they belong to.
    """

    values: Float[np.ndarray, " S"]
    scores: list[Float[np.ndarray, "S _"]]
    scaled: list[Float[np.ndarray, "S _"]]


def _of_posteriors(climb: Climb, params: Mapping[str, Any], data: tuple[Any, ...]) -> Found:
    """F by NumPyro's densities at draws of the parameters, assignments summed over, and without the noise of draws.

    The scores of q have mean zero under it, and so has the product of a score with anything that was drawn before it.
    Near a fixed point what is averaged is a constant and a combination of these, exactly where q is conjugate: what is
    left of it after a regression on them has next to no variance. Source: Ranganath, Gerrish & Blei (2014), Black box
    variational inference, section 3.2 (scores as control variates).
    """
    end = climb.end
    estimates = _estimates(climb, params, data)
    mean, error, num_draws = *_without_noise(estimates), len(estimates.values)
    scale = worst(abs(mean), abs(end.elbo), abs(float(end.bound.expected_log_joint)))
    # Chance counts as rounding does.
    lost = _STANDARD_ERRORS * error + climb.lost(end)
    name = f"E log p(X, T, θ) + H(q) by NumPyro’s densities, {num_draws} draws of θ less their scores, and F"
    yield Check("A6", "", name, relative(mean, end.elbo, scale, lost=lost), SAME, left=mean, right=end.elbo)
    if not error <= _SHARP * scale:
        yield f"A6: F by draws of θ to fewer digits: its standard error is {error:.1e} nats."


def _estimates(climb: Climb, params: Mapping[str, Any], data: tuple[Any, ...]) -> Estimates:
    """Draws of the parameters: more of them where there are more scores."""
    q = climb.q(climb.end)
    guide, names = climb.end.guide(assignments=False), climb.numpyro.constraints

    def estimate(key: Array) -> tuple[Float[Array, ""], list[Any], list[Any]]:
        sites = handlers.trace(handlers.seed(guide, key)).get_trace(*data)
        drawn = {name: site for name, site in sites.items() if site["type"] == "sample"}
        log_q = sum((site["fn"].log_prob(site["value"]).sum() for site in drawn.values()), jnp.zeros(()))
        at = {**params, **{name: site["value"] for name, site in sites.items() if name in names}}
        terms = jnp.where(q > 0, q * climb.numpyro.log_joint(at), 0.0).sum()
        value = terms + entropy(q) + climb.numpyro.log_prior(at) - log_q
        scores, scaled = [], []
        for site in drawn.values():
            if isinstance(_base(site["fn"]), dist.Delta):
                continue
            score, times = _score(site["fn"], site["value"])
            scores.append(score)
            scaled.append(times)
        return value, scores, scaled

    @jax.jit
    def estimates(keys: Any) -> Any:
        with unchecked():
            return jax.lax.map(estimate, keys)

    keys = jax.random.split(jax.random.key(0), _DRAWS)
    with unchecked():
        _, scores, scaled = jax.eval_shape(estimate, keys[0])
    wanted = sum(score.size for score in (*scores, *scaled)) + _num_products([score.size for score in scores])
    affordable = _MOST_DENSITIES // q.size
    num_draws = int(np.maximum(_DRAWS, np.minimum(_FOR_EACH * np.minimum(wanted, _MOST_SCORES), affordable)))
    return Estimates(*jax.tree.map(np.asarray, estimates(jax.random.split(jax.random.key(0), num_draws))))


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
    """The mean of the estimates and its standard error, after a regression on what is known to have mean zero."""
    values, num_draws = estimates.values, len(estimates.values)
    around = float(values.mean())
    columns = np.concatenate([np.zeros((num_draws, 0)), *_columns(estimates, num_draws // 2)], axis=1)
    spreads = np.sqrt((columns**2).mean(0))
    usable = np.isfinite(spreads) & (spreads > 0)
    design = np.concatenate([np.ones((num_draws, 1)), columns[:, usable] / spreads[usable]], axis=1)
    # By the singular values: scores of arguments that say the same are equal.
    left, sizes, right = np.linalg.svd(design, full_matrices=False)
    kept = sizes > 1e-10 * sizes[0]
    left, intercepts = left[:, kept], right[kept, 0] / sizes[kept]
    inside = left.T @ (values - around)
    rest = values - around - left @ inside
    variance = float((rest**2).sum()) / (num_draws - left.shape[1])
    return around + float(intercepts @ inside), float(np.sqrt(variance * (intercepts**2).sum()))
