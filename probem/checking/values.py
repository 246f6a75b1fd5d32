"""What the bound is, at given q and parameters: the table, F and its gap, the best q, slopes, the evidence."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from probem.checking.climb import (
    Climb,
    Found,
    divergence_of_rows,
    entropy,
    expected,
    in_jax,
    log_posterior,
    possible,
)
from probem.checking.evaluate import log_joint
from probem.checking.evidence import evidence
from probem.checking.oracle import constrained, free
from probem.checking.report import Check
from probem.checking.residuals import ROUNDING, SAME, difference, excess, relative, share, worst
from probem.errors import InputError
from probem.families.annealed import Annealed
from probem.families.assignments import AssignmentFamily, Categorical, Delta, Tempered, TopC
from probem.fitting.fit import fit as fit_program
from probem.solver.result import Result

# Labellings for which the exact evidence is worth a second.
_FEW_LABELLINGS = 4096
# Unconstrained parameters of which a Hessian is formed, and the part of its size by which a difference moves one.
_MOST_FREE, _DIFFERENCE = 200, 1e-5
# Those among which a simplex finds its way, the size of the first, relative to 1 and their values, and how often a step
# is halved.
_MOST_SEARCHED, _SEARCHED, _HALVINGS = 20, 0.05, 40
# Below a log density that is no number, as far as the search is concerned.
_HUGE = 1e300


def table(climb: Climb) -> Found:
    """log p(x_n, t_n = k) at the start and at the end: of probem by the program, and from its fast path, against the
    oracle.
    """
    for where, fit in (("start", climb.start), ("end", climb.end)):
        theirs, ours = climb.log_joint(fit), climb.own(fit).table
        lost = climb.lost_entries(fit)
        finite = np.isfinite(theirs)
        apart = share(difference(ours, theirs), np.maximum(np.where(finite, np.abs(theirs), 0.0), 1.0), lost)
        yield Check("table", "", f"the table, and the oracle’s, {where}", worst(apart), SAME)
        if climb.has_points:
            densities = np.logaddexp.reduce(theirs, axis=1)
            apart_by = difference(np.asarray(fit.log_density(*climb.data), float), densities)
            of_rows = (np.exp(log_posterior(theirs)) * lost).sum(1)
            apart = share(apart_by, np.maximum(np.abs(densities), 1.0), of_rows)
            yield Check("table", "", f"log p(x) of every row, and the oracle’s, {where}", worst(apart), SAME)


def bound_and_gap(climb: Climb) -> Found:
    """A1: F + sum KL(q || posterior) = log p(X), for random q, and for the q of the fit by its own F and gap."""
    for where, fit in (("start", climb.start), ("end", climb.end)):
        evidence_there, prior = climb.log_likelihood(fit), climb.log_prior(fit)
        posterior = log_posterior(climb.log_joint(fit))
        own = climb.own(fit)
        for q, left in zip(own.each_q, own.bounds, strict=True):
            gap = divergence_of_rows(q, posterior)
            lost = climb.lost(fit, q=q)
            residual = relative(left + gap, evidence_there + prior, left, gap, lost=lost)
            name = f"F + gap of a random q, and log p(X, θ), {where}"
            yield Check("A1", "", name, residual, SAME, left=left + gap, right=evidence_there + prior)
        projects = climb.plan.only_projects if where == "start" else climb.ends_with_projection
        if climb.has_points and projects:
            gap = divergence_of_rows(climb.q(fit), posterior)
            residual = relative(fit.elbo + gap, evidence_there + prior, gap, lost=climb.lost(fit))
            name = f"F of the fit + gap, and log p(X, θ), {where}"
            yield Check("A1", "", name, residual, SAME, left=fit.elbo + gap, right=evidence_there + prior)


def posterior_is_best(climb: Climb) -> Found:
    """A2: no other q of the family has a higher F; where every q is allowed, the best is the posterior."""
    if not climb.has_points:
        yield "A2: the best q beside full posteriors, which have no table at one θ; G1 has its gains."
        return
    for where, fit in (("start", climb.start), ("end", climb.end)):
        theirs, q = climb.log_joint(fit), climb.q(fit)
        if climb.plan.is_exact:
            best, lost = np.exp(log_posterior(theirs)), climb.lost_entries(fit)
            # A log joint that is off moves its q by as much, times q (1 - q).
            moved = best * (lost + (best * lost).sum(1, keepdims=True))
            name = f"q of the E half-step, and the posterior, {where}"
            yield Check("A2", "", name, worst(share(q - best, 1.0, moved)), SAME)
        elif (highest := _highest(climb.plan.family, theirs)) is not None:
            reached = expected(q, theirs) + float(climb.plan.family.entropy_weight) * entropy(q)
            # Ties, and what rounds to one, may go either way: what is chosen is as high as the highest.
            name = f"what q of the family maximises, and its maximum, {where}"
            residual = relative(reached, highest, expected(q, theirs), lost=climb.lost(fit))
            yield Check("A2", "", name, residual, SAME, left=reached, right=highest)
        if not isinstance(climb.plan.family, Categorical | Delta):
            continue
        at_best = expected(q, theirs) + entropy(q)
        others = [_nearby(climb, q, theirs, step) for step in (1e-4, 1e-2, 0.5)]
        most = worst([expected(other, theirs) + entropy(other) - at_best for other in others])
        above = float(share(excess(most), at_best, climb.lost(fit), ROUNDING))
        yield Check("A2", "", f"the most by which another q raises F, {where}", above, ROUNDING, left=most, right=0.0)
    if not isinstance(climb.plan.family, Categorical | Delta | Tempered | TopC | Annealed):
        yield f"A2: whether {climb.plan.family!r} takes its best q, which it alone knows."


def _highest(family: AssignmentFamily, table: Float[np.ndarray, "N K"]) -> float | None:
    """The highest that a q of a family brings what it maximises to, nats; None where the family alone knows."""
    if isinstance(family, Delta):
        return float(table.max(1).sum())
    if isinstance(family, TopC):
        return float(np.logaddexp.reduce(np.sort(table, axis=1)[:, -family.num_kept :], axis=1).sum())
    if isinstance(family, Tempered | Annealed):
        beta = float(family.beta if isinstance(family, Tempered) else family.stop)
        return float(np.logaddexp.reduce(beta * table, axis=1).sum() / beta)
    return None


def _nearby(climb: Climb, q: Float[np.ndarray, "N K"], table: Float[np.ndarray, "N K"], step: float) -> Any:
    """A q that is moved; of a point mass another point mass."""
    if isinstance(climb.plan.family, Delta):
        moved = climb.generator.random(len(q)) < step
        other = np.eye(q.shape[1])[climb.generator.integers(q.shape[1], size=len(q))]
        moved &= np.isfinite((np.where(np.isfinite(table), table, -np.inf) * (other > 0)).sum(1, where=other > 0))
        return np.where(moved[:, None], other, q)
    other = possible(climb.generator.dirichlet(np.ones(q.shape[1]), len(q)), table)
    return (1 - step) * q + step * other


def fisher(climb: Climb) -> Found:
    """A5: grad log p(X | θ) = E_posterior[grad log p(X, T | θ)], and nil where EM stops inside the constraints."""
    if not climb.has_points:
        yield "A5: Fisher’s identity, which is about one θ, beside full posteriors."
        return
    constraints = climb.numpyro.constraints
    if not constraints:
        yield "A5: a program without parameters has no slope."
        return

    def marginal(values: Mapping[str, Any], data: tuple[Any, ...]) -> Float[Array, ""]:
        return climb.oracle.log_likelihood(constrained(constraints, values), data)

    def joint(values: Mapping[str, Any], posterior: Float[Array, "N K"], data: tuple[Any, ...]) -> Float[Array, ""]:
        theirs = log_joint(climb.program, constrained(constraints, values), *data)
        return jnp.where(posterior > 0, posterior * theirs, 0.0).sum()

    @climb.compiled
    def slopes(
        params: Mapping[str, Any], weights: Float[Array, "N K"], signed: Float[Array, "N K"], data: tuple[Any, ...]
    ) -> Any:
        values, slope = free(constraints, params), jax.grad(joint)
        return jax.grad(marginal)(values, data), slope(values, weights, data), slope(values, signed, data)

    for where, fit in (("start", climb.start), ("end", climb.end)):
        if any(np.any(mask) for mask in fit.at_boundary.values()):
            yield f"A5: slopes at the {where}, where parameters lie on an edge of their constraints."
            continue
        posterior = np.exp(log_posterior(climb.log_joint(fit)))
        # Slopes cancel at a maximum. They are as exact as their terms, of which a sum with signs at random has the
        # size, and as the posterior that weighs them.
        weights = posterior * (1 + climb.lost_entries(fit) / SAME)
        signed = weights * climb.generator.choice([-1.0, 1.0], weights.shape)
        try:
            sides = slopes(in_jax(fit.params), posterior, signed, climb.rows)
        except jax.errors.TracerArrayConversionError:
            yield "A5: slopes of an oracle that is no function of JAX."
            return
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(sides[0])):
            yield f"A5: slopes at the {where}, where the oracle’s derivatives of log p(X) are no numbers."
            continue
        apart = [
            share(np.abs(np.asarray(left) - right).max(), worst(np.abs(left), np.abs(terms)))
            for left, right, terms in zip(*map(jax.tree.leaves, sides), strict=True)
            if np.size(left)
        ]
        yield Check("A5", "", f"slope of log p(X), and E slope of log p(X, T), {where}", worst(apart), SAME)


def promised(climb: Climb) -> Found:
    """G14: what a Newton step in all parameters still promises where the fit says that it has converged, nats; beside
    corners of the log density, or where it has no curvature, what a search from there gains.
    """
    end, plan = climb.end, climb.plan
    if not climb.has_points:
        yield "G14: a Newton step in one θ, beside full posteriors."
        return
    if plan.is_stochastic:
        yield "G14: the nats that a Newton step promises: an average over draws is no maximum."
        return
    if end.result is not Result.CONVERGED:
        ended = end.result.name if end.result else "a stream"
        yield f"G14: the nats that a Newton step promises: the fit ended as {ended}."
        return
    if any(np.any(mask) for mask in end.at_boundary.values()):
        yield "G14: the nats that a Newton step promises: parameters lie on an edge of their constraints."
        return
    constraints, params, q = climb.numpyro.constraints, in_jax(end.params), climb.q(end)
    shapes = jax.eval_shape(functools.partial(free, constraints), params)
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    if not 0 < size <= _MOST_FREE:
        yield f"G14: a Newton step in {size} parameters (at most {_MOST_FREE})."
        return

    def objective(values: Mapping[str, Any], q: Float[Array, "N K"], data: tuple[Any, ...]) -> Float[Array, ""]:
        params = constrained(constraints, values)
        if plan.is_exact:
            return climb.oracle.log_likelihood(params, data) + climb.numpyro.log_prior(params, data)
        table = climb.oracle.log_joint(params, data)
        return jnp.where(q > 0, q * table, 0.0).sum() + climb.numpyro.log_prior(params, data)

    def derivatives(
        params: Mapping[str, Any], q: Float[Array, "N K"], data: tuple[Any, ...], by_differences: bool = False
    ) -> tuple[Float[Array, " P"], Float[Array, " P"], Float[Array, "P P"]]:
        flat, unravel = ravel_pytree(free(constraints, params))
        return flat, *_slope_and_curvature(lambda at: objective(unravel(at), q, data), flat, by_differences)

    @climb.compiled
    def height(
        params: Mapping[str, Any], away: Float[Array, " P"], q: Float[Array, "N K"], data: tuple[Any, ...]
    ) -> Float[Array, ""]:
        flat, unravel = ravel_pytree(free(constraints, params))
        return objective(unravel(flat + away), q, data)

    try:
        try:
            flat, slope, curvature = climb.compiled(derivatives)(params, q, climb.rows)
        except TypeError:
            by_differences = functools.partial(derivatives, by_differences=True)
            flat, slope, curvature = climb.compiled(by_differences)(params, q, climb.rows)
    except jax.errors.TracerArrayConversionError:
        yield "G14: the nats that a Newton step promises by an oracle that is no function of JAX."
        return
    if not (np.isfinite(slope).all() and np.isfinite(curvature).all()):
        yield "G14: a Newton step where the oracle’s derivatives of log p(X, θ) are no numbers."
        return
    slope, curvature = np.asarray(slope), np.asarray(curvature)
    if not curvature.any() and not slope.any():
        yield "G14: a Newton step where log p(X, θ) is flat: no density depends on a parameter."
        return
    nats, step = _newton(slope, curvature)
    # What the default rule of convergence allows, a rise of 1e-10 nats a row, and what is lost in rounding.
    allowed = 10 * 1e-10 * climb.numpyro.num_rows + 1e3 * ROUNDING * abs(end.elbo) + climb.lost(end)
    if nats > allowed or not step.any():
        # Of a corner, where a Laplace density has its mode on a row, or a slope without an end, derivatives say little.
        gained = _gained(lambda away: float(height(params, away, q, climb.rows)), np.asarray(flat), (step, slope))
        if gained <= allowed < nats:
            yield (
                f"G14: the {nats:.2g} nats that a Newton step promises, which no step gains: log p(X, θ) has a corner"
                " there. What a search gains is compared."
            )
        nats = gained if gained <= allowed or not step.any() else nats
    yield Check("G14", "", "nats that a Newton step promises at the end, and 0", nats, allowed, left=nats, right=0.0)


def _slope_and_curvature(
    height: Callable[[Float[Array, " P"]], Float[Array, ""]], at: Float[Array, " P"], by_differences: bool
) -> tuple[Float[Array, " P"], Float[Array, "P P"]]:
    """First and second derivatives; ``by_differences``: the second by central differences, of a program with a rule for
    reverse mode alone (``jax.custom_vjp``).
    """

    def slope(at: Float[Array, " P"]) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
        found = jax.grad(height)(at)
        return found, found

    if not by_differences:
        curvature, found = jax.jacfwd(slope, has_aux=True)(at)
        return found, curvature
    steps = jnp.diag(_DIFFERENCE * (1 + jnp.abs(at)))
    each = jax.lax.map(lambda step: (slope(at + step)[0] - slope(at - step)[0]) / (2 * step.sum()), steps)
    return slope(at)[0], (each + each.T) / 2


def _newton(
    slope: Float[np.ndarray, " P"], curvature: Float[np.ndarray, "P P"]
) -> tuple[float, Float[np.ndarray, " P"]]:
    """What the quadratic rises by in the directions in which it has a maximum, nats, and the step there."""
    scales, directions = np.linalg.eigh(-curvature)
    along = directions.T @ slope
    curved = scales > 1e-9 * np.abs(scales).max()
    step = directions[:, curved] @ (along[curved] / scales[curved])
    return float((along[curved] ** 2 / (2 * scales[curved])).sum()), step


def _gained(
    height: Callable[[Any], float], flat: Float[np.ndarray, " P"], directions: Sequence[Float[np.ndarray, " P"]]
) -> float:
    """The most that is gained by steps along the directions and the parameters, and of few parameters by the simplex of
    Nelder and Mead, which asks for no derivative; nats. ``height`` is that so far away, NaN if that is no number.
    """
    start, (_, slope) = height(np.zeros(flat.size)), directions
    if not np.isfinite(start):
        return np.nan
    steps = [0.5**halvings * each for each in (*directions, *np.diag(slope)) for halvings in range(_HALVINGS)]
    gains = np.array([height(step) - start for step in steps])
    if flat.size <= _MOST_SEARCHED:
        from scipy.optimize import minimize

        lengths = _SEARCHED * (1 + np.abs(flat))
        simplex = np.vstack([np.zeros(flat.size), np.diag(np.where(slope < 0, -lengths, lengths))])
        options = {"initial_simplex": simplex, "maxfev": 200 * flat.size, "xatol": 0, "fatol": 1e-12, "adaptive": True}

        def depth(away: Float[np.ndarray, " P"]) -> float:
            there = height(away)
            return start - there if np.isfinite(there) else _HUGE

        found = minimize(depth, np.zeros(flat.size), method="Nelder-Mead", options=options)
        gains = np.append(gains, -found.fun)
    # What is no number is no rise.
    return worst(np.where(gains > 0, gains, 0.0))


def below_evidence(climb: Climb) -> Found:
    """E1: F of full posteriors is below the exact log evidence, of as many rows as can be enumerated in a second."""
    if climb.has_points:
        yield "E1: the exact evidence, an integral over θ, which F at one θ does not bound."
        return
    num_rows, num_components = climb.numpyro.num_rows, climb.plan.num_components
    if num_components > 1:
        num_rows = int(np.minimum(num_rows, np.log(_FEW_LABELLINGS) / np.log(num_components) + 1e-9))
    rows = jax.tree.map(lambda leaf: leaf[:num_rows], climb.data)
    options = {name: value for name, value in climb.options.items() if name != "init"}
    try:
        exact = evidence(climb.program, *rows)
        end = climb.end
        if num_rows < climb.numpyro.num_rows:
            end = fit_program(climb.program, *rows, **options, throw=False)
    except InputError as refused:
        yield f"E1: {refused}"
        return
    lost = climb.lost(climb.end)
    above = float(share(excess(end.elbo, exact), exact, lost, ROUNDING))
    name = f"what F of the first {num_rows} rows has above their exact evidence, and 0"
    yield Check("E1", "", name, above, ROUNDING, left=end.elbo, right=exact)
