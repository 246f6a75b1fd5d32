"""What will be done, decided before anything is traced into the loop: one route for every parameter.

Three ways to maximise over a parameter (and the reason for each is on the plan):

closed     every entry of a distribution's argument is an entry of a parameter: moment matching, pooled where shared.
numeric    anything else that reaches the data through sufficient statistics alone: a problem whose size does not
           grow with N, maximised to convergence in unconstrained space.
gradient   a site without an exponential-family form: guarded quasi-Newton steps on sums over the data.

A closed form is a *candidate* until it is proved: on random statistics, the gradient of the objective has to vanish at
what it returns. A candidate that fails (a prior that pulls, means shared by components of different covariance) goes to
the numeric way.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from probem.analysis.conjugacy import find_mean_field
from probem.analysis.distinct import check_components_differ
from probem.analysis.exchangeable import is_exchangeable
from probem.analysis.gaussians import with_gaussians
from probem.analysis.links import find_links
from probem.analysis.missing import check_gaps
from probem.analysis.multinomial import is_multinomial
from probem.analysis.random_statistics import Draws, draw_rows, random_statistics
from probem.analysis.unbounded import check_bounded
from probem.data.observations import Observations
from probem.data.row_axes import RowAxes
from probem.errors import InputError
from probem.exponential import Arguments
from probem.families.corners import Families
from probem.families.numbers import lifted_family
from probem.form.building import exponential_form
from probem.form.form import ExponentialForm
from probem.jit.compilation import concrete
from probem.m_step.closed import closed_updates
from probem.mean_field.mean_field import MeanField, objective
from probem.plan.links import Link
from probem.plan.plan import Plan
from probem.program.dependence import dependents
from probem.program.fixed import Masks, hold, is_whole
from probem.program.program import Program
from probem.program.sites import Params


def plan_for(plan: Plan, rows: Observations, axes: RowAxes) -> tuple[Plan, Observations]:
    """The plan for rows that are sparse, or of which values are missing, if any are, and the rows with their gaps
    marked.
    """
    if rows.are_sparse and plan.form.gaps:
        # They have no gaps.
        plan = make_plan(plan.program, plan.families, plan.record_gap)
    plan = for_rows(plan, rows.are_sparse)
    if rows.missing is None:
        # A plan that knows of gaps asks where they are.
        nowhere = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), rows.data)
        return plan, rows._replace(missing=nowhere) if plan.form.gaps else rows
    partial_plan = make_plan(plan.program, plan.families, plan.record_gap, True)
    check_gaps(partial_plan, rows, axes)
    return partial_plan, rows


@functools.lru_cache(maxsize=256)
def for_rows(plan: Plan, sparse_rows: bool) -> Plan:
    """The plan for rows that are sparse, or that are not: what was proved of the program holds for both."""
    if plan.form.sparse_rows == sparse_rows:
        return plan
    form = dataclasses.replace(plan.form, sparse_rows=sparse_rows)
    return dataclasses.replace(plan, form=form, mean_field=dataclasses.replace(plan.mean_field, form=form))


def make_plan(program: Program, families: Families, record_gap: bool = False, gaps: bool = False) -> Plan:
    """Choose a route for every parameter of the program; ``gaps``: values of the data may be missing."""
    # Arguments that are left out are the same call.
    record_gap = record_gap or families.assignments.is_stochastic  # F of a draw says little without it
    return _make_plan(program, families, record_gap, gaps)


@functools.lru_cache(maxsize=256)
def _make_plan(program: Program, families: Families, record_gap: bool, gaps: bool) -> Plan:
    depends = dependents(program)
    priors = [site.name for site in program.globals if site.has_prior]
    check_bounded(
        program,
        tuple(name for name in priors if name not in families.full and not is_whole(families.fixed, name)),
    )
    sorted_form = exponential_form(program, gaps, families.predictors, points=not families.full)
    check_components_differ(sorted_form)
    fixed = {name for name, _ in families.fixed}
    points = tuple(name for name in priors if name not in {*families.full, *fixed} and families.modes)
    mean_field = find_mean_field(sorted_form, families, points, depends)
    if families.gaussian:
        mean_field = with_gaussians(mean_field, families, depends)
    conjugate = tuple(site.name for site in mean_field.sites)
    stays = [site.name for site in program.globals if is_whole(families.fixed, site.name)]
    names = [site.name for site in program.globals if site.name not in (*conjugate, *stays)]
    unused = tuple(name for name in names if not depends[name] and name not in families.gaussian)
    gradient = tuple(name for name in names if depends[name] & set(sorted_form.generic))
    links = find_links(sorted_form)
    excluded = {*unused, *gradient, *conjugate, *stays, *families.gaussian}
    excluded |= _pulled(program, [name for name in names if "prior" in depends[name]])
    excluded |= {name for link in links for name in link.source if not _is_free(sorted_form, link, name)}
    links = tuple(link for link in links if not set(link.source) & excluded)
    counted: dict[str, int] = {}
    for link in links:
        for name in link.source:
            counted[name] = counted.get(name, 0) + 1
    links = tuple(link for link in links if all(counted[name] == 1 for name in link.source))
    closed = _proved(mean_field, links, families.fixed)
    linked = {name for link in closed for name in link.source}
    plan = Plan(
        program=program,
        form=sorted_form,
        lifted_family=lifted_family(families.assignments, program.num_components),
        closed=closed,
        numeric=tuple(name for name in names if name not in {*linked, *gradient, *unused}),
        gradient=gradient,
        unused=unused,
        spreads={
            name: learned
            for name, learned in _learned_spreads(sorted_form, families.fixed).items()
            if not _is_uncertain(mean_field, name)
        },
        dtype=program.dtype,
        record_gap=record_gap,
        mean_field=mean_field,
        families=families,
        is_exchangeable=is_exchangeable(program, families.fixed),
        gradient_is_multinomial=bool(gradient) and is_multinomial(sorted_form, gradient),
        depends=depends,
    )
    if gradient and plan.fills_empty and not plan.gradient_is_multinomial:
        raise InputError(
            f"{plan.family!r} in a program whose '{gradient[0]}' follows the gradient in small steps",
            "updates in closed form, which fit a component to the row that it is given",
            "use Delta(), and restarts= against empty components",
        )
    return plan


def _pulled(program: Program, names: list[str]) -> set[str]:
    """The parameters that their prior pulls, be it weakly: the few rows of the proof are not the data."""
    if not names:
        return set()
    draws = [_prior_gradient(program, program.random_params(seed)) for seed in (21, 22)]
    return {name for name in names if any(np.any(draw[name] != 0) for draw in draws)}


@concrete
def _prior_gradient(program: Program, params: Params) -> Params:
    return jax.grad(program.log_prior)(params)


def _is_free(sorted_form: ExponentialForm, link: Link, name: str) -> bool:
    """Whether the parameter may take every value that the argument may: a closed form knows no other constraint."""
    (term,) = (term for term in sorted_form.terms if term.site == link.site)
    argument = _one_event(term.view.argument_constraints[link.argument])
    constraint = _one_event(sorted_form.program.constraints[name])
    with jax.ensure_compile_time_eval():
        # NumPyro's equality is not symmetric: softplus_positive is positive one way round only.
        return bool(constraint == constraints.real or constraint == argument or argument == constraint)


def _one_event(constraint: Any) -> Any:
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return constraint


def _proved(mean_field: MeanField, links: tuple[Link, ...], fixed: Masks) -> tuple[Link, ...]:
    """The links whose closed form is a stationary point of the objective, on random statistics."""
    while links and (failed := _failed(mean_field, links, fixed)):
        links = tuple(link for link in links if not failed & set(link.source))
    return links


def _failed(mean_field: MeanField, links: tuple[Link, ...], fixed: Masks) -> set[str]:
    program = mean_field.form.program
    names = _linked(links)
    failed: set[str] = set()
    for seed in (31, 32):
        draws = draw_rows(mean_field.form, seed)
        before, after = _gradients(mean_field, program.random_params(seed), draws, links=links, fixed=fixed)
        # The root of the precision: far above rounding, far below a gradient that has a reason.
        tolerance = float(jnp.finfo(jnp.result_type(float)).eps) ** 0.5 * 10
        for name in names:
            # In the unit of the gradient itself: constants of a program may make all of it small.
            size = float(np.abs(before[name]).max(initial=0.0))
            if not float(np.abs(after[name]).max(initial=0.0)) <= tolerance * (size + min(1.0, 100.0 * size)):
                failed.add(name)
    return failed


def _linked(links: tuple[Link, ...]) -> list[str]:
    return sorted({name for link in links for name in link.source})


@concrete
def _gradients(
    mean_field: MeanField, params: Params, draws: Draws, *, links: tuple[Link, ...], fixed: Masks
) -> tuple[Params, Params]:
    """The gradient of the objective for each row, in unconstrained space, before and after the update."""
    program = mean_field.form.program
    names = _linked(links)
    to_constrained = {name: program.bijection(name) for name in names}
    statistics = random_statistics(mean_field.form, draws)
    params = mean_field.maximise(statistics, mean_field.start(params))

    def value(unconstrained: Params, others: Params) -> Float[Array, ""]:
        values = {
            name: hold(program, fixed, name, to_constrained[name](value), others[name])
            for name, value in unconstrained.items()
        }
        return objective(mean_field, statistics, {**others, **values}) / statistics.counts.sum()

    def gradient(at: Params) -> Params:
        return jax.grad(value)({name: to_constrained[name].inv(at[name]) for name in names}, at)

    updated = closed_updates(mean_field, links, statistics, params, fixed)
    both = jax.lax.map(gradient, jax.tree.map(lambda *leaves: jnp.stack(leaves), params, updated))
    return {name: value[0] for name, value in both.items()}, {name: value[1] for name, value in both.items()}


def _is_uncertain(mean_field: MeanField, site: str) -> bool:
    """Whether the spread of a density has a full posterior, and cannot collapse."""
    return site in mean_field.factors and mean_field.factors[site].statistics is not None


def _learned_spreads(sorted_form: ExponentialForm, fixed: Masks) -> dict[str, Bool[np.ndarray, "K C"]]:
    """Where the last argument (the spread) of a site depends on something that is free: only there can it collapse."""
    first, second, *_ = sorted_form.samples
    others = second.arguments
    if fixed:
        others = _held_arguments(sorted_form, first.params, second.params, fixed=fixed)
    spreads = {}
    for term in sorted_form.data_terms:
        name = term.view.argument_names[-1]
        spread, other = np.asarray(first.arguments[term.site][name]), np.asarray(others[term.site][name])
        learned = (spread != other).reshape(*spread.shape[:2], -1).any(-1)
        if learned.any():
            spreads[term.site] = learned
    return spreads


@concrete
def _held_arguments(form: ExponentialForm, first: Params, second: Params, *, fixed: Masks) -> dict[str, Arguments]:
    """The arguments at the second parameters, but for the entries that stay at the first."""
    values = {name: hold(form.program, fixed, name, value, first[name]) for name, value in second.items()}
    return form.arguments(values)
