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
import itertools
import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import constraints

from . import missing
from .compiled import concrete
from .conjugacy import find_mean_field
from .data import Rows
from .errors import InputError
from .exchangeable import is_exchangeable
from .exponential import Arguments
from .families import AssignmentFamily, Families, projects_to_points
from .fixed import Masks, hold, is_whole
from .linear import Form, Term, form
from .links import Link, dependents, find_links, row_tables
from .maximization import closed_updates, objective
from .mean_field import MeanField
from .program import Params, Program
from .random_statistics import Draws, draw_rows, random_statistics
from .tracing import kept
from .unbounded import check_bounded

# Bytes of features and table that one chunk of rows may take: what the caches of the cores hold.
_CHUNK_BYTES = 2**22
# Bytes of the covariances of what is missing for one chunk of rows: several arrays as large have to fit the caches.
_COMPLETED_BYTES = 2**20
# Bytes of data in one block of large data, and in the one block of small data.
_BLOCK_BYTES = 2**22
_SMALL_BYTES = 2**22


class Cut(NamedTuple):
    """Rows of one block, and of one chunk in it, both powers of two; and how many blocks one E half-step's call takes.

    Data of no more blocks than that is looped over inside one compiled function. Restarts side by side take one.
    """

    block_rows: int
    chunk_rows: int
    abreast: int = 1


