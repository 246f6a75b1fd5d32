"""From an initialiser to the first state of the loop."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers

from . import loop
from .data import Block, to_blocks
from .errors import InputError
from .expectation import Prepared, accumulate, statistics
from .initialization import (
    Given,
    Initializer,
    KMeansPlusPlus,
    Labels,
    Parameters,
    RandomRows,
    Responsibilities,
    as_given,
    check_given,
    nearest_seed,
    seed_rows,
)
from .loop import RESULTS, RUNNING, Call, Limits, Result, State
from .maximization import collapsed, maximise
from .plan import Plan
from .program import Params

# Steps with the first q held, for parameters of the gradient route: they have to leave their common initial value.
_HELD_STEPS = 25
# A program's own initial values may be rows of its data (x[:K]); it is shown this many, repeated if there are fewer.
_INITIAL_ROWS = 1024


def observed_rows(plan: Plan, data: tuple[Any, ...]) -> Array:
    """Every observed site flattened, side by side, ``[n, F]``, in the dtype of the plan."""
    return plan.form.rows(data).astype(plan.dtype)


def initial_params(plan: Plan, data: tuple[Any, ...]) -> Params:
    """The program's own initial values (a draw from the prior for sites that have one), run on its first rows."""
    num_rows = jax.tree.leaves(data)[0].shape[0]
    index = np.arange(_INITIAL_ROWS) % num_rows
    return _initial_params(plan, jax.tree.map(lambda leaf: jnp.asarray(leaf[:_INITIAL_ROWS])[index], data))


@functools.partial(jax.jit, static_argnums=0)
def _initial_params(plan: Plan, rows: tuple[Any, ...]) -> Params:
    trace = handlers.trace(handlers.seed(plan.program.function, 0)).get_trace(*rows)
    return {site.name: jnp.asarray(trace[site.name]["value"], plan.dtype) for site in plan.program.globals}


def start_from_host(
    plan: Plan,
    data: tuple[Any, ...],
    row_weights: np.ndarray | None,
    blocks: Sequence[Block],
    prepared: Prepared,
    init: Initializer | None,
    key: Array,
    restarts: int,
) -> State:
    """The first state, with a leading axis of restarts where there are several."""
    batched = restarts > 1
    call = loop.from_host(batched)
    params = initial_params(plan, data)
    keys = jax.random.split(key, restarts) if batched else key
    init = KMeansPlusPlus() if init is None else init
    if isinstance(init, Given) and batched:
        raise InputError(
            f"restarts={restarts} from one given start", "restarts=1 with it", "leave restarts out, or start at random"
        )
    num_rows = jax.tree.leaves(data)[0].shape[0]

    def repeated(params: Params) -> Params:
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (restarts, *leaf.shape)), params) if batched else params

    if isinstance(init, KMeansPlusPlus | RandomRows):
        sample = _sample(plan, data, row_weights, key)
        seeds = call(_SEEDS[type(init)], 0, None, None, None)(plan, keys, *sample)
        held = [call(_seed_labels, 0, None)(plan, seeds, block) for block in blocks]
        return _from_held(plan, repeated(params), prepared, blocks, held, call, batched)
    if not isinstance(init, Given):
        rows = observed_rows(plan, data)
        found = [as_given(init(own, rows)) for own in (keys if batched else [key])]
    else:
        found = [init]
    found = [check_given(one, plan.program, num_rows) for one in found]
    if len({type(one) for one in found}) > 1:
        raise InputError("different kinds of start from the initialiser", "the same kind for every key", "return one kind")
    if isinstance(found[0], Parameters):
        starts = [{**params, **{name: jnp.asarray(value) for name, value in one.values.items()}} for one in found]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts) if batched else starts[0]
        return call(loop.start, 0, None)(plan, stacked, prepared)
    cut = [[block.data[0] for block in to_blocks((one.values,), None, plan.block_rows, plan.dtype)] for one in found]
    held = [jnp.stack(parts) if batched else parts[0] for parts in zip(*cut, strict=True)]
    return _from_held(plan, repeated(params), prepared, blocks, held, call, batched)


