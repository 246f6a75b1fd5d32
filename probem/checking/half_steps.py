"""What becomes of F half-step by half-step: it never falls, and what it gains is a divergence."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers

from probem.checking.climb import Climb, Found, divergence_of_rows, entropy, expected, in_jax, log_posterior
from probem.checking.divergence import divergence
from probem.checking.report import Check
from probem.checking.residuals import ROUNDING, SAME, excess, relative, share, worst
from probem.fitting.fit import fit as fit_program
from probem.jit.compilation import Effort, by_plan
from probem.jit.tracing import isolated
from probem.mean_field import distributions
from probem.mean_field.locations import TiedLocation
from probem.plan.coordinates import LEAST_RATIO
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results.fit import Fit
from probem.solver.initialisers import Responsibilities

#: Units in which the data is written anew; powers of two, so that rounding is the same.
UNITS = (2.0**-20, 2.0**20)
# Iterations from the same q in every unit.
_UNIT_STEPS = 5


def never_falls(climb: Climb) -> Found:
    """A3: what the family maximises rises, or stays, in every half-step; and is what the oracle says it is."""
    if not climb.plan.only_projects:
        yield f"A3: the rise of F, which may fall while E half-steps {_more_than_project(climb)}."
        return
    history = climb.steps[-1].history
    recorded = history.objective[: 2 * len(climb.steps) - 1]
    size = float(np.abs(recorded).max())
    for number, change in enumerate(np.diff(recorded)):
        half = "ME"[number % 2]
        name = "what a half-step lowers the objective by, and 0"
        fall = float(share(excess(-change), size, climb.lost(climb.steps[(number + 1) // 2]), ROUNDING))
        left, right = float(recorded[number]), float(recorded[number + 1])
        yield Check("A3", "", name, fall, ROUNDING, left=left, right=right, half_step=f"{half} {(number + 1) // 2}")
    if not climb.has_points:
        return
    weight = float(climb.plan.family.entropy_weight)
    tables, assigned = _tables(climb)
    priors = [climb.log_prior(step) for step in climb.steps]
    anew = _judges_anew(climb)
    if anew:
        yield f"A3: F after M half-steps: '{anew}' climbs a gradient, and is judged with q projected anew."
    for number, value in enumerate(recorded):
        step, half = divmod(number, 2)
        if half and anew:
            continue
        q, table, prior = assigned[step], tables[step + half], priors[step + half]
        theirs = expected(q, table) + weight * entropy(q) + prior
        lost = climb.lost(climb.steps[step + half], q=q)
        residual = relative(float(value), theirs, expected(q, table), lost=lost)
        name = "F of a half-step as recorded, and from the oracle’s densities"
        yield Check("A3", "", name, residual, SAME, left=float(value), right=theirs, half_step=f"{'EM'[half]} {step}")


def _more_than_project(climb: Climb) -> str:
    """What E half-steps of a family do beside the projection."""
    if climb.plan.is_stochastic:
        return "draw the assignments"
    return "follow a schedule" if climb.plan.has_schedule else "remember the q before"


def _judges_anew(climb: Climb) -> str:
    """A parameter whose M half-steps are recorded with another q than that of the E half-step before, if any."""
    return climb.plan.gradient[0] if climb.plan.gradient and not climb.plan.gradient_is_multinomial else ""


def _tables(climb: Climb) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The oracle's tables at the parameters of every step, and q there."""
    return [climb.log_joint(step) for step in climb.steps], [climb.q(step) for step in climb.steps]


def gains(climb: Climb) -> Found:
    """G1: the gain of every half-step is a divergence.

    E: sum KL(q_old || posterior) - sum KL(q_new || posterior), of full posteriors KL(q_old || q_new). M: of exponential
    families sum_n E_q KL(p(x_n, t_n | theta_new) || p(x_n, t_n | theta_old)), of full posteriors KL(q_old(theta) ||
    q_new(theta)). Source: Kunstner, Kumar & Schmidt (2021), Homeomorphic-invariance of EM, proposition 1.
    """
    if not climb.plan.only_projects:
        yield f"G1: the gains of E half-steps that {_more_than_project(climb)}."
        return
    yield from _gains_of_e_steps(climb)
    yield from _gains_of_m_steps(climb)


