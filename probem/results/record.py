"""The record of a fit: parameters, the bound that belongs to them, how it ended, and what its statistics are."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from probem.e_step.bound import Bound
from probem.errors import InputError
from probem.families.assignments import AssignmentFamily
from probem.form.statistics import DataTotals
from probem.jit.precision import in_jax
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results.history import History
from probem.results.moves import Moves
from probem.solver import certificate
from probem.solver.result import Result

Record = TypeVar("Record", bound="FitRecord")


@dataclasses.dataclass(frozen=True, eq=False)
class FitRecord:
    """The numbers of a fit; ``Fit`` says what each of them is, and answers from them."""

    params: Mapping[str, Array]
    variational: Params
    bound: Bound
    result: Result | None
    num_steps: int
    history: History
    restart_elbos: Float[np.ndarray, " R"]
    counts: Float[np.ndarray, " K"]
    sums: Float[np.ndarray, "K S"]
    total_weight: float
    component: int
    family: AssignmentFamily
    plan: Plan | None
    totals: DataTotals | None
    program: Any
    num_batches: int = 1
    batch_elbo: float = math.nan
    settled: bool = False
    promised: float = math.nan
    at_boundary: Mapping[str, Bool[np.ndarray, "..."]] = dataclasses.field(default_factory=dict)
    twins: tuple[tuple[int, int], ...] = ()
    moves: Moves = dataclasses.field(default_factory=Moves)

    @classmethod
    def of(
        cls: type[Record],
        plan: Plan,
        totals: DataTotals,
        program: Any,
        variational: Params,
        params: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Record:
        """The record at these posteriors and points; what follows from them is computed, ``others`` are given."""
        params = plan.mean_field.centre(variational)[0] if params is None else params
        derived = {
            "total_weight": float(totals.total_weight),
            "at_boundary": certificate.at_boundary(plan, jax.device_get(variational)),
        }
        return cls(
            params=jax.tree.map(in_jax, params),
            variational=jax.tree.map(in_jax, variational),
            family=plan.family,
            plan=plan,
            totals=totals,
            program=program,
            **derived | others,
        )

    @property
    def elbo(self) -> float:
        """F at ``params``, nats, total over the data."""
        return float(self.bound.elbo)

    def _ready(self) -> tuple[Plan, DataTotals]:
        if self.plan is None or self.totals is None:
            raise InputError(
                "a fit that was loaded without its program",
                "the program it was fitted with",
                "probem.load(path, program)",
            )
        return self.plan, self.totals