def start_in_trace(
    plan: Plan, data: tuple[Any, ...], block: Block, prepared: Prepared, init: Initializer | None, key: Array
) -> State:
    """The same inside a trace, for one key."""
    params = initial_params(plan, data)
    init = KMeansPlusPlus() if init is None else init
    num_rows = jax.tree.leaves(data)[0].shape[0]
    if isinstance(init, KMeansPlusPlus | RandomRows):
        rows = observed_rows(plan, block.data)
        seeds = init.seeds(key, rows, block.row_weights, block.num_rows, plan.num_components)
        held = nearest_seed(rows, seeds)
    else:
        given = init if isinstance(init, Given) else as_given(init(key, observed_rows(plan, data)))
        given = check_given(given, plan.program, num_rows)
        if isinstance(given, Parameters):
            return loop.start(plan, {**params, **dict(given.values)}, prepared)
        values = jnp.asarray(given.values)
        padding = block.row_weights.shape[0] - num_rows
        held = jnp.concatenate([values, jnp.broadcast_to(values[:1], (padding, *values.shape[1:]))])
    return _from_held(plan, params, prepared, [block], [held], loop.inline, False)


def _sample(plan: Plan, data: tuple[Any, ...], row_weights: np.ndarray | None, key: Array) -> tuple[Array, Array, Array]:
    """The rows that seeds are drawn from, padded to a fixed number: rows, their weights, how many are real."""
    num_rows = jax.tree.leaves(data)[0].shape[0]
    width = observed_rows(plan, jax.tree.map(lambda leaf: leaf[:1], data)).shape[1]
    capacity = seed_rows(width * jnp.dtype(plan.dtype).itemsize)
    if num_rows > capacity:
        seed = np.asarray(jax.random.key_data(key)).reshape(-1)
        index = np.sort(np.random.default_rng(seed).choice(num_rows, capacity, replace=False))
    else:
        index = np.minimum(np.arange(capacity), num_rows - 1)
    chosen = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), data)
    weights = np.ones(capacity) if row_weights is None else row_weights[index]
    weights = np.where(np.arange(capacity) < num_rows, weights, 0.0)
    rows = jax.jit(observed_rows, static_argnums=0)(plan, chosen)
    return rows, jnp.asarray(weights, plan.dtype), jnp.asarray(min(num_rows, capacity), jnp.int32)


def _plus_plus(plan: Plan, key: Array, rows: Array, row_weights: Array, num_rows: Array) -> Array:
    return KMeansPlusPlus().seeds(key, rows, row_weights, num_rows, plan.num_components)


def _random_rows(plan: Plan, key: Array, rows: Array, row_weights: Array, num_rows: Array) -> Array:
    return RandomRows().seeds(key, rows, row_weights, num_rows, plan.num_components)


_SEEDS = {KMeansPlusPlus: _plus_plus, RandomRows: _random_rows}


def _seed_labels(plan: Plan, seeds: Array, block: Block) -> Array:
    return nearest_seed(observed_rows(plan, block.data), seeds)


def _from_held(
    plan: Plan,
    params: Params,
    prepared: Prepared,
    blocks: Sequence[Block],
    held: Sequence[Array],
    call: Call,
    batched: bool,
) -> State:
    """The M-step under a given q; for the gradient route, some more steps with that q held."""
    state = call(loop.start, 0, None)(plan, params, prepared)
    summary = call(loop.zero, 0)(plan, state)
    rows = blocks[0].row_weights.shape[0]
    labels = jnp.zeros((held[0].shape[0], rows) if batched else (rows,), jnp.int32)
    for block, own in zip(blocks, held, strict=True):
        arguments = (plan, summary, labels, state.params, state.linear, prepared, block, own)
        summary, _ = call(accumulate, 0, 0, 0, 0, None, None, 0)(*arguments)
    state = call(_maximised, 0, 0, None)(plan, state, summary, prepared)
    if plan.gradient:
        limits = Limits(jnp.zeros((), plan.dtype), jnp.asarray(_HELD_STEPS + 1, jnp.int32))

        def held_step(_: Any, state: State) -> State:
            return loop.step(plan, state, [labels] * len(blocks), held, prepared, blocks, limits, call)[0]

        if call is loop.inline:
            state = jax.lax.fori_loop(0, _HELD_STEPS, held_step, state)
        else:
            state = functools.reduce(lambda now, number: held_step(number, now), range(_HELD_STEPS), state)
        state = call(loop.start, 0, None)(plan, state.params, prepared)
    return state


def _maximised(plan: Plan, state: State, summary: Any, prepared: Prepared) -> State:
    stats = statistics(plan, summary, prepared)
    params = maximise(plan, stats, state.params)
    broken = collapsed(plan, stats, params) if plan.spreads else jnp.zeros(plan.num_components, bool)
    code = jnp.where(broken.any(), RESULTS.index(Result.SINGULAR), RUNNING).astype(jnp.int32)
    fresh = loop.start(plan, params, prepared)
    return fresh._replace(code=code, component=jnp.argmax(broken).astype(jnp.int32))