def _gains_of_e_steps(climb: Climb) -> Found:
    if anew := _judges_anew(climb):
        yield f"G1: the gains of E half-steps: '{anew}' climbs a gradient, and is judged with q projected anew."
        return
    elbo = climb.steps[-1].history.elbo
    assigned = [climb.q(step) for step in climb.steps]
    faded: list[str] = []
    for number, new in enumerate(climb.steps[1:]):
        gain = float(elbo[2 * number + 2] - elbo[2 * number + 1])
        if climb.has_points:
            posterior = log_posterior(climb.log_joint(new))
            theirs = divergence_of_rows(assigned[number], posterior) - divergence_of_rows(
                assigned[number + 1], posterior
            )
        elif climb.plan.is_exact:
            before, after = assigned[number : number + 2]
            if ((before > 0) & (after == 0)).any():
                faded.append(f"E {number + 1}")
                continue
            theirs = divergence_of_rows(before, np.log(np.where(after > 0, after, 1.0)))
        else:
            yield "G1: the gains of E half-steps of full posteriors under a restricted q."
            return
        name = "the gain of an E half-step, and its divergence"
        yield Check(
            "G1",
            "",
            name,
            _apart(climb, number, gain, theirs),
            ROUNDING,
            left=gain,
            right=theirs,
            half_step=f"E {number + 1}",
        )
    if faded:
        yield f"G1: the gains of {', '.join(faded)}: a q(t) there falls to zero, and its logarithm is lost."


def _apart(climb: Climb, number: int, gain: float, theirs: float) -> float:
    """Relative to F, of which the gain is a difference, and to the largest of its terms."""
    history = climb.steps[-1].history
    size = worst(np.abs(history.elbo), np.abs(history.expected_log_joint))
    lost = climb.lost(*climb.steps[number : number + 2])
    return float(share(gain - theirs, size, lost, ROUNDING))


def _gains_of_m_steps(climb: Climb) -> Found:
    plan = climb.plan
    by_points = climb.has_points and not any(site.has_prior for site in plan.program.globals)
    if climb.has_points and not by_points:
        yield "G1: the gains of M half-steps of points under a prior, which pulls them from the divergence."
        return
    if not climb.has_points and len(plan.mean_field.full) < len(plan.program.globals):
        yield "G1: the gains of M half-steps where some parameters are points and others have full posteriors."
        return
    # Shares that a covariate looks up have a maximum in closed form.
    numerical = (*plan.numeric, *(() if plan.gradient_is_multinomial else plan.gradient))
    if by_points and numerical:
        yield f"G1: the gains of M half-steps: '{numerical[0]}' has no closed form, and its gain is no divergence."
        return
    elbo = climb.steps[-1].history.elbo
    apart_by = _of_models(climb) if by_points else _of_posteriors
    short: dict[str, list[str]] = {}
    for number, (old, new) in enumerate(zip(climb.steps, climb.steps[1:], strict=False)):
        falling = [name for name in plan.gradient if np.any(_ratio(old, new, name) < 2 * LEAST_RATIO)]
        if falling:
            short.setdefault(falling[0], []).append(f"M {number}")
            continue
        gain = float(elbo[2 * number + 1] - elbo[2 * number])
        try:
            theirs = apart_by(old, new)
        except NotImplementedError:
            yield "G1: the gains of M half-steps: a site has a distribution whose divergence has no closed form here."
            return
        name = "the gain of an M half-step, and its divergence"
        yield Check(
            "G1",
            "",
            name,
            _apart(climb, number, gain, theirs),
            ROUNDING,
            left=gain,
            right=theirs,
            half_step=f"M {number}",
        )
    for name, numbers in short.items():
        yield f"G1: the gains of {', '.join(numbers)}: a share of '{name}' falls as far as it may, not to its maximum."


def _ratio(old: Fit, new: Fit, name: str) -> Float[np.ndarray, "..."]:
    before, after = np.asarray(old.params[name], float), np.asarray(new.params[name], float)
    return after / np.where(before > 0, before, 1.0)