def _power_of_two(rows: float, least: int, most: int) -> int:
    return int(2 ** math.floor(math.log2(min(max(rows, least), most))))


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A program, a family for its assignments, and a route for each parameter. Static: hashed by ``key``.

    ``spreads`` says of every site whose spread may collapse, in which components and copies, ``[K, C]``.
    ``is_exchangeable``: the order of the components means nothing. ``gradient_is_multinomial``: the log joint is linear
    in the logarithms of all parameters of the gradient route, each on a simplex, as where a covariate picks the
    probabilities; then their maximum has a closed form.
    """

    program: Program
    form: Form
    family: AssignmentFamily
    closed: tuple[Link, ...]
    numeric: tuple[str, ...]
    gradient: tuple[str, ...]
    unused: tuple[str, ...]
    spreads: Mapping[str, np.ndarray]
    dtype: Any
    record_gap: bool
    mean_field: MeanField
    families: Families
    is_exchangeable: bool
    gradient_is_multinomial: bool
    key: Hashable

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.key == other.key

    @property
    def fixed(self) -> Masks:
        """Which entries of which parameters stay where they are."""
        return self.families.fixed

    @property
    def num_components(self) -> int:
        return self.program.num_components

    @property
    def is_point(self) -> bool:
        """Whether every q(t_n) is a point mass: finitely many, so that a step in which no row moves is a fixed point,
        exactly.
        """
        return projects_to_points(self.family, self.num_components)

    @kept
    def varying(self) -> np.ndarray:
        return np.flatnonzero(self.form.varying)

    @kept
    def num_observed(self) -> int:
        """Numbers observed in one row, F."""
        return self.program.abstract_trace(
            lambda sites: sum(math.prod(jnp.shape(sites[name]["value"])) for name in self.program.observed), 1
        )

    @property
    def keeps_features(self) -> bool:
        """Whether the statistics are no wider than the data, and kept instead of it."""
        return len(self.varying) <= self.num_observed

    @kept
    def small(self) -> "Cut":
        """Data that fits one block of this size is fitted inside one compiled loop."""
        rows = _power_of_two(_SMALL_BYTES / self._row_bytes, 1024, 8192)
        return Cut(rows, min(512, self._most_completed))

    @kept
    def large(self) -> "Cut":
        """More data is cut into blocks of this size. Neither depends on N, so that a new N compiles nothing."""
        item = jnp.dtype(self.dtype).itemsize
        if self.keeps_features and self.is_point and not self.form.generic:
            # Nothing but the table is formed: one chunk a block, so that the rows and labels are used in place. The
            # sums over rows run on one core: more blocks at once keep the others busy.
            rows = _power_of_two(_CHUNK_BYTES / 2 / (self.num_components * item), 16384, 131072)
            return Cut(rows, rows, abreast=8)
        width = self.num_components + (0 if self.keeps_features else len(self.varying))
        chunk_rows = min(_power_of_two(_CHUNK_BYTES / (width * item), 256, 131072), self._most_completed)
        return Cut(max(_power_of_two(_BLOCK_BYTES / self._row_bytes, 16384, 262144), chunk_rows), chunk_rows)

    def cut(self, num_rows: int) -> "Cut":
        """How data of this many rows is cut."""
        return self.small if num_rows <= self.small.block_rows else self.large

    def chunk_rows(self, block_rows: int) -> int:
        """Rows of one chunk in a block of this size; a block that is smaller is one chunk."""
        return min(self.cut(block_rows).chunk_rows, block_rows)

    @property
    def _row_bytes(self) -> int:
        return max(1, sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.program.spec.rows))

    @property
    def _most_completed(self) -> int:
        """Rows of a chunk whose covariances of what is missing, under each component, are worth forming at once."""
        item = jnp.dtype(self.dtype).itemsize
        entries = sum(term.copies * math.prod(term.event_shape) ** 2 for term in self.form.completing)
        rows = _COMPLETED_BYTES / max(1, self.num_components * entries * item)
        return _power_of_two(rows, 8, 131072)

    @property
    def has_priors(self) -> bool:
        """Whether every site outside the data plate has a prior."""
        return self.program.has_priors

    @kept
    def runs_foreign_code(self) -> bool:
        """Whether the loop runs more of NumPyro, or of whoever wrote the program, than arguments that are entries."""
        priors = {site.name for site in self.program.globals if site.has_prior}
        return bool(self.form.generic or self.numeric or self.gradient or priors - set(self.mean_field.prior_factors))

    @kept
    def gradient_reaches_forms(self) -> bool:
        """Whether a prior, or a site with an exponential-family form, depends on parameters of the gradient route."""
        depends = dependents(self.program)
        return any(depends[name] - set(self.form.generic) for name in self.gradient)

    @kept
    def softened_terms(self) -> tuple[Term, ...]:
        """The discrete sites whose probabilities are points, and may be zero."""
        depends = dependents(self.program)
        uncertain = {name for site in self.mean_field.full for name in depends[site]}
        return tuple(term for term in self.form.data_terms if term.support.is_discrete and term.site not in uncertain)

    @kept
    def softens_labels(self) -> bool:
        """Whether the probabilities of a discrete site are parameters of the gradient route, and may be zero."""
        depends = dependents(self.program)
        reached = {name for parameter in self.gradient for name in depends[parameter]} & set(self.form.generic)
        return bool(reached) and self.program.abstract_trace(
            lambda sites: any(sites[name]["fn"].support.is_discrete for name in reached), 2
        )

    @kept
    def continuous(self) -> tuple[str, ...]:
        """The observed sites on the generic path that have a density, which may grow without limit."""
        observed = set(self.form.generic) & set(self.program.observed)

        def look(sites: dict[str, dict[str, Any]]) -> tuple[str, ...]:
            return tuple(name for name in sorted(observed) if not sites[name]["fn"].support.is_discrete)

        return self.program.abstract_trace(look, 2) if observed else ()

    def log_prior(self, params: Params) -> Array:
        """log p of the points, E_q[log p] + H(q) of the full posteriors, nats."""
        return self.mean_field.log_prior(params).astype(self.dtype)


def plan_for(plan: Plan, rows: Rows) -> tuple[Plan, Rows]:
    """The plan for rows of which values are missing, if any are, and the rows with their gaps marked."""
    if rows.missing is None:
        # A plan that knows of gaps asks where they are.
        nowhere = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), rows.data)
        return plan, rows._replace(missing=nowhere) if plan.form.partial else rows
    found = make_plan(plan.program, plan.families, plan.record_gap, True)
    missing.check(found, rows)
    return found, rows


@functools.lru_cache(maxsize=256)
def make_plan(program: Program, families: Families, record_gap: bool = False, partial: bool = False) -> Plan:
    """Choose a route for every parameter of the program; ``partial``: values of the data may be missing."""
    depends = dependents(program)
    priors = [site.name for site in program.globals if site.has_prior]
    check_bounded(
        program,
        tuple(name for name in priors if name not in families.conjugate and not is_whole(families.fixed, name)),
    )
    sorted_form = form(program, partial)
    _check_distinct(sorted_form)
    fixed = {name for name, _ in families.fixed}
    points = tuple(name for name in priors if name not in {*families.conjugate, *fixed} and families.modes)
    mean_field = find_mean_field(sorted_form, families.conjugate, points, depends)
    conjugate = (*mean_field.full, *mean_field.modes)
    stays = [site.name for site in program.globals if is_whole(families.fixed, site.name)]
    names = [site.name for site in program.globals if site.name not in (*conjugate, *stays)]
    unused = tuple(name for name in names if not depends[name])
    gradient = tuple(name for name in names if depends[name] & set(sorted_form.generic))
    links = find_links(sorted_form)
    excluded = {*unused, *gradient, *conjugate, *stays}
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
        family=families.assignments,
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
        gradient_is_multinomial=bool(gradient) and _is_multinomial(sorted_form, gradient),
        key=(program, families, record_gap, partial),
    )
    if gradient and plan.family.fills_empty and not plan.gradient_is_multinomial:
        raise InputError(
            f"{plan.family!r} in a program whose '{gradient[0]}' follows the gradient in small steps",
            "updates in closed form, which fit a component to the row that it is given",
            "use Delta(), and restarts= against empty components",
        )
    return plan


def _check_distinct(sorted_form: Form) -> None:
    """An index past the end of a parameter is read as its last entry, in silence: then two components are one."""
    program = sorted_form.program
    for axis, assignment in enumerate(program.assignments):
        if assignment.size > 1 and _are_one(sorted_form, axis):
            raise InputError(
                f"one distribution for the last two of the {assignment.size} values of '{assignment.name}', whatever"
                " the parameters",
                f"{assignment.size} entries in every parameter that '{assignment.name}' picks from",
                "give its probabilities (or their prior) and those parameters the same number of entries",
            )


def _are_one(sorted_form: Form, axis: int) -> bool:
    """Whether the last two values of an assignment mean the same to every other site, whatever the parameters."""
    program = sorted_form.program
    others = [name for name in program.local if name != program.assignments[axis].name]

    def differ(value: np.ndarray, at: int) -> bool:
        """Whether anything ``[K, ...]`` is different at the last value of the assignment and at another."""
        by_value = np.moveaxis(value.reshape(*program.enumeration_shape, -1), axis, 0)
        both = np.isfinite(by_value[-1]) & np.isfinite(by_value[at])
        return not np.allclose(by_value[-1][both], by_value[at][both], rtol=1e-5, atol=1e-8)

    for sample in sorted_form.samples:
        for term in sorted_form.terms:
            if term.site in others and any(differ(own, -2) for own in sample.arguments[term.site].values()):
                return False
    generic = [name for name in sorted_form.generic if name in others]
    moves = False
    for params, rows in _random_rows(program) if generic else ():
        with jax.debug_nans(False):  # some rows may lie outside the support
            tables = row_tables(program)(params, rows)
        if any(differ(tables[name].T, -2) for name in generic):
            return False
        moves = moves or any(differ(tables[name].T, 0) for name in generic)
    # Of a density that is known by its values on some rows alone, a difference elsewhere may have been missed.
    return moves or not generic


def _random_rows(program: Program) -> Iterator[tuple[Params, tuple[Any, ...]]]:
    """Parameters and a few rows, small and large, in the shape in which the program is looked at anyway."""
    random = np.random.default_rng(0)
    for seed, scale in itertools.product((11, 12), (None, 1.0, 30.0, 1000.0)):
        for rows in program.spec.examples():
            if scale is not None:
                rows = jax.tree.map(
                    lambda leaf, scale=scale: (
                        (scale * random.normal(size=leaf.shape)).astype(leaf.dtype)
                        if np.issubdtype(leaf.dtype, np.floating)
                        else leaf
                    ),
                    rows,
                )
            yield program.random_params(seed), rows


def _is_multinomial(sorted_form: Form, gradient: tuple[str, ...]) -> bool:
    program, depends = sorted_form.program, dependents(sorted_form.program)
    reached = {name for parameter in gradient for name in depends[parameter]}
    if any(program.constraints[name] is not constraints.simplex for name in gradient):
        return False
    if reached - {*sorted_form.generic, "prior"}:
        return False
    tables, random = row_tables(program), np.random.default_rng(0)
    for seed in (51, 52):
        params = program.random_params(seed)
        first, second = (
            {name: np.exp(random.normal(size=np.shape(params[name]))) for name in gradient} for _ in range(2)
        )
        both = {name: first[name] * second[name] for name in gradient}
        for rows in program.spec.examples():
            with jax.debug_nans(False):  # off the simplex
                at, one, other, last = (
                    tables({**params, **{name: params[name] * own for name, own in factors.items()}}, rows)
                    for factors in ({}, first, second, both)
                )
            for name in reached:
                size = 1.0 + np.abs(at[name]) + np.abs(last[name])
                with np.errstate(invalid="ignore"):
                    bent = np.abs(at[name] + last[name] - one[name] - other[name])
                # The root of the precision, as in the proof of closed forms: chance makes no function so flat.
                if not (bent <= 10 * jnp.finfo(jnp.result_type(float)).eps ** 0.5 * size).all():
                    return False
    return True


def _pulled(program: Program, names: list[str]) -> set[str]:
    """Those of the parameters that their prior pulls, be it weakly: the few rows of the proof are not the data."""
    if not names:
        return set()
    gradient = concrete(jax.grad(program.log_prior))
    draws = [gradient(program.random_params(seed)) for seed in (21, 22)]
    return {name for name in names if any(np.any(draw[name] != 0) for draw in draws)}


def _is_free(sorted_form: Form, link: Link, name: str) -> bool:
    """Whether the parameter may take every value that the argument may: a closed form knows no other constraint."""
    (term,) = (term for term in sorted_form.terms if term.site == link.site)
    allowed = {key: value for one in term.view.distributions for key, value in one.arg_constraints.items()}
    argument, own = _one_event(allowed[link.argument]), _one_event(sorted_form.program.constraints[name])
    with jax.ensure_compile_time_eval():
        # NumPyro's equality is not symmetric: softplus_positive is positive one way round only.
        return bool(own == constraints.real or own == argument or argument == own)


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
    names = sorted({name for link in links for name in link.source})
    to_constrained = {name: program.bijection(name) for name in names}

    def gradients(params: Params, draws: Draws) -> tuple[Params, Params]:
        """The gradient of the objective for each row, in unconstrained space, before and after the update."""
        statistics = random_statistics(mean_field.form, draws)
        params = mean_field.maximise(statistics, mean_field.start(params))

        def value(unconstrained: Params, others: Params) -> Array:
            values = {
                name: hold(program, fixed, name, to_constrained[name](value), others[name])
                for name, value in unconstrained.items()
            }
            return objective(mean_field, statistics, {**others, **values}) / statistics.counts.sum()

        def gradient(at: Params) -> Params:
            return jax.grad(value)({name: to_constrained[name].inv(at[name]) for name in names}, at)

        updated = closed_updates(mean_field, links, statistics, params, fixed)
        both = jax.vmap(gradient)(jax.tree.map(lambda *leaves: jnp.stack(leaves), params, updated))
        return {name: value[0] for name, value in both.items()}, {name: value[1] for name, value in both.items()}

    run = concrete(gradients)
    failed: set[str] = set()
    for seed in (31, 32):
        before, after = run(program.random_params(seed), draw_rows(mean_field.form, seed))
        # The root of the precision: far above rounding, far below a gradient that has a reason.
        tolerance = float(jnp.finfo(jnp.result_type(float)).eps) ** 0.5 * 10
        for name in names:
            # In the unit of the gradient itself: constants of a program may make all of it small.
            size = float(np.abs(before[name]).max(initial=0.0))
            if not float(np.abs(after[name]).max(initial=0.0)) <= tolerance * (size + min(1.0, 100.0 * size)):
                failed.add(name)
    return failed


def _is_uncertain(mean_field: MeanField, site: str) -> bool:
    """Whether the spread of a density has a full posterior, and cannot collapse."""
    return site in mean_field.factors and mean_field.factors[site].statistics is not None


def _learned_spreads(sorted_form: Form, fixed: Masks) -> dict[str, np.ndarray]:
    """Where the last argument (the spread) of a site depends on something that is free: only there can it collapse."""
    first, second, *_ = sorted_form.samples
    others = second.arguments
    if fixed:
        program = sorted_form.program

        def held(first: Params, second: Params) -> dict[str, Arguments]:
            own = {name: hold(program, fixed, name, value, first[name]) for name, value in second.items()}
            return sorted_form.arguments(own)

        others = concrete(held)(first.params, second.params)
    found = {}
    for term in sorted_form.data_terms:
        name = term.view.argument_names[-1]
        own, other = np.asarray(first.arguments[term.site][name]), np.asarray(others[term.site][name])
        learned = (own != other).reshape(*own.shape[:2], -1).any(-1)
        if learned.any():
            found[term.site] = learned
    return found
