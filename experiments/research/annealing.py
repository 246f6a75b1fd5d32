"""Deterministic annealing as a family of the assignments: a temperature that falls while a fit runs."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probem.families import Assigned, AssignmentFamily, HalfStep
from probem.families.posteriors import softmax


@dataclasses.dataclass(frozen=True)
class Annealed(AssignmentFamily):
    """q proportional to p(x, t)^beta, where beta rises from ``start`` to 1 in the first ``half_steps`` E half-steps.

    beta_i = start^(1 - i / half_steps) for i < half_steps, and 1 from then on, where it is EM. Source: Ueda & Nakano
    (1998), Deterministic annealing EM algorithm, section 3.

    Parameters
    ----------
    start : beta of the first E half-step, positive
    half_steps : how many E half-steps it takes
    """

    start: float = 0.2
    half_steps: float = 20.0

    def project(self, table: Float[Array, "n K"]) -> Assigned:
        return softmax(table)

    def assign(self, table: Float[Array, "n K"], memory: Any, half_step: HalfStep) -> tuple[Assigned, Any]:
        left = jnp.maximum(1.0 - half_step.number / self.half_steps, 0.0)
        return softmax(jnp.asarray(self.start, table.dtype) ** left.astype(table.dtype) * table), memory

    def is_final(self, number: Int[Array, ""]) -> Bool[Array, ""]:
        return number >= self.half_steps
