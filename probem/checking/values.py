"""What the bound is, at given q and parameters: the table, F and its gap, the best q, slopes, NumPyro's own bound."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.infer import Trace_ELBO, TraceEnum_ELBO

from probem.checking.climb import Climb, divergence_of_rows, entropy, expected, log_posterior
from probem.checking.evaluate import log_joint
from probem.checking.evidence import evidence
from probem.checking.oracle import constrained, free
from probem.checking.report import Comparison
from probem.checking.residuals import ROUNDING, SAME, excess, relative, worst
from probem.errors import InputError
from probem.families.assignments import AssignmentFamily, Categorical, Delta, Tempered, TopC
from probem.fitting.fit import fit as fit_program
from probem.jit.compilation import Effort, compiler_options
from probem.jit.tracing import unchecked
from probem.solver.result import Result

#: Comparisons, and sentences about what was not compared.
Found = Iterator[Comparison | str]

# Draws of all latent sites for NumPyro's Monte Carlo bound, and how many standard errors it may be away: by chance
# alone once in sixteen thousand checks.
_DRAWS, _STANDARD_ERRORS = 200, 4.0
# Labellings for which the exact evidence is worth a second.
_FEW_LABELLINGS = 4096
# Unconstrained parameters of which a Hessian is formed.
_MOST_FREE = 200


def table(climb: Climb) -> Found:
    """log p(x_n, t_n = k) at the start and at the end: of probem by the program, and from its fast path, against the
    oracle.
    """
    for where, fit in (("start", climb.start), ("end", climb.end)):
        theirs = climb.log_joint(fit.params)
        ours = np.asarray(climb.own_log_joint(dict(fit.params)), float)
        finite = np.isfinite(theirs)
        size = float(np.abs(theirs[finite]).max(initial=1e-300))
        alike = bool((finite == np.isfinite(ours)).all())
        apart = np.abs(ours[finite] - theirs[finite]).max(initial=0.0) / size if alike else np.inf
        nan = float("nan")
        yield Comparison("table", f"the table, and the oracle’s, {where}", nan, nan, float(apart), SAME)
        if climb.has_points:
            densities = np.logaddexp.reduce(theirs, axis=1)
            apart = np.abs(np.asarray(fit.log_density(*climb.data)) - densities).max() / worst(1.0, np.abs(densities))
            yield Comparison("table", f"log p(x) of every row, and the oracle’s, {where}", nan, nan, float(apart), SAME)


def random_q(generator: np.random.Generator, shape: tuple[int, int]) -> Iterator[Float[np.ndarray, "N K"]]:
    """From nearly uniform to nearly certain, and a point mass."""
    num_rows, num_components = shape
    for concentration in (20.0, 1.0, 0.05):
        yield generator.dirichlet(np.full(num_components, concentration), num_rows)
    yield np.eye(num_components)[generator.integers(num_components, size=num_rows)]


def _possible(q: Float[np.ndarray, "N K"], table: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """A q without what is impossible; the posterior's mode where nothing else is left."""
    mode = np.eye(q.shape[1])[table.argmax(1)]
    possible = np.where(np.isfinite(table), q, 0.0)
    left = possible.sum(1, keepdims=True)
    return np.where(left > 0, possible / np.where(left > 0, left, 1.0), mode)


def bound_and_gap(climb: Climb) -> Found:
    """A1: F + sum KL(q || posterior) = log p(X), for random q, and for the q of the fit by its own F and gap."""
    for where, fit in (("start", climb.start), ("end", climb.end)):
        theirs, evidence_there = climb.log_joint(fit.params), climb.log_likelihood(fit.params)
        prior = climb.log_prior(fit.params)
        posterior = log_posterior(theirs)
        # A q on what is impossible has no finite F.
        each = [_possible(q, theirs) for q in random_q(climb.generator, theirs.shape)]
        for q, left in zip(each, np.asarray(climb.own_bounds(dict(fit.params), np.stack(each))).tolist(), strict=True):
            gap = divergence_of_rows(q, posterior)
            residual = relative(left + gap, evidence_there + prior, left, gap)
            name = f"F + gap of a random q, and log p(X, θ), {where}"
            yield Comparison("A1", name, left + gap, evidence_there + prior, residual, SAME)
        if climb.has_points and not climb.plan.is_stochastic:
            gap = divergence_of_rows(climb.q(fit), posterior)
            residual = relative(fit.elbo + gap, evidence_there + prior, gap)
            name = f"F of the fit + gap, and log p(X, θ), {where}"
            yield Comparison("A1", name, fit.elbo + gap, evidence_there + prior, residual, SAME)


