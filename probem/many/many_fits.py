"""What ``fit_many`` returns: the fits of many data sets, and their answers about rows in one call."""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from probem.analysis.problem import observe
from probem.data.blocks import padded
from probem.data.observations import Observations
from probem.e_step.bound import Bound
from probem.e_step.passes import Pass
from probem.errors import InputError
from probem.families.assignments import AssignmentFamily
from probem.form.statistics import DataTotals
from probem.jit.compilation import by_plan
from probem.many.joining import joined
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results import answers, closed_form, storage
from probem.results.fit import Fit
from probem.results.history import History
from probem.solver import certificate
from probem.solver.result import Result
from probem.solver.side_by_side import batch_size, in_batches
from probem.solver.state import Record


@dataclasses.dataclass(frozen=True, eq=False)
class ManyFits:
    """One program fitted to B data sets: ``fits[b]`` is a ``Fit``, and iteration goes through all of them.

    Attributes
    ----------
    params, variational : as of ``Fit``, with a leading axis B
    bound : F and its terms, ``[B]``, nats, totals over the rows of each data set
    results : how each fit ended, a tuple of B ``Result``
    num_steps : ``[B]``, the numbers of E half-steps
    counts : ``[B, K]``, the expected number of rows of each component
    sums : ``[B, K, S]``, the sums of their statistics
    components : ``[B]``, the component that a bad result is about, or -1
    settled : ``[B]``, whether a rule of ``probem.stopping`` was met by the iteration that made ``params``
    promised : ``[B]``, how much the objective is expected to rise if a fit goes on, nats, totals over the rows
    twins : ``[B, K, K]``, which pairs of components have become equal
    restart_elbos : ``[B, R]``, the final F of all restarts, of which these are the best, nats, totals over the rows
    records : F after every half-step, None unless ``record_history`` was asked for
    """

    params: Mapping[str, Array]
    variational: Params
    bound: Bound
    results: tuple[Result, ...]
    num_steps: Int[np.ndarray, " B"]
    counts: Float[np.ndarray, "B K"]
    sums: Float[np.ndarray, "B K S"]
    components: Int[np.ndarray, " B"]
    settled: Bool[np.ndarray, " B"]
    promised: Float[np.ndarray, " B"]
    twins: Bool[np.ndarray, "B K K"]
    restart_elbos: Float[np.ndarray, "B R"]
    plan: Plan
    totals: DataTotals
    program: Any
    records: Record | None = None

    @property
    def elbo(self) -> Float[np.ndarray, " B"]:
        """F of every fit at its ``params``, ``[B]``, nats, totals over the rows of each data set."""
        return np.asarray(self.bound.elbo, float)

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Fit]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: Any) -> Fit:
        """The fit of a data set; it has a history if ``record_history`` was asked for.

        Raises
        ------
        InputError
            If the index is no whole number.
        IndexError
            If there is no data set of this number.
        """
        try:
            number = operator.index(number)
        except TypeError:
            raise InputError(
                f"the index {number!r} of fits",
                f"a whole number from 0 to {len(self) - 1}",
                "take one fit after another, [fits[b] for b in ...]",
            ) from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"got data set {number}; expected one of {len(self)}; count from zero.")

        number = number % len(self)
        num_steps = int(self.num_steps[number])
        records = [] if self.records is None else [jax.tree.map(lambda leaf: leaf[number, :num_steps], self.records)]
        # Taken apart on the host, and moved in one call: that of a device takes as long for a number as for a set.
        params, variational, totals = jax.tree.map(lambda leaf: leaf[number], self._on_host)
        params, variational = jax.device_put((params, variational))
        return Fit.of(
            self.plan,
            totals,
            self.program,
            variational,
            params,
            bound=jax.tree.map(lambda leaf: float(leaf[number]), self.bound),
            result=self.results[number],
            num_steps=num_steps,
            history=History.of(records, float(self.plan.family.entropy_weight)),
            restart_elbos=self.restart_elbos[number],
            counts=self.counts[number],
            sums=self.sums[number],
            component=int(self.components[number]),
            settled=bool(self.settled[number]),
            promised=float(self.promised[number]),
            twins=certificate.pairs(self.twins[number]),
        )

    @functools.cached_property
    def _on_host(self) -> tuple[dict[str, np.ndarray], Any, Any]:
        """Parameters, posteriors and totals of all data sets as NumPy's arrays."""
        return jax.device_get((dict(self.params), self.variational, self.totals))

    def responsibilities(self, *data: Any) -> Float[np.ndarray, "B N K"]:
        """q(t_bn = k) in the family of the fits, ``[B, N, K]``, of data ``[B, N, ...]``; N need not be that fitted.

        Raises
        ------
        InputError
            For another number of data sets, and for rows of another kind than those fitted.
        """
        return self._rows(answers.responsibilities.whole, data, self.variational)

    def predict(self, *data: Any) -> Int[np.ndarray, "B N"]:
        """The most probable assignment of every row under q, ``[B, N]``, ties to the lowest index.

        Raises
        ------
        InputError
            For another number of data sets, and for rows of another kind than those fitted.
        """
        return self._rows(answers.predictions.whole, data, self.variational)

    def log_density(self, *data: Any, plug_in: bool = False) -> Float[np.ndarray, "B N"]:
        """log p(x_bn), assignments summed out, ``[B, N]``, nats per row; see ``Fit.log_density``. It is minus infinity
        for a row with a value outside the support of its distribution, about which every other answer is an error.

        Raises
        ------
        InputError
            For another number of data sets, for rows of another kind than those fitted, and if the posterior predictive
            has no closed form.
        """
        if self.plan.mean_field.is_bayesian and not plug_in:
            closed_form.check_closed_form(self.plan.mean_field)
            return self._rows(answers.log_predictive.whole, data, self.variational, where_outside=-math.inf)
        return self._rows(answers.log_density.whole, data, dict(self.params), where_outside=-math.inf)

    def _rows(
        self, function: Callable[..., Array], data: tuple[Any, ...], params: Params, where_outside: float | None = None
    ) -> Shaped[np.ndarray, "B N ..."]:
        rows, num_sets = joined(data)
        if num_sets not in (None, len(self)):
            raise InputError(
                f"{num_sets} data sets", f"{len(self)}, as fitted", "pass one for each fit, in their order"
            )
        plan, observed, outside = observe(self.plan, rows, outside=where_outside is not None, num_sets=num_sets)
        num_sets, num_rows = len(self), observed.num_rows // len(self)
        each = jax.tree.map(lambda leaf: leaf.reshape(num_sets, num_rows, *leaf.shape[1:]), observed)
        width = batch_size(num_sets, num_rows)
        size = -(-num_sets // width) * width
        arguments = jax.tree.map(lambda leaf: padded(leaf, size), (params, self.totals, each))
        values = np.asarray(_answers(plan, function, width, *arguments))[:num_sets]
        if outside is None:
            return values
        return np.where(outside.reshape(num_sets, num_rows), np.asarray(where_outside, values.dtype), values)

    def __reduce__(self) -> Any:
        # A plan is found again from the program, as that of one fit is.
        names = [field.name for field in dataclasses.fields(self) if field.name not in ("plan", "program")]
        values = jax.tree.map(np.asarray, {name: getattr(self, name) for name in names if name != "results"})
        arrays, chosen = storage.arrays_of(self[0], with_families=False), self.plan.families
        values |= {"results": self.results}
        return _unpickled, (arrays, self.program, self.plan.family, values, chosen.parameters)

    def __repr__(self) -> str:
        endings = ", ".join(f"{self.results.count(result)} {result.name}" for result in dict.fromkeys(self.results))
        return f"ManyFits({len(self)}: {endings}; sites={sorted(self.params)})"


def _unpickled(
    arrays: dict[str, np.ndarray],
    program: Callable[..., Any],
    family: AssignmentFamily,
    values: dict[str, Any],
    parameters: storage.ParameterFamilies | None = None,
) -> ManyFits:
    plan = storage.unpickled(arrays, program, family, parameters).plan
    assert plan is not None
    with storage.precision_of(arrays):
        values |= {name: jax.tree.map(jnp.asarray, values[name]) for name in ("params", "variational")}
    return ManyFits(plan=plan, program=program, **values)


@functools.partial(by_plan, static_argnums=(1, 2))
def _answers(
    plan: Plan, function: Callable[..., Array], width: int, params: Params, totals: DataTotals, rows: Observations
) -> Shaped[Array, "B N ..."]:
    num_rows = jax.tree.leaves(rows)[0].shape[1]

    def answer(each: tuple[Params, DataTotals, Observations]) -> Shaped[Array, "N ..."]:
        params, totals, rows = each
        (block,) = Pass.traced(plan, rows, unpadded=True).blocks
        return function(plan, params, totals, block)[:num_rows]

    return in_batches(answer, width, (params, totals, rows))
