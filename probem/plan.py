"""What will be done, decided before anything is traced into the loop: one route for every parameter.

Three ways to maximise over a parameter (and the reason for each is on the plan):

closed     every entry of a distribution's argument is an entry of a parameter: moment matching, pooled where shared.
numeric    anything else that reaches the data through sufficient statistics alone: a problem whose size does not grow with
           N, maximised to convergence in unconstrained space.
gradient   a site without an exponential-family form: guarded quasi-Newton steps on sums over the data.

A closed form is a *candidate* until it is proved: on random statistics, the gradient of the objective has to vanish at
what it returns. A candidate that fails (a prior that pulls, means shared by components of different covariance) goes to
the numeric way.
"""

import dataclasses
import functools
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .families import AssignmentFamily
from .linear import Form, form
from .links import Link, check_rows_are_independent, dependents, find_links
from .maximization import Statistics, closed_updates, objective
from .program import Params, Program

# Bytes of features and table that one chunk of rows may take: what fits a core's second-level cache.
_CHUNK_BYTES = 2**20
# Bytes of data in one resident block. Neither depends on N, so that a new N compiles nothing.
_BLOCK_BYTES = 2**22


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A program, a family for its assignments, and a route for each parameter. Static: hashed by ``key``."""

    program: Program
    form: Form
    family: AssignmentFamily
    closed: tuple[Link, ...]
    numeric: tuple[str, ...]
    gradient: tuple[str, ...]
    unused: tuple[str, ...]
    spreads: tuple[str, ...]
    dtype: Any
    record_gap: bool
    key: Hashable

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.key == other.key

    @property
    def num_components(self) -> int:
        return self.program.num_components

    @functools.cached_property
    def varying(self) -> np.ndarray:
        return np.flatnonzero(self.form.varying)

    @functools.cached_property
    def chunk_rows(self) -> int:
        """Rows of one chunk, a power of two."""
        width = self.form.num_columns + 3 * self.num_components
        rows = _CHUNK_BYTES // (width * jnp.dtype(self.dtype).itemsize)
        return int(2 ** np.clip(np.floor(np.log2(max(rows, 1))), 8, 13))

    @functools.cached_property
    def block_rows(self) -> int:
        """Rows of one resident block, a multiple of ``chunk_rows``."""
        row_bytes = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in self.program.spec.rows)
        return self.chunk_rows * max(1, _BLOCK_BYTES // (max(row_bytes, 1) * self.chunk_rows))

    def log_prior(self, params: Mapping[str, Array]) -> Array:
        return self.program.log_prior(params).astype(self.dtype)


def data_dtype(program: Program) -> Any:
    """The floating dtype of the data; JAX's default where all of it is integer."""
    dtypes = [jnp.dtype(dtype) for _, dtype in program.spec.rows]
    floating = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return jnp.result_type(*floating) if floating else jnp.result_type(float)


@functools.lru_cache(maxsize=256)
def make_plan(program: Program, family: AssignmentFamily, record_gap: bool = False) -> Plan:
    """Choose a route for every parameter of the program."""
    check_rows_are_independent(program)
    sorted_form = form(program)
    depends = dependents(sorted_form)
    names = [site.name for site in program.globals]
    unused = tuple(name for name in names if not depends[name])
    gradient = tuple(name for name in names if depends[name] & set(sorted_form.generic))
    links = [
        link for link in find_links(sorted_form) if not set(link.source) & {*unused, *gradient}
    ]
    counted: dict[str, int] = {}
    for link in links:
        for name in link.source:
            counted[name] = counted.get(name, 0) + 1
    links = [link for link in links if all(counted[name] == 1 for name in link.source)]
    closed = _proved(sorted_form, tuple(links))
    linked = {name for link in closed for name in link.source}
    return Plan(
        program=program,
        form=sorted_form,
        family=family,
        closed=closed,
        numeric=tuple(name for name in names if name not in {*linked, *gradient, *unused}),
        gradient=gradient,
        unused=unused,
        spreads=_learned_spreads(sorted_form),
        dtype=data_dtype(program),
        record_gap=record_gap,
        key=(program, family, record_gap),
    )


