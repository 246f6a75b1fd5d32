"""Deterministic annealing: a temperature of the assignments that changes while a fit runs."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from probem.errors import InputError
from probem.families.assignments import AssignmentFamily, HalfStep
from probem.families.posteriors import Dense, softmax


@dataclasses.dataclass(frozen=True)
class Annealed(AssignmentFamily):
    """q proportional to p(x, t)^beta, where beta goes from ``start`` to ``stop`` in the first E half-steps.

    beta_i = stop (start / stop)^(1 - i / steps) in the E half-step of number i < steps: every half-step multiplies it
    by the same factor. From then on the family is ``Tempered(stop)``, and with ``stop=1`` it is EM; no fit converges
    before, and F may fall while beta changes. A start below 1 flattens q, so that components part one after another
    as beta rises; where it flattens so much that components become equal, none parts again, and the fit ends as a
    ``SADDLE``. A start above 1 begins near hard EM and softens it. Source: Ueda & Nakano (1998), Deterministic
    annealing EM algorithm, section 3; Rose, Gurewitz & Fox (1990), A deterministic annealing approach to clustering.

    A fit that ``max_steps`` end within the schedule has the F of the beta that it stood at, while it answers about rows
    with that of ``stop``. A sweep over the numbers compiles once.

    Parameters
    ----------
    start : beta of the first E half-step, a positive, finite number
    stop : beta after the schedule, a positive, finite number
    steps : the number of E half-steps that the schedule takes, a positive, finite number; it need not be whole

    Raises
    ------
    InputError
        For any other number.

    Examples
    --------
    >>> import probem
    >>> family = probem.Annealed(start=0.25, steps=2)
    >>> [float(family.beta(number)) for number in (0, 1, 2, 3)]
    [0.25, 0.5, 1.0, 1.0]
    """

    start: int | float = 0.2
    stop: int | float = 1.0
    steps: int | float = 20.0

    def __post_init__(self) -> None:
        for name, remedy in (
            ("start", "use a beta below 1 to flatten q, above 1 to sharpen it"),
            ("stop", "use stop=1 to end as EM"),
            ("steps", "use a family without a schedule, such as Tempered(beta), for none"),
        ):
            value = getattr(self, name)
            is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not (is_number and 0 < value < math.inf):
                raise InputError(f"Annealed({name}={value!r})", "a positive, finite number", remedy)
            # Numbers of one type, so that no sweep compiles again.
            object.__setattr__(self, name, float(value))

    def project(self, table: Float[Array, "n K"]) -> Dense:
        return softmax(self.stop * table)

    def assign(self, table: Float[Array, "n K"], memory: Any, half_step: HalfStep) -> tuple[Dense, Any]:
        return softmax(self.beta(half_step.number).astype(table.dtype) * table), memory

    def beta(self, number: Integer[Array, ""] | int) -> Float[Array, ""]:
        """The power to which the E half-step of a number, 0 for the first, raises the posterior."""
        left = jnp.maximum(1.0 - number / self.steps, 0.0)
        return self.stop * (self.start / self.stop) ** left

    def is_final(self, number: Integer[Array, ""] | int) -> Bool[Array, ""]:
        return jnp.asarray(number) >= self.steps

    @property
    def entropy_weight(self) -> float | Float[Array, ""]:
        return 1.0 / self.stop

    @property
    def is_exact(self) -> bool:
        return bool(self.stop == 1)
