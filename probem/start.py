"""From an initialiser to the first state of the loop."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers

from . import loop
from .compiled import by_plan
from .data import Block, padded, to_blocks
from .errors import InputError
from .expectation import Prepared, prepare, statistics
from .initialization import (
    Given,
    Initializer,
    KMeansPlusPlus,
    Labels,
    Parameters,
    RandomRows,
    as_given,
    check_given,
    nearest_seed,
    seed_rows,
)
from .loop import RESULTS, RUNNING, Call, Limits, Result, State
from .maximization import Statistics, collapsed, maximise
from .moments import Site
from .plan import Plan
from .program import Params, drawn, unchecked

# The part of every row that all components share at a start whose seeds have too few rows.
_SOFTENING = 0.1
# Steps with the first q held, for parameters of the gradient route: they have to leave their common initial value.
_HELD_STEPS = 25
# A program's own initial values may be rows of its data (x[:K]); it is shown this many, repeated if there are fewer.
_INITIAL_ROWS = 1024


class Start(NamedTuple):
    """Where to start: seeds to be drawn with a key, parameters, or a q that is held for the first M-step.

    Exactly one of ``key``, ``params`` and ``held`` is there; over restarts it carries a leading axis.
    """

    key: Array | None = None
    params: Params | None = None
    held: Array | None = None


def observed_rows(plan: Plan, data: tuple[Any, ...]) -> Array:
    """Every observed site flattened, side by side, ``[n, F]``, in the dtype of the plan."""
    return plan.form.rows(data).astype(plan.dtype)


_observed_rows = by_plan(observed_rows)


def initial_params(plan: Plan, data: tuple[Any, ...]) -> Params:
    """The program's own initial values (a draw from the prior for sites that have one), run on its first rows."""
    num_rows = jax.tree.leaves(data)[0].shape[0]
    index = np.arange(_INITIAL_ROWS) % num_rows
    return _initial_params(plan, jax.tree.map(lambda leaf: jnp.asarray(leaf[:_INITIAL_ROWS][index]), data))


@functools.partial(by_plan, foreign=True)
@unchecked
def _initial_params(plan: Plan, rows: tuple[Any, ...]) -> Params:
    trace = handlers.trace(drawn(plan.program.function, 0)).get_trace(*rows)
    params = {site.name: jnp.asarray(trace[site.name]["value"], plan.dtype) for site in plan.program.globals}
    return plan.mean_field.start(params)


def resolve(
    plan: Plan, data: tuple[Any, ...], init: Initializer | None, key: Array, restarts: int
) -> tuple[KMeansPlusPlus | RandomRows | None, Start]:
    """What an initialiser asks for: how to draw seeds, if that is what it does, and the start.

    Raises
    ------
    InputError
        For values of the wrong shape or off their constraint, or several restarts from one given start.
    """
    keys = jax.random.split(key, restarts) if restarts > 1 else key
    init = KMeansPlusPlus() if init is None else init
    if isinstance(init, KMeansPlusPlus | RandomRows):
        return init, Start(key=keys)
    if isinstance(init, Given):
        if restarts > 1:
            raise InputError(
                f"restarts={restarts} from one given start",
                "restarts=1 with it",
                "leave restarts out, or start at random",
            )
        found = [init]
    elif callable(init):
        rows = observed_rows(plan, data)
        found = [as_given(init(own, rows)) for own in (keys if restarts > 1 else [key])]
    else:
        raise InputError(
            f"init of type {type(init).__name__}",
            "an initialiser",
            "use KMeansPlusPlus(), RandomRows(), Parameters, Labels, Responsibilities or a function of (key, rows)",
        )
    num_rows = jax.tree.leaves(data)[0].shape[0]
    posteriors = [_given_posteriors(plan, data, one) for one in found]
    found = [check_given(_without(one, plan.mean_field.full), plan.program, num_rows) for one in found]
    if len({type(one) for one in found}) > 1:
        raise InputError(
            "different kinds of start from the initialiser", "the same kind for every key", "return one kind"
        )
    values: list[Any] = [one.values for one in found]
    if isinstance(found[0], Parameters):
        initial = initial_params(plan, data)
        values = [
            {**initial, **jax.tree.map(lambda value: jnp.asarray(value, plan.dtype), {**one, **own})}
            for one, own in zip(values, posteriors, strict=True)
        ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *values) if restarts > 1 else values[0]
    if isinstance(found[0], Parameters):
        return None, Start(params=stacked)
    return None, Start(held=jnp.asarray(stacked, jnp.int32 if isinstance(found[0], Labels) else plan.dtype))


