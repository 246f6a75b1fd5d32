"""A plan in words, as a database explains a query."""

import dataclasses
import math

import jax.numpy as jnp

from probem.plan.links import Link
from probem.plan.plan import Plan
from probem.program.fixed import is_whole
from probem.runs.text_table import text_table


@dataclasses.dataclass(frozen=True)
class Row:
    """A site of the plan: its role, shape, family and update, in words."""

    site: str
    role: str
    shape: str
    family: str
    update: str


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The plan of a fit; ``str`` of it is a table.

    Attributes
    ----------
    rows : a row for every site
    cost : what a pass over the rows costs, a sentence
    """

    rows: tuple[Row, ...]
    cost: str

    def __str__(self) -> str:
        header = Row("site", "role", "shape", "family", "update")
        table = text_table([dataclasses.astuple(row) for row in (header, *self.rows)], "<<<<<")
        return f"{table}\n\n{self.cost}"


def projection_in_words(plan: Plan) -> str:
    """What the E half-step makes of the posterior of an assignment."""
    if plan.is_point:
        return "mode of the posterior"
    projection = "posterior" if plan.is_exact else "projection of the posterior"
    return f"{projection}, once a schedule has ended" if plan.has_schedule else projection


def route_in_words(plan: Plan, name: str) -> str:
    """How a site outside the data plate is updated, or that it is fixed."""
    if is_whole(plan.fixed, name):
        return "fixed"
    update = _update(plan, name)
    return f"{update}, some entries fixed" if name in dict(plan.fixed) else update


def _update(plan: Plan, name: str) -> str:
    for link in plan.closed:
        if name in link.source:
            return f"closed form: {_spoken(plan, link)}"
    if name in plan.mean_field.by_name:
        return plan.mean_field.by_name[name].in_words
    if name in plan.numeric:
        return "maximised numerically over K-sized statistics"
    if name in plan.gradient:
        return "gradient over the data, guarded"
    return "kept: nothing depends on it"


def _spoken(plan: Plan, link: Link) -> str:
    per_component = link.group.reshape(plan.num_components, -1)
    shared = plan.num_components > 1 and (per_component[0] == per_component[1]).all()
    term = next(term for term in plan.form.terms if term.site == link.site)
    if term.is_assignment:
        return "share of the rows"
    what = {"loc": "weighted mean", "coefficients": "weighted least squares"}.get(
        link.argument, f"moments of '{link.argument}'"
    )
    return f"{what}, pooled over components" if shared else what


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:.0f} KiB"


def statistics_in_words(columns: int) -> str:
    """How many statistics."""
    return f"{columns} statistic{'' if columns == 1 else 's'}"


def cost_in_words(plan: Plan, num_rows: int) -> str:
    """What one pass over so many rows costs."""
    chunk_rows, parallel = plan.chunk_rows(plan.pass_block_rows(num_rows)), plan.cut(num_rows).parallel_blocks
    together = f", up to {parallel} at once" if parallel > 1 else ""
    columns, count = len(plan.varying), plan.num_components
    formed, entries = len(plan.formed), [(term.copies, math.prod(term.event_shape)) for term in plan.by_products]
    item = jnp.dtype(plan.dtype).itemsize
    product = 2 * (formed + sum(copies * dim**2 for copies, dim in entries)) * count
    gather = 2 * columns if plan.is_point else product
    memory = chunk_rows * (formed + count * (1 + sum(copies * dim for copies, dim in entries))) * item
    by_products = ", ".join(term.site for term in plan.by_products)
    by_products = f", those of {by_products} by a matrix product for each component" if by_products else ""
    generic = f"; and the program itself for {', '.join(plan.form.generic)}" if plan.form.generic else ""
    return (
        f"one pass: {statistics_in_words(columns)} x {count} components{by_products}, {product + gather} flops a row, "
        f"in chunks of {chunk_rows} rows ({_size(memory)}){together}, {jnp.dtype(plan.dtype).name}{generic}"
    )