def posterior_is_best(climb: Climb) -> Found:
    """A2: no other q of the family has a higher F; where every q is allowed, the best is the posterior."""
    if not climb.has_points:
        yield "A2: the best q beside full posteriors, which have no table at one θ; G1 has its gains."
        return
    nan = float("nan")
    for where, fit in (("start", climb.start), ("end", climb.end)):
        theirs, q = climb.log_joint(fit.params), climb.q(fit)
        if climb.plan.is_exact:
            apart = float(np.abs(q - np.exp(log_posterior(theirs))).max())
            yield Comparison("A2", f"q of the E half-step, and the posterior, {where}", nan, nan, apart, SAME)
        elif (highest := _highest(climb.plan.family, theirs)) is not None:
            reached = expected(q, theirs) + float(climb.plan.family.entropy_weight) * entropy(q)
            # Ties, and what rounds to one, may go either way: what is chosen is as high as the highest.
            name = f"what q of the family maximises, and its maximum, {where}"
            yield Comparison("A2", name, reached, highest, relative(reached, highest, expected(q, theirs)), SAME)
        if not isinstance(climb.plan.family, Categorical | Delta):
            continue
        at_best = expected(q, theirs) + entropy(q)
        others = [_nearby(climb, q, theirs, step) for step in (1e-4, 1e-2, 0.5)]
        most = worst([expected(other, theirs) + entropy(other) - at_best for other in others])
        yield Comparison(
            "A2", f"the most by which another q raises F, {where}", most, 0.0, excess(most) / abs(at_best), ROUNDING
        )
    if not isinstance(climb.plan.family, Categorical | Delta | Tempered | TopC):
        yield f"A2: whether {climb.plan.family!r} takes its best q, which it alone knows."


def _highest(family: AssignmentFamily, table: Float[np.ndarray, "N K"]) -> float | None:
    """The highest that a q of a family brings what it maximises to, nats; None where the family alone knows."""
    if isinstance(family, Delta):
        return float(table.max(1).sum())
    if isinstance(family, TopC):
        return float(np.logaddexp.reduce(np.sort(table, axis=1)[:, -family.num_kept :], axis=1).sum())
    if isinstance(family, Tempered):
        beta = float(family.beta)
        return float(np.logaddexp.reduce(beta * table, axis=1).sum() / beta)
    return None


def _nearby(climb: Climb, q: Float[np.ndarray, "N K"], table: Float[np.ndarray, "N K"], step: float) -> Any:
    """A q that is moved; of a point mass another point mass."""
    if isinstance(climb.plan.family, Delta):
        moved = climb.generator.random(len(q)) < step
        other = np.eye(q.shape[1])[climb.generator.integers(q.shape[1], size=len(q))]
        moved &= np.isfinite((np.where(np.isfinite(table), table, -np.inf) * (other > 0)).sum(1, where=other > 0))
        return np.where(moved[:, None], other, q)
    other = _possible(climb.generator.dirichlet(np.ones(q.shape[1]), len(q)), table)
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

    def marginal(values: Mapping[str, Any]) -> Float[Array, ""]:
        return climb.oracle.log_likelihood(constrained(constraints, values))

    def joint(values: Mapping[str, Any], posterior: Float[Array, "N K"]) -> Float[Array, ""]:
        with unchecked():
            theirs = log_joint(climb.program, constrained(constraints, values), *climb.data)
        return jnp.where(posterior > 0, posterior * theirs, 0.0).sum()

    sides = jax.jit(
        lambda values, posterior: (jax.grad(marginal)(values), jax.grad(joint)(values, posterior)),
        compiler_options=compiler_options(Effort.LEAST),
    )
    sizes = []
    for where, fit in (("start", climb.start), ("end", climb.end)):
        if any(np.any(mask) for mask in fit.at_boundary.values()):
            yield f"A5: slopes at the {where}, where parameters lie on an edge of their constraints."
            continue
        values = free(constraints, fit.params)
        try:
            left, right = sides(values, np.exp(log_posterior(climb.log_joint(fit.params))))
        except jax.errors.TracerArrayConversionError:
            yield "A5: slopes of an oracle that is no function of JAX."
            return
        first, second = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(side)]) for side in (left, right))
        size = worst(np.abs(first), sizes, 1e-300)
        sizes.append(size)
        # Slopes at the end cancel; they are as exact as their terms, which are as large as at the start, or as a row.
        scale = worst(size, climb.numpyro.num_rows * 1e-3)
        apart = float(np.abs(first - second).max()) / scale
        nan = float("nan")
        yield Comparison("A5", f"slope of log p(X), and E slope of log p(X, T), {where}", nan, nan, apart, SAME)