def _without(given: Given, names: Collection[str]) -> Given:
    if not isinstance(given, Parameters):
        return given
    return Parameters({name: value for name, value in given.values.items() if name not in names})


def _given_posteriors(plan: Plan, data: tuple[Any, ...], given: Given) -> Params:
    """The q of sites with a full posterior in a start, checked: arguments by name, as ``Fit.variational`` has them."""
    named = {} if not isinstance(given, Parameters) else given.values
    found = {name: value for name, value in named.items() if name in plan.mean_field.full}
    expected = initial_params(plan, data) if found else {}
    for name, value in found.items():
        shapes = {argument: np.shape(own) for argument, own in expected[name].items()}
        given_shapes = {key: np.shape(own) for key, own in value.items()} if isinstance(value, Mapping) else None
        if given_shapes != shapes:
            got = f"of shapes {given_shapes}" if given_shapes is not None else "that is a value"
            raise InputError(
                f"a start for '{name}', a site with the family Conjugate(), {got}",
                f"the arguments of its q, {shapes}, as a fit has them in .variational",
                "start from Labels, Responsibilities or seeds instead",
            )
        (site,) = (site for site in plan.mean_field.sites if site.name == name)
        if not _is_distribution(site, value):
            raise InputError(
                f"a start for the q of '{name}' that is no distribution",
                "finite values and a positive strength or covariance" if site.is_location else site.prior.requirement,
                "take it from the .variational of a fit",
            )
    return found


def _is_distribution(site: Site, arguments: Mapping[str, Any]) -> bool:
    own = {name: np.asarray(value, float) for name, value in arguments.items()}
    with jax.ensure_compile_time_eval():
        if not site.is_location:
            return bool(np.all(site.prior.proper({name: jnp.asarray(value) for name, value in own.items()})))
    spread = own["strength"] if "strength" in own else np.linalg.eigvalsh(own["covariance"])
    return bool(np.isfinite(own["loc"]).all() and (spread > 0).all())


def begin_in_trace(
    plan: Plan, seeding: KMeansPlusPlus | RandomRows | None, start: Start, initial: Params, block: Block, restarts: int
) -> tuple[Prepared, Block, State]:
    """All that comes before the loop, for data in one block: what the pass needs of it, and the first state."""
    rows = observed_rows(plan, block.data)
    prepared, (kept,) = prepare(plan, [block], loop.inline)

    def begin(start: Start) -> State:
        if start.params is not None:
            return loop.start(plan, start.params, prepared)
        held = padded(start.held, block.size) if start.held is not None else seeded(start.key)
        return _from_held(plan, initial, prepared, [kept], [held], loop.inline, 1, start.held is None)

    def seeded(key: Array | None) -> Array:
        assert seeding is not None
        assert key is not None
        weights = block.weights.astype(plan.dtype)
        return nearest_seed(rows, seeding.seeds(key, rows, weights, block.num_rows, plan.num_components))

    return prepared, kept, jax.vmap(begin)(start) if restarts > 1 else begin(start)


#: ``begin_in_trace``, compiled.
begin_in_block = by_plan(begin_in_trace, static_argnums=(1, 5))


def begin_in_blocks(
    plan: Plan,
    seeding: KMeansPlusPlus | RandomRows | None,
    start: Start,
    initial: Params,
    data: tuple[Any, ...],
    row_weights: np.ndarray | None,
    blocks: Sequence[Block],
    restarts: int,
) -> tuple[Prepared, list[Block], State]:
    """The same for data in several blocks, from the host."""
    call = loop.from_host(restarts > 1)
    prepared, kept = prepare(plan, blocks, loop.from_host(False))
    if start.params is not None:
        return prepared, kept, call(loop.start, 0, None)(plan, start.params, prepared)
    if start.held is not None:
        batch = start.held if restarts > 1 else start.held[None]
        cuts = [[part.data[0] for part in to_blocks((one,), None, blocks[0].size, plan.dtype)] for one in batch]
        held = [jnp.stack(parts) if restarts > 1 else parts[0] for parts in zip(*cuts, strict=True)]
    else:
        assert start.key is not None
        sample = _sample(plan, data, row_weights, start.key if restarts == 1 else start.key[0])
        draw = _plus_plus if isinstance(seeding, KMeansPlusPlus) else _random_rows
        seeds = call(draw, 0, None, None, None)(plan, start.key, *sample)
        held = [call(_seed_labels, 0, None)(plan, seeds, block) for block in blocks]
    return prepared, kept, _from_held(plan, initial, prepared, kept, held, call, restarts, start.held is None)


