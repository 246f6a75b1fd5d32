"""What was decided about a program before anything is traced into the loop: data, and no decisions."""

import dataclasses
import math
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probem.families.assignments import AssignmentFamily, projects_to_points
from probem.families.corners import Families
from probem.families.numbers import LiftedFamily
from probem.form.companions import Covariates
from probem.form.form import ExponentialForm, NaturalParameters
from probem.form.sites import ExponentialSite
from probem.jit.structure import Structure, shared, structure_of, with_origin
from probem.mean_field.mean_field import MeanField
from probem.plan.chunking import (
    BLOCK_BYTES,
    COMPLETED_BYTES,
    SMALL_BYTES,
    SMALLEST_BLOCK,
    SPARSE_TABLE_NUMBERS,
    TABLE_BYTES,
    Chunking,
    chunk_rows,
    power_of_two,
    takes_products,
)
from probem.plan.links import Link
from probem.program.fixed import Masks
from probem.program.program import Program
from probem.program.sites import Global, Params


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A program, a family for its assignments, and a route for each parameter.

    What is compiled is kept for its structure, and takes its numbers as arguments: see ``jit/structure.py``.

    ``spreads`` says of every site whose spread may collapse, in which components and copies, ``[K, C]``.
    ``is_exchangeable``: the order of the components means nothing. ``gradient_is_multinomial``: the log joint is linear
    in the logarithms of all parameters of the gradient route, each on a simplex, as where a covariate picks the
    probabilities; then their maximum has a closed form.
    """

    program: Program
    form: ExponentialForm
    lifted_family: LiftedFamily
    closed: tuple[Link, ...]
    numeric: tuple[str, ...]
    gradient: tuple[str, ...]
    unused: tuple[str, ...]
    spreads: Mapping[str, Bool[np.ndarray, "K _"]]
    dtype: np.dtype
    record_gap: bool
    mean_field: MeanField
    families: Families
    is_exchangeable: bool
    gradient_is_multinomial: bool
    depends: Mapping[str, frozenset[str]]

    @shared
    def structure(self) -> Structure:
        """What functions are compiled for: all that was decided, and the structure of what it was decided for."""
        assignments = self.families._replace(assignments=self.lifted_family)
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        claims = (self.is_exact, self.is_stochastic, self.fills_empty)
        return structure_of(tuple({**fields, "families": assignments}.items()), claims)

    @shared
    def key(self) -> Hashable:
        """What makes two plans equal: all from which the others follow."""
        return self.program, self.families, self.record_gap, self.form.gaps, self.form.sparse_rows

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.key == other.key

    @property
    def numbers(self) -> tuple[Any, ...]:
        """Those of the program, of the maps that follow from them, and of the family of the assignments."""
        return self.mean_field.numbers, self.lifted_family.numbers

    def with_numbers(self, numbers: tuple[Any, ...]) -> "Plan":
        """A copy with other numbers, known or traced; what was decided stays."""
        mean_field = self.mean_field.with_numbers(numbers[0])
        copy = dataclasses.replace(
            self,
            program=mean_field.form.program,
            form=mean_field.form,
            mean_field=mean_field,
            lifted_family=self.lifted_family.with_numbers(numbers[1]),
        )
        return with_origin(copy, self)

    @property
    def family(self) -> AssignmentFamily:
        """That of all assignments."""
        return self.lifted_family.family

    @shared
    def is_exact(self) -> bool:
        """Whether q(t_n) is the posterior itself, once a schedule of the family has ended."""
        return self.family.is_exact

    @shared
    def has_schedule(self) -> bool:
        """Whether the family of the assignments changes from one E half-step to the next at first."""
        return type(self.family).is_final is not AssignmentFamily.is_final

    @shared
    def only_projects(self) -> bool:
        """Whether q(t_n) of every E half-step is the projection of its table, and nothing else."""
        return type(self.family).assign is AssignmentFamily.assign

    @shared
    def is_always_exact(self) -> bool:
        """Whether q(t_n) is the posterior itself in every E half-step."""
        return self.is_exact and not self.has_schedule

    @shared
    def is_stochastic(self) -> bool:
        """Whether an E half-step draws at random."""
        return self.family.is_stochastic

    @shared
    def fills_empty(self) -> bool:
        """Whether a component without rows is given the worst-fitted row."""
        return self.family.fills_empty

    @property
    def fixed(self) -> Masks:
        """Which entries of which parameters stay where they are."""
        return self.families.fixed

    @property
    def point_sites(self) -> tuple[Global, ...]:
        """The sites outside the data plate of which one value is fitted, by maximum likelihood or MAP."""
        return tuple(site for site in self.program.globals if site.name not in self.mean_field.full)

    @property
    def num_components(self) -> int:
        return self.program.num_components

    @shared
    def is_point(self) -> bool:
        """Whether every q(t_n) is a point mass: finitely many, so that a step in which no row moves is a fixed point,
        exactly.
        """
        return projects_to_points(self.family, self.num_components)

    @shared
    def varying(self) -> Int[np.ndarray, " V"]:
        return np.flatnonzero(self.form.varying)

    @shared
    def by_products(self) -> tuple[ExponentialSite, ...]:
        """The terms whose table and sums are formed by a matrix product for each component, and not from columns."""
        if self.is_point or self.form.partial or self.form.sparse_rows:
            return ()
        return tuple(
            term
            for term in self.form.data_terms
            if term.view.is_quadratic
            and takes_products(math.prod(term.event_shape), self.num_components, self.is_one_line(term))
            and self.form.varying[self.form.columns(term)].all()
        )

    @shared
    def lines(self) -> tuple[ExponentialSite, ...]:
        """The other terms whose table is that of residuals from lines, of all of their columns."""
        if self.form.sparse_rows:
            return ()
        products = {term.site for term in self.by_products}
        return tuple(term for term in self.form.predicted if self.is_one_line(term) and term.site not in products)

    @shared
    def in_common(self) -> Int[np.ndarray, " S"]:
        """The columns that the table leaves out, since they do not vary."""
        left_out = ~self.form.varying
        for term in self.lines:
            left_out[self.form.natural_columns(term)] = False
        return np.flatnonzero(left_out)

    def is_one_line(self, term: ExponentialSite) -> bool:
        """Whether the table of a term is that of residuals from one line for each component: it has a linear predictor
        whose coefficients are points. An average over nodes is one of many lines, or taken for one.
        """
        factor = self.mean_field.factors.get(term.site)
        sites = () if factor is None or factor.location is None else factor.location.sites
        averaged = any(term.site in node_set.densities for node_set in self.mean_field.node_sets)
        points = all(self.mean_field.by_name[name].is_point for name in sites)
        return isinstance(term.companion, Covariates) and points and not averaged

    @shared
    def formed(self) -> Int[np.ndarray, " S"]:
        """The columns that a pass forms of every row: those that vary, but for the terms ``by_products``; of sparse
        rows none.
        """
        if self.form.sparse_rows:
            return np.zeros(0, int)
        formed = self.form.varying.copy()
        for term in self.by_products:
            formed[self.form.columns(term)] = False
        return np.flatnonzero(formed)

    @shared
    def num_observed(self) -> int:
        """Numbers observed in one row, F."""
        return self.program.abstract_trace(
            lambda sites: sum(math.prod(jnp.shape(sites[name]["value"])) for name in self.program.observed), 1
        )

    @property
    def keeps_features(self) -> bool:
        """Whether the statistics are no wider than the data, and kept instead of it."""
        return len(self.varying) <= self.num_observed and not self.form.sparse_rows

    @property
    def forms_table_alone(self) -> bool:
        """Whether a pass forms nothing but the table, of which it wants the highest entry of each row."""
        return self.keeps_features and self.is_point and not self.form.generic

    @shared
    def small(self) -> Chunking:
        """Data that fits one block of this size is fitted inside one compiled loop."""
        rows = power_of_two(SMALL_BYTES / self._row_bytes, 1024, 8192)
        return Chunking(rows, min(512, self._most_completed))

    @shared
    def large(self) -> Chunking:
        """More data is cut into blocks of this size. Neither depends on N, so that a new N compiles nothing."""
        item = jnp.dtype(self.dtype).itemsize
        if self.forms_table_alone:
            # Where the table of a whole block is small, rows and labels are used in place, and since the sums over rows
            # run on one core, more blocks at once keep the others busy. A larger table is formed in chunks that the
            # cache holds.
            rows = power_of_two(TABLE_BYTES / (self.num_components * item), 1024, 131072)
            if rows >= SMALLEST_BLOCK:
                return Chunking(rows, rows, parallel_blocks=8)
            return Chunking(self._block_rows, rows, parallel_blocks=2)
        products = sum(term.copies * math.prod(term.event_shape) for term in self.by_products)
        width = self.num_components * (1 + products) + (0 if self.keeps_features else len(self.formed))
        rows = min(chunk_rows(width * item), self._most_completed)
        return Chunking(max(self._block_rows, rows), rows)

    def cut(self, num_rows: int) -> Chunking:
        """How data of this many rows is cut. A block of sparse rows is one chunk: its non-zeros are in no order of its
        rows.
        """
        if self.form.sparse_rows:
            most = power_of_two(SPARSE_TABLE_NUMBERS / self.num_components, 1024, 2**17)
            rows = min(most, max(1024, 2 ** math.ceil(math.log2(num_rows))))
            return Chunking(rows, rows)
        return self.small if num_rows <= self.small.block_rows else self.large

    def pass_block_rows(self, num_rows: int) -> int:
        """Rows of the blocks of data that every step goes over. Where they are used in place, and all at once, they are
        a quarter more than the rows at most: padding takes as long, and every size compiles anew.
        """
        cut = self.cut(num_rows)
        count = math.ceil(num_rows / cut.block_rows)
        if cut.chunk_rows < cut.block_rows or count > cut.parallel_blocks or self.form.sparse_rows:
            return cut.block_rows
        least = math.ceil(num_rows / count)
        unit = 2 ** (math.ceil(math.log2(least)) - 3)
        return unit * math.ceil(least / unit)

    def chunk_rows(self, block_rows: int) -> int:
        """Rows of one chunk in a block of this size; a block that is smaller is one chunk."""
        return min(self.cut(block_rows).chunk_rows, block_rows)

    @property
    def _row_bytes(self) -> int:
        return max(1, sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.program.spec.rows))

    @property
    def _block_rows(self) -> int:
        """Rows of a block that is gone through in chunks."""
        return power_of_two(BLOCK_BYTES / self._row_bytes, SMALLEST_BLOCK, 262144)

    @property
    def _most_completed(self) -> int:
        """Rows of a chunk whose covariances of what is missing, under each component, are worth forming at once."""
        item = jnp.dtype(self.dtype).itemsize
        entries = sum(term.copies * math.prod(term.event_shape) ** 2 for term in self.form.completing)
        rows = COMPLETED_BYTES / max(1, self.num_components * entries * item)
        return power_of_two(rows, 8, 131072)

    @property
    def has_priors(self) -> bool:
        """Whether every site outside the data plate has a prior."""
        return self.program.has_priors

    @shared
    def runs_foreign_code(self) -> bool:
        """Whether the loop runs more of NumPyro, or of whoever wrote the program, than arguments that are entries."""
        priors = {site.name for site in self.program.globals if site.has_prior}
        return bool(self.form.generic or self.numeric or self.gradient or priors - set(self.mean_field.prior_factors))

    @shared
    def gradient_reaches_forms(self) -> bool:
        """Whether a prior, or a site with an exponential-family form, depends on parameters of the gradient route."""
        return any(self.depends[name] - set(self.form.generic) for name in self.gradient)

    @property
    def uncertain(self) -> set[str]:
        """The sites that depend on a full posterior."""
        return {name for site in self.mean_field.full for name in self.depends[site]}

    @shared
    def softened_terms(self) -> tuple[ExponentialSite, ...]:
        """The discrete sites whose probabilities are points, and may be zero."""
        terms = self.form.data_terms
        return tuple(term for term in terms if term.support.is_discrete and term.site not in self.uncertain)

    @shared
    def softens_labels(self) -> bool:
        """Whether the probabilities of a discrete site are parameters of the gradient route, or shares that are looked
        up, and may be zero.
        """
        if any(term.is_assignment and term.site not in self.uncertain for term in self.form.column_terms):
            return True
        reached = {name for parameter in self.gradient for name in self.depends[parameter]} & set(self.form.generic)
        return bool(reached) and self.program.abstract_trace(
            lambda sites: any(sites[name]["fn"].support.is_discrete for name in reached), 2
        )

    @shared
    def continuous(self) -> tuple[str, ...]:
        """The observed sites on the generic path that have a density, which may grow without limit. None beside a
        factor, whose height says nothing of a scale.
        """
        observed = set(self.form.generic) & set(self.program.observed)

        def look(sites: dict[str, dict[str, Any]]) -> tuple[str, ...]:
            if any(0 in np.shape(sites[name]["value"]) for name in observed):
                return ()
            return tuple(name for name in sorted(observed) if not sites[name]["fn"].support.is_discrete)

        return self.program.abstract_trace(look, 2) if observed else ()

    def log_prior(self, params: Params) -> Float[Array, ""]:
        """log p of the points, E_q[log p] + H(q) of the full posteriors, nats."""
        return self.mean_field.log_prior(params).astype(self.dtype)

    def evaluated(self, params: Params, shifts: Mapping[str, Array]) -> tuple[NaturalParameters, Float[Array, ""]]:
        """E_q[W] and E_q[c] over all columns, and ``log_prior``, in the dtype of the data."""
        return jax.tree.map(lambda part: part.astype(self.dtype), self.mean_field.evaluated(params, shifts))