def _of_models(climb: Climb) -> Callable[[Fit, Fit], float]:
    """sum_n sum_k q(t_n = k) KL of every site given t_n = k, new parameters from old ones, nats; q is that of the old
    fit.
    """
    oracle = climb.numpyro

    @climb.compiled
    def total(old: Params, new: Params, q: Float[Array, "N K"], data: tuple[Any, ...]) -> Float[Array, ""]:
        columns = []
        for before, after in zip(oracle.runs(old, data), oracle.runs(new, data), strict=True):
            column = jnp.zeros(oracle.num_rows)
            for name in oracle.local:
                site = after[name]
                apart = divergence(site["fn"], before[name]["fn"])
                apart = apart if site["scale"] is None else site["scale"] * apart
                column = column + oracle.by_row(jnp.broadcast_to(apart, site["fn"].batch_shape))
            columns.append(column)
        return jnp.where(q > 0, q * jnp.stack(columns, axis=1), 0.0).sum()

    return lambda old, new: float(total(in_jax(old.params), in_jax(new.params), climb.q(old), climb.rows))


def _of_posteriors(old: Fit, new: Fit) -> float:
    """KL(q_old(theta) || q_new(theta)) of the guides, nats.

    Of a location given its precision it is linear in the precision, so that its mean under q_old stands for it.
    """
    plan = old.plan
    assert plan is not None
    before, after = ({name: dict(value) for name, value in fit.variational.items()} for fit in (old, new))
    return float(_divergence_of_posteriors(plan, before, after))


@functools.partial(by_plan, effort=Effort.LEAST)
def _divergence_of_posteriors(plan: Plan, before: Params, after: Params) -> Float[Array, ""]:
    tied = {site.parent for site in plan.mean_field.locations if isinstance(site, TiedLocation)}
    # Of a variance or covariance, the inverse of the mean precision.
    points = plan.mean_field.points(before)
    means = {name: points[name] for name in tied}
    sites = []
    for q in (before, after):
        seeded = handlers.seed(functools.partial(distributions.draw, plan.mean_field, q), 0)
        with isolated():
            sites.append(handlers.trace(handlers.substitute(seeded, data=means)).get_trace())
    total = jnp.zeros(())
    for name, site in sites[0].items():
        # A value that is handed on is no q.
        if site["type"] == "sample" and not isinstance(_base(site["fn"]), dist.Delta):
            total = total + divergence(site["fn"], sites[1][name]["fn"]).sum()
    return total


def _base(distribution: Any) -> Any:
    while isinstance(distribution, dist.Independent | dist.ExpandedDistribution):
        distribution = distribution.base_dist
    return distribution


def in_other_units(climb: Climb) -> Found:
    """F shifts by log(unit) for every number observed, where all locations and scales are free parameters."""
    if not _is_free_of_units(climb):
        yield "units: other units of a program that knows its own, by a prior or a number."
        return
    (x,) = climb.data
    options = {name: value for name, value in climb.options.items() if name not in ("init", "key")}
    options |= {"init": Responsibilities(climb.q(climb.start)), "max_steps": _UNIT_STEPS}
    base = fit_program(climb.program, x, **options, throw=False).elbo
    for unit in UNITS:
        scaled = fit_program(climb.program, np.asarray(x) * unit, **options, throw=False).elbo
        theirs = base - climb.numpyro.num_numbers * np.log(unit)
        residual = relative(scaled, theirs, base, lost=climb.lost(climb.start))
        yield Check(
            "units",
            "",
            f"F in units of 2^{-np.log2(unit):.0f}, and as it shifts",
            residual,
            SAME,
            left=scaled,
            right=theirs,
        )


def _is_free_of_units(climb: Climb) -> bool:
    plan = climb.plan
    if len(climb.data) != 1 or not hasattr(climb.data[0], "shape") or not climb.has_points or plan.fixed:
        return False
    if any(site.has_prior for site in plan.program.globals) or plan.form.generic or plan.is_stochastic:
        return False
    free = {name for link in plan.closed for name in link.source}
    linked: dict[str, set[str]] = {}
    for link in plan.closed:
        if (link.group >= 0).all() and set(link.source) <= free:
            linked.setdefault(link.site, set()).add(link.argument)
    observed = plan.form.data_terms
    return all(
        term.view.is_location and linked.get(term.site, set()) >= set(term.view.argument_names) for term in observed
    ) and len({term.site for term in observed}) == 1 == len(plan.program.observed)
