"""A start that is tried: the steps of the one loop from it, until they end or the start is given up."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.data.blocks import Block
from probem.e_step.passes import Pass
from probem.fitting.run import Records, Run, advance, fit_of
from probem.form.statistics import DataTotals
from probem.jit.calls import from_host
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results.failures import FAILURES
from probem.results.fit import Fit
from probem.solver import loop
from probem.solver.attempts import as_initial_q, is_active, state_from_q
from probem.solver.result import RESULTS, RUNNING
from probem.solver.start import Start
from probem.solver.state import Limits, State

# Steps of the first calls, after each of which it is asked whether to go on; and the most of one call.
_FIRST_CALL = 4
# How many times the rise that is still expected may fall short before a start is given up.
_DOUBT = 4.0


@dataclasses.dataclass
class Trial:
    """A fit on its way: ``run`` and ``state`` as in ``fitting/run.py``, what the loop remembers, and its records."""

    run: Run
    state: State
    memory: loop.Memory
    records: list[Records] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, run: Run, state: State) -> "Trial":
        return cls(run, state, loop.blank_memory(run.data_pass, state, run.limits))

    @classmethod
    def from_q(cls, run: Run, params: Params, q: Float[np.ndarray, "N K"]) -> "Trial":
        """From the M half-step under this q, which sets out from ``params`` where it has no closed form."""
        data_pass = run.data_pass
        blocks = data_pass.split(jnp.asarray(q, data_pass.plan.dtype))
        if len(blocks) == 1 and not data_pass.plan.gradient:
            started = from_host(False, data_pass.effort)(_started)
            state = started(data_pass.plan, dict(params), blocks[0], data_pass.totals, data_pass.blocks[0])
            return cls.of(run, state)
        start = Start(dict(params), given_q=jnp.asarray(q, data_pass.plan.dtype))
        state = state_from_q(data_pass, start, blocks, None)
        released = as_initial_q(data_pass, blocks, False) if is_active(data_pass, start) else None
        return cls.of(run._replace(initial=released), state)

    @property
    def code(self) -> int:
        return int(self.state.code)

    @property
    def elbo(self) -> float:
        """F of the best state so far, nats, total."""
        value = float(self.state.bound.elbo)
        return value if math.isfinite(value) else -math.inf

    @property
    def promised(self) -> float:
        """What F is still expected to rise by."""
        return float(self.state.promised)

    @property
    def num_steps(self) -> int:
        return int(self.state.step)

    @property
    def ended_badly(self) -> bool:
        """Whether the steps failed."""
        return self.code != RUNNING and RESULTS[self.code] in FAILURES

    @property
    def is_settled(self) -> bool:
        """Whether the rule of the run has ended the steps."""
        return self.code != RUNNING

    def evaluate(self) -> None:
        """One step, in which F is that of the parameters it begins at."""
        self.state, self.memory, record = advance(self.run, self.state, self.memory, 1)
        self.records.append(record)

    def climb(self, target: float = -math.inf, enough: int | None = None) -> None:
        """Steps until the rule of the run ends them, or until no more than ``target`` is to be hoped for: F is below it
        by several times what it is expected to rise by. After ``enough`` steps also where F is above the target, and
        it is known what it is expected to rise by.
        """
        num_steps, made = _FIRST_CALL, 0
        while self.code == RUNNING:
            wanted = num_steps if enough is None or made >= enough else min(num_steps, enough - made)
            self.state, self.memory, record = advance(self.run, self.state, self.memory, wanted)
            self.records.append(record)
            jax.block_until_ready(self.state)
            made, num_steps = made + wanted, min(2 * num_steps, loop.CALL_STEPS)
            if made > _FIRST_CALL and self.elbo + _DOUBT * self.promised < target:
                return
            if enough is not None and made >= enough and self.elbo > target and math.isfinite(self.promised):
                return

    def go_on(self, limits: Limits) -> None:
        """Steps from where it ended, under another rule."""
        running: Any = np.asarray(RUNNING, np.int32)
        self.run = self.run._replace(limits=limits)
        self.state = self.state._replace(code=jnp.asarray(running), settled=jnp.asarray(False))
        self.climb()

    def fit(self, interrupted: bool = False) -> Fit:
        """What it came to."""
        return fit_of(self.run, self.state, self.records, interrupted)


def _started(plan: Plan, params: Params, q: Float[Array, "n K"], totals: DataTotals, block: Block) -> State:
    """The state after the M half-step under a q, for data in one block."""
    data_pass = Pass(plan, (block,), totals, in_trace=True)
    return state_from_q(data_pass, Start(params, given_q=q), [q], None)