def _sample(
    plan: Plan, data: tuple[Any, ...], row_weights: np.ndarray | None, key: Array
) -> tuple[Array, Array, Array]:
    """The rows that seeds are drawn from, a fixed number: rows, their weights, how many are real."""
    num_rows = jax.tree.leaves(data)[0].shape[0]
    capacity = min(seed_rows(plan.num_observed * jnp.dtype(plan.dtype).itemsize), plan.small.block_rows)
    seed = np.asarray(jax.random.key_data(key)).reshape(-1)
    index = np.sort(np.random.default_rng(seed).choice(num_rows, capacity, replace=False))
    chosen = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), data)
    weights = np.ones(capacity) if row_weights is None else row_weights[index]
    rows = _observed_rows(plan, chosen)
    return rows, jnp.asarray(weights, plan.dtype), jnp.asarray(capacity, jnp.int32)


def _plus_plus(plan: Plan, key: Array, rows: Array, row_weights: Array, num_rows: Array) -> Array:
    return KMeansPlusPlus().seeds(key, rows, row_weights, num_rows, plan.num_components)


def _random_rows(plan: Plan, key: Array, rows: Array, row_weights: Array, num_rows: Array) -> Array:
    return RandomRows().seeds(key, rows, row_weights, num_rows, plan.num_components)


def _seed_labels(plan: Plan, seeds: Array, block: Block) -> Array:
    return nearest_seed(observed_rows(plan, block.data), seeds)


def _from_held(
    plan: Plan,
    initial: Params,
    prepared: Prepared,
    blocks: Sequence[Block],
    held: Sequence[Array],
    call: Call,
    restarts: int,
    seeded: bool,
) -> State:
    """The M-step under a given q; for the gradient route, some more steps with that q held."""
    size = blocks[0].size
    if restarts > 1:
        initial = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (restarts, *leaf.shape)), initial)
    labels = jnp.zeros((restarts, size) if restarts > 1 else (size,), jnp.int32)
    state = call(loop.start, 0, None)(plan, initial, prepared)
    summary, _ = loop.visit(plan, state, [labels] * len(blocks), held, prepared, blocks, call)
    maximised = _maximised_softly if seeded else _maximised
    state = call(maximised, 0, 0, None)(plan, state, summary, prepared)
    if plan.gradient:
        limits = Limits(jnp.zeros((), plan.dtype), jnp.asarray(_HELD_STEPS + 1, jnp.int32))

        def held_step(_: Any, state: State) -> State:
            return loop.step(plan, state, [labels] * len(blocks), held, prepared, blocks, limits, call)[0]

        if call is loop.inline:
            state = jax.lax.fori_loop(0, _HELD_STEPS, held_step, state)
        else:
            state = functools.reduce(lambda now, number: held_step(number, now), range(_HELD_STEPS), state)
        # What was learned of the curvature stays; how the last steps under the held q went says nothing.
        fresh = call(loop.start, 0, None)(plan, state.params, prepared)
        state = fresh._replace(ascent=fresh.ascent._replace(inverse_hessian=state.ascent.inverse_hessian))
    return state


def _maximised(plan: Plan, state: State, summary: Any, prepared: Prepared) -> State:
    """The state after the M-step under the q that was given."""
    stats = statistics(plan, summary, prepared)
    return _started(plan, maximise(plan, stats, state.params), stats, prepared)


def _maximised_softly(plan: Plan, state: State, summary: Any, prepared: Prepared) -> State:
    """The same for a q of seeds: where one has too few rows for a spread, every component gets some of all rows."""
    stats = statistics(plan, summary, prepared)
    params = maximise(plan, stats, state.params)
    if not plan.spreads:
        return _started(plan, params, stats, prepared)
    counts = (1 - _SOFTENING) * stats.counts + _SOFTENING * prepared.total_weight / plan.num_components
    sums = (1 - _SOFTENING) * stats.sums + _SOFTENING * (stats.sums.sum(0) / plan.num_components)[None, :]
    softened = stats._replace(counts=counts, sums=sums)
    softly = maximise(plan, softened, state.params)
    broken = collapsed(plan, stats, params).any()
    params = jax.tree.map(lambda soft, own: jnp.where(broken, soft, own), softly, params)
    return _started(plan, params, jax.tree.map(lambda a, b: jnp.where(broken, a, b), softened, stats), prepared)


def _started(plan: Plan, params: Params, stats: Statistics, prepared: Prepared) -> State:
    broken = collapsed(plan, stats, params) if plan.spreads else jnp.zeros(plan.num_components, bool)
    code = jnp.where(broken.any(), RESULTS.index(Result.SINGULAR), RUNNING).astype(jnp.int32)
    fresh = loop.start(plan, params, prepared)
    return fresh._replace(code=code, component=jnp.argmax(broken).astype(jnp.int32))
