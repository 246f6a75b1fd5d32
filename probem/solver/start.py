"""A start as the loop takes it: seeds to be drawn, parameters, or a q that is given; and the rows that it looks at."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped, UInt, UInt32
from numpyro import handlers

from probem.data.compressed import CompressedRows
from probem.data.observations import restore_gaps
from probem.e_step.initial_q import GivenQ
from probem.jit.compilation import Effort, by_plan
from probem.jit.tracing import isolated
from probem.plan.plan import Plan
from probem.program.densities import drawn
from probem.program.fixed import impose
from probem.program.sites import Params

# A program's own initial values may be rows of its data (x[:K]); it is shown this many, repeated if there are fewer.
_INITIAL_ROWS = 1024
_INITIAL_NUMBERS = 2**22


#: JAX keys, over restarts R of them.
Keys = Key[Array, "..."] | UInt32[Array, "... 2"]


#: Seeds of K components, over restarts R times.
Seeds = Float[Array, "*R K F"]


class Start(NamedTuple):
    """Where to start: seeds to be drawn with a key, parameters, or a q for the first M-step.

    Exactly one of ``key``, ``params`` and ``given_q`` is there; over restarts it carries a leading axis. That M-step
    starts from ``initial``, and ``given`` takes the place of some of what it makes. ``seed`` is there for a family that
    draws, ``metric`` and ``fixed_seeds`` (``SeedingIn``) where seeds are.
    """

    initial: Params
    key: Keys | None = None
    params: Params | None = None
    given_q: GivenQ | None = None
    given: Params | None = None
    seed: UInt[Array, "*R"] | None = None
    metric: Float[Array, "F F"] | Float[Array, " F"] | None = None
    fixed_seeds: Float[Array, "K F"] | None = None

    @property
    def of_restarts(self) -> "Start":
        """The parts that carry an axis of restarts; None in the place of the others."""
        others = dict.fromkeys(("initial", "given", "metric", "fixed_seeds"))
        return self._replace(**others)  # pyright: ignore[reportArgumentType]

    @property
    def axes(self) -> "Start":
        """Which parts carry an axis of restarts, as ``jax.vmap`` takes it."""
        return Start(*(None if part is None else 0 for part in self.of_restarts))  # pyright: ignore[reportArgumentType]

    def seeded(self, plan: Plan, keys: Keys) -> "Start":
        """The start with the seeds of these keys, one for each restart, if the assignments are drawn."""
        if not plan.is_stochastic:
            return self
        is_single = keys.ndim == (0 if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) else 1)
        bits = functools.partial(jax.random.bits, shape=(), dtype=jnp.uint32)
        return self._replace(seed=bits(keys) if is_single else jax.vmap(bits)(keys))


def observed_rows(plan: Plan, data: tuple[Any, ...], missing: Any = None) -> Float[Array, "n F"]:
    """Every observed site flattened, side by side, in the dtype of the plan; NaN where it is missing."""
    return plan.form.rows(data if missing is None else restore_gaps(data, missing)).astype(plan.dtype)


observed_rows_of = by_plan(observed_rows)


def initial_params(plan: Plan, data: tuple[Any, ...]) -> Params:
    """The program's own initial values (a draw from the prior for sites that have one), run on its first rows."""
    num_rows = jax.tree.leaves(data)[0].shape[0]
    shown = _INITIAL_ROWS
    if plan.form.sparse_rows:
        # As arrays they may be large.
        shown = max(2 * plan.num_components, min(_INITIAL_ROWS, _INITIAL_NUMBERS // plan.num_observed))
    index = np.arange(shown) % num_rows

    def first(leaf: Any) -> Shaped[Array, "n ..."]:
        few = leaf[:shown]
        return jnp.asarray((few.dense() if isinstance(few, CompressedRows) else few)[index])

    return _initial_params(plan, jax.tree.map(first, data))


@functools.partial(by_plan, foreign=True, effort=Effort.LEAST)
def _initial_params(plan: Plan, rows: tuple[Any, ...]) -> Params:
    with isolated():
        trace = handlers.trace(drawn(plan.program.function, 0)).get_trace(*rows)
    params = {site.name: jnp.asarray(trace[site.name]["value"], plan.dtype) for site in plan.program.globals}
    return plan.mean_field.start(params)


def completed(plan: Plan, start: Start, initial: Params, fixed: Params) -> Start:
    """The start with the program's own ``initial`` values where it has none, and the entries that stay at theirs."""

    def with_fixed(params: Params) -> Params:
        return impose(plan.program, tuple(mask for mask in plan.fixed if mask[0] in params), params, fixed)

    params = start.params if start.params is None else with_fixed({**initial, **start.params})
    given = start.given if start.given is None else with_fixed(start.given)
    return start._replace(initial=with_fixed(initial), params=params, given=given)


def restart_keys(keys: Keys, restarts: int, many: bool = False) -> Keys:
    """A key for every restart of a key, ``[R]``, or of ``many`` keys, ``[B R]``; as they are without restarts.

    The first is that of a fit without restarts: more of them end no lower.
    """
    if restarts == 1:
        return keys
    if many:
        return jax.vmap(lambda key: restart_keys(key, restarts))(keys).reshape(-1, *keys.shape[1:])
    return jnp.concatenate([keys[None], jax.random.split(keys, restarts)[1:]])
