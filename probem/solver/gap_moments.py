"""What the values that are there say of each component, entry by entry: what gaps are filled by at a start.

Before the first M half-step there are no parameters that could complete an event of which a part is missing, but for
the program's own initial values, which know nothing of where the data lies, nor of its units. Under a q that is given
every entry has a mean in each component, over the rows that have it, and a spread around these means. Filled in as
independent normals with these moments, events move and scale with each of their columns, and so does the start.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from probem.e_step.evaluation import row_weights
from probem.e_step.initial_q import given_assignments
from probem.e_step.passes import Chunk, Reduction
from probem.form.completion import events_around_origin
from probem.form.statistics import DataTotals
from probem.plan.plan import Plan
from probem.solver.state import State

#: By site, sums over rows of q times 1, y and y^2 of the entries that are there.
GapSums = dict[str, Float[Array, "3 K C D"]]


def no_sums(plan: Plan) -> GapSums:
    """The sums over no rows."""
    shapes = {term.site: (3, plan.num_components, term.copies, *term.event_shape) for term in plan.form.completing}
    return {site: jnp.zeros(shape, plan.dtype) for site, shape in shapes.items()}


def _summed(plan: Plan, each: Any, totals: DataTotals, chunk: Chunk) -> tuple[GapSums, None]:
    """The sums of a chunk under the q that is given for it."""
    del each
    weighted = row_weights(plan, chunk.block)[:, None] * given_assignments(plan, chunk.beside).dense()
    sums = {}
    for site, (value, observed) in events_around_origin(plan.form, chunk.block, totals).items():
        powers = jnp.stack([jnp.ones_like(value), value, value**2])
        sums[site] = jnp.einsum("nk,pncd->pkcd", weighted, jnp.where(observed, powers, 0.0))
    return sums, None


#: Moments of the values that are there under a q that is given.
MOMENTS = Reduction(_summed)


def filled_by(plan: Plan, state: State, sums: GapSums) -> State:
    """The state with natural parameters that fill gaps by these moments, whatever its parameters are."""
    weight = state.natural.weight
    for term in plan.form.completing:
        natural = term.view.independent(*_moments(sums[term.site]))
        weight = weight.at[:, plan.form.natural_columns(term)].set(natural.reshape(len(weight), -1))
    return state._replace(natural=state.natural._replace(weight=weight))


def _moments(sums: Float[Array, "3 K C D"]) -> tuple[Float[Array, "K C D"], Float[Array, "1 C D"]]:
    """Mean and variance, that around the means of all components together.

    An entry that no row of a component has stands at the mean of its column.
    """
    count, first, _ = sums
    everywhere, overall, squares = sums.sum(1, keepdims=True)
    column = overall / jnp.where(everywhere > 0, everywhere, 1.0)
    mean = jnp.where(count > 0, first / jnp.where(count > 0, count, 1.0), column)
    variance = (squares - (count * mean**2).sum(0, keepdims=True)) / jnp.where(everywhere > 0, everywhere, 1.0)
    # Of values that are all the same, no more than their rounding; of those at the origin, all that matters is that the
    # inverse is finite.
    least = jnp.finfo(sums.dtype).eps * squares / jnp.where(everywhere > 0, everywhere, 1.0)
    return mean, jnp.maximum(variance, jnp.where(least > 0, least, 1.0))