def promised(climb: Climb) -> Found:
    """G14: what a Newton step in all parameters still promises where the fit says that it has converged, nats."""
    end, plan = climb.end, climb.plan
    if not climb.has_points:
        yield "G14: a Newton step in one θ, beside full posteriors."
        return
    if end.result is not Result.CONVERGED:
        ended = end.result.name if end.result else "a stream"
        yield f"G14: the nats that a Newton step promises: the fit ended as {ended}."
        return
    if any(np.any(mask) for mask in end.at_boundary.values()):
        yield "G14: the nats that a Newton step promises: parameters lie on an edge of their constraints."
        return
    constraints, q = climb.numpyro.constraints, climb.q(end)
    flat, unravel = ravel_pytree(free(constraints, end.params))
    if not 0 < flat.size <= _MOST_FREE:
        yield f"G14: a Newton step in {flat.size} parameters (at most {_MOST_FREE})."
        return

    def objective(values: Float[Array, " P"]) -> Float[Array, ""]:
        params = constrained(constraints, unravel(values))
        if plan.is_exact:
            return climb.oracle.log_likelihood(params) + climb.numpyro.log_prior(params)
        table = climb.oracle.log_joint(params)
        return jnp.where(q > 0, q * table, 0.0).sum() + climb.numpyro.log_prior(params)

    try:
        derivatives = jax.jit(
            lambda at: (jax.grad(objective)(at), jax.hessian(objective)(at)),
            compiler_options=compiler_options(Effort.LEAST),
        )
        slope, curvature = derivatives(flat)
    except jax.errors.TracerArrayConversionError:
        yield "G14: the nats that a Newton step promises by an oracle that is no function of JAX."
        return
    scales, directions = np.linalg.eigh(-np.asarray(curvature))
    along = directions.T @ np.asarray(slope)
    curved = scales > 1e-9 * np.abs(scales).max()
    nats = float((along[curved] ** 2 / (2 * scales[curved])).sum())
    # What the default rule of convergence allows, a rise of 1e-10 nats a row, and what is lost in rounding.
    allowed = 10 * 1e-10 * climb.numpyro.num_rows + 1e3 * ROUNDING * abs(end.elbo)
    yield Comparison("G14", "nats that a Newton step promises at the end, and 0", nats, 0.0, nats, allowed)


def numpyros_own(climb: Climb) -> Found:
    """A6: F is NumPyro's bound with the guide of the fit: enumerated where all parameters are points, else by draws."""
    end, plan = climb.end, climb.plan
    if plan.is_stochastic:
        yield "A6: a guide for assignments that are drawn."
        return
    single = len(plan.program.assignments) == 1
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
        # A single component is no choice: every draw is the sum over it, and NumPyro enumerates none.
        if climb.has_points and single and plan.num_components > 1:
            try:
                bound = TraceEnum_ELBO(max_plate_nesting=climb.numpyro.depth).loss
                computed = _computed(guide, data)
                with unchecked():
                    theirs = -float(bound(jax.random.key(0), params, climb.numpyro.program, computed, *data))
            except (ImportError, ValueError, NotImplementedError) as refused:
                yield f"A6: NumPyro’s enumerated bound, which says: {refused}"
                return
            if not np.isfinite(theirs) and not np.isfinite(climb.log_joint(end.params)).all():
                yield "A6: NumPyro’s enumerated bound, which multiplies what is impossible by a q of zero."
                return
            residual = relative(theirs, end.elbo)
            yield Comparison("A6", "NumPyro’s ELBO of the guide, and F", theirs, end.elbo, residual, SAME)
            return
        # NumPyro puts a value that is named in the place of a draw: what the guide draws must not be among them.
        params = {site.name: params[site.name] for site in plan.program.globals if not site.has_prior}
        drawn = {f"NumPyro’s ELBO of the guide, {_DRAWS} draws": _drawn(climb, guide, params, data)}
        if not climb.has_points:
            name = f"E log p(X, T, θ) + H(q) by NumPyro’s densities, {_DRAWS} draws of θ"
            drawn[name] = _drawn_parameters(climb, params, data)
    for name, values in drawn.items():
        mean, error = float(values.mean()), float(values.std() / np.sqrt(len(values)))
        apart = abs(mean - end.elbo) / worst(error, SAME * abs(end.elbo))
        yield Comparison("A6", f"{name}, and F, in standard errors", mean, end.elbo, apart, _STANDARD_ERRORS)


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


def _drawn_parameters(climb: Climb, params: Mapping[str, Any], data: tuple[Any, ...]) -> Float[np.ndarray, " S"]:
    """Estimates of F from one draw of the parameters each, nats; assignments are summed over, so that the estimates
    differ by little, and under a single conjugate posterior not at all.
    """
    q = climb.q(climb.end)
    guide, names = climb.end.guide(assignments=False), climb.numpyro.constraints

    def estimate(key: Any) -> Float[Array, ""]:
        sites = handlers.trace(handlers.seed(guide, key)).get_trace(*data)
        drawn = {name: site for name, site in sites.items() if site["type"] == "sample"}
        log_q = sum((site["fn"].log_prob(site["value"]).sum() for site in drawn.values()), jnp.zeros(()))
        at = {**params, **{name: site["value"] for name, site in sites.items() if name in names}}
        terms = jnp.where(q > 0, q * climb.numpyro.log_joint(at), 0.0).sum()
        return terms + entropy(q) + climb.numpyro.log_prior(at) - log_q

    @jax.jit
    def estimates(keys: Any) -> Any:
        with unchecked():
            return jax.lax.map(estimate, keys)

    return np.asarray(estimates(jax.random.split(jax.random.key(0), _DRAWS)), float)


def below_evidence(climb: Climb) -> Found:
    """E1: F of full posteriors is below the exact log evidence, of as many rows as can be enumerated in a second."""
    if climb.has_points:
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
    above = excess(end.elbo, exact) / abs(exact)
    name = f"what F of the first {num_rows} rows has above their exact evidence, and 0"
    yield Comparison("E1", name, end.elbo, exact, above, ROUNDING)