def _proved(sorted_form: Form, links: tuple[Link, ...]) -> tuple[Link, ...]:
    """The links whose closed form is a stationary point of the objective, on random statistics in float64."""
    with jax.ensure_compile_time_eval():
        while links:
            failed = _failed(sorted_form, links)
            if not failed:
                return links
            links = tuple(link for link in links if not failed & set(link.source))
    return links


def _failed(sorted_form: Form, links: tuple[Link, ...]) -> set[str]:
    program = sorted_form.program
    failed: set[str] = set()
    for seed in (31, 32):
        statistics = _random_statistics(sorted_form, seed)
        params = program.random_params(seed + 100)
        names = sorted({name for link in links for name in link.source})
        to_constrained = {name: program.bijection(name) for name in names}

        def at(unconstrained: dict[str, Array], others: Params = params, to: Any = to_constrained) -> Params:
            return {**others, **{name: to[name](value) for name, value in unconstrained.items()}}

        def value(unconstrained: dict[str, Array], stats: Statistics = statistics, at: Any = at) -> Array:
            return objective(sorted_form, stats, at(unconstrained)) / stats.counts.sum()

        gradient = jax.grad(value)
        before = gradient({name: to_constrained[name].inv(params[name]) for name in names})
        updated = closed_updates(sorted_form, links, statistics, params)
        after = gradient({name: to_constrained[name].inv(updated[name]) for name in names})
        # The root of the precision: far above rounding, far below a gradient that has a reason.
        tolerance = float(jnp.sqrt(jnp.finfo(statistics.counts.dtype).eps)) * 10
        for name in names:
            scale = 1.0 + float(jnp.abs(before[name]).max(initial=0.0))
            if not float(jnp.abs(after[name]).max(initial=0.0)) <= tolerance * scale:
                failed.add(name)
    return failed


def _random_statistics(sorted_form: Form, seed: int) -> Statistics:
    """Statistics of random rows, drawn from the program's own distributions, under random responsibilities."""
    program = sorted_form.program
    params = program.random_params(seed)
    sites = program.enumerated_trace(params, program.spec.zeros(1))
    dims = [int(np.prod(term.event_shape, dtype=int)) for term in sorted_form.data_terms]
    num_rows = 16 + 4 * max(dims, default=0)
    key = jax.random.key(seed)
    count = program.num_components
    responsibilities = jax.random.dirichlet(jax.random.fold_in(key, 0), jnp.ones(count), (num_rows,))
    columns, shifts = [], {}
    for index, term in enumerate(sorted_form.data_terms):
        draws = sites[term.site]["fn"].sample(jax.random.fold_in(key, index + 1), (num_rows,))
        # One draw a row, from whichever component it came: pick component n mod K.
        enumerated = sites[term.site]["fn"].batch_shape
        draws = draws.reshape(num_rows, -1, term.copies, *term.event_shape)
        del enumerated
        values = draws[jnp.arange(num_rows), jnp.arange(num_rows) % draws.shape[1]]
        values = values.astype(jnp.result_type(float))
        shifts[term.site] = values.mean(0) if term.view.is_location else jnp.zeros_like(values[0])
        columns.append(term.view.statistics(values, shifts[term.site]).reshape(num_rows, -1))
    features = jnp.concatenate(columns, 1) if columns else jnp.zeros((num_rows, 0))
    sums = responsibilities.T @ features
    counts = responsibilities.sum(0)
    shared = sums.sum(0) * counts[:, None] / counts.sum()
    return Statistics(counts, jnp.where(sorted_form.varying, sums, shared), shifts)


def _learned_spreads(sorted_form: Form) -> tuple[str, ...]:
    """Sites whose last argument (the spread) depends on a parameter: only these can collapse."""
    with jax.ensure_compile_time_eval():
        runs = [sorted_form.arguments(sorted_form.program.random_params(seed)) for seed in (51, 52)]
    return tuple(
        term.site
        for term in sorted_form.data_terms
        if bool((runs[0][term.site][term.view.argument_names[-1]] != runs[1][term.site][term.view.argument_names[-1]]).any())
    )
