"""From an initialiser to the first state of the loop."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers

from . import available, loop
from .calls import Call, from_host, inline
from .compiled import by_plan
from .data import Block, Rows, padded, to_blocks
from .errors import InputError
from .expectation import Held, Prepared, Summary, can_be_released, softened, statistics
from .fixed import impose
from .initialization import (
    Given,
    Initializer,
    KMeansPlusPlus,
    Known,
    Labels,
    Parameters,
    Seeding,
    as_given,
    check_given,
    nearest_seed,
    seed_rows,
)
from .linear import poisoned
from .loop import RESULTS, RUNNING, Limits, Result, State
from .maximization import Statistics, collapsed, maximise, widened
from .moments import Site
from .plan import Plan
from .preparation import prepare
from .program import Params, drawn
from .seed_order import best_state, maximised_in_best_order, orders_by_passes, reordered_labels, value_of
from .softening import soften_counts, soften_zeros
from .stopping import Stopping
from .tracing import isolated

# Steps with the first q held, for parameters of the gradient route: they have to leave their common initial value.
_HELD_STEPS = 25
# A program's own initial values may be rows of its data (x[:K]); it is shown this many, repeated if there are fewer.
_INITIAL_ROWS = 1024


class Start(NamedTuple):
    """Where to start: seeds to be drawn with a key, parameters, or a q that is held for the first M-step.

    Exactly one of ``key``, ``params`` and ``held`` is there; over restarts it carries a leading axis. That M-step
    starts from ``initial``, and ``given`` takes the place of some of what it makes.
    """

    initial: Params
    key: Array | None = None
    params: Params | None = None
    held: Array | None = None
    given: Params | None = None

    @property
    def axes(self) -> "Start":
        """Which parts carry an axis of restarts, as ``jax.vmap`` takes it."""
        return Start(
            initial=None,  # pyright: ignore[reportArgumentType]
            key=None if self.key is None else 0,  # pyright: ignore[reportArgumentType]
            params=None if self.params is None else 0,  # pyright: ignore[reportArgumentType]
            held=None if self.held is None else 0,  # pyright: ignore[reportArgumentType]
        )


def observed_rows(plan: Plan, data: tuple[Any, ...], missing: Any = None) -> Array:
    """Every observed site flattened, side by side, ``[n, F]``, in the dtype of the plan; NaN where it is missing."""
    return plan.form.rows(data if missing is None else poisoned(data, missing)).astype(plan.dtype)


_observed_rows = by_plan(observed_rows)


def initial_params(plan: Plan, data: tuple[Any, ...]) -> Params:
    """The program's own initial values (a draw from the prior for sites that have one), run on its first rows."""
    num_rows = jax.tree.leaves(data)[0].shape[0]
    index = np.arange(_INITIAL_ROWS) % num_rows
    return _initial_params(plan, jax.tree.map(lambda leaf: jnp.asarray(leaf[:_INITIAL_ROWS][index]), data))


@functools.partial(by_plan, foreign=True, small=True)
def _initial_params(plan: Plan, rows: tuple[Any, ...]) -> Params:
    with isolated():
        trace = handlers.trace(drawn(plan.program.function, 0)).get_trace(*rows)
    params = {site.name: jnp.asarray(trace[site.name]["value"], plan.dtype) for site in plan.program.globals}
    return plan.mean_field.start(params)


def restart_keys(key: Array, restarts: int) -> Array:
    """A key for every restart. The first is that of a fit without restarts: more of them end no lower."""
    return jnp.concatenate([key[None], jax.random.split(key, restarts)[1:]])


def resolve(
    plan: Plan, rows: Rows, init: Initializer | None, key: Array, restarts: int, fixed: Params | None = None
) -> tuple[Seeding | None, Start]:
    """What an initialiser asks for: how to draw seeds, if that is what it does, and the start.

    ``fixed`` holds the values of what stays (``probem.fixed``).

    Raises
    ------
    InputError
        For values of the wrong shape or off their constraint, or several restarts from one given start.
    """

    def held_fast(params: Params) -> Params:
        masks = tuple(own for own in plan.fixed if own[0] in params)
        return impose(plan.program, masks, params, fixed or {})

    initial = held_fast(initial_params(plan, rows.data))
    if isinstance(init, Parameters) and init.others is not None:
        seeding, start = resolve(plan, rows, init.others, key, restarts, fixed)
        if start.params is not None:
            raise InputError(
                "parameters beside other parameters as a start", "labels, responsibilities or seeds", "give them once"
            )
        return seeding, start._replace(given=held_fast(_checked(plan, initial, rows, Parameters(init.values))))
    keys = restart_keys(key, restarts) if restarts > 1 else key
    init = KMeansPlusPlus() if init is None else init
    if isinstance(init, Seeding):
        return init, Start(initial, key=keys)
    if isinstance(init, Given):
        if restarts > 1:
            raise InputError(
                f"restarts={restarts} from one given start",
                "restarts=1 with it",
                "leave restarts out, or start at random",
            )
        found = [init]
    elif callable(init):
        seen = observed_rows(plan, rows.data, rows.missing)
        found = [as_given(init(own, seen)) for own in (keys if restarts > 1 else [key])]
    else:
        raise InputError(
            f"init of type {type(init).__name__}",
            "an initialiser",
            "use KMeansPlusPlus(), RandomRows(), Parameters, Labels, Responsibilities or a function of (key, rows)",
        )
    values: list[Any] = [_checked(plan, initial, rows, one) for one in found]
    if len({type(one) for one in found}) > 1:
        raise InputError(
            "different kinds of start from the initialiser", "the same kind for every key", "return one kind"
        )
    if isinstance(found[0], Parameters):
        values = [held_fast({**initial, **own}) for own in values]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *values) if restarts > 1 else values[0]
    if isinstance(found[0], Parameters):
        return None, Start(initial, params=stacked)
    return None, Start(initial, held=stacked)


def _checked(plan: Plan, initial: Params, rows: Rows, given: Given) -> Any:
    """What was given, as arrays of the plan's dtype."""
    posteriors = _given_posteriors(plan, initial, given)
    found = check_given(_without(given, plan.mean_field.full), plan.program, rows.num_rows)
    if isinstance(found, Parameters):
        return jax.tree.map(lambda value: jnp.asarray(value, plan.dtype), {**found.values, **posteriors})
    return jnp.asarray(found.values, jnp.int32 if isinstance(found, Labels) else plan.dtype)


def _without(given: Given, names: Collection[str]) -> Given:
    if not isinstance(given, Parameters):
        return given
    return Parameters({name: value for name, value in given.values.items() if name not in names})


def _given_posteriors(plan: Plan, initial: Params, given: Given) -> Params:
    """The q of sites with a full posterior in a start, checked: arguments by name, as ``Fit.variational`` has them."""
    named = {} if not isinstance(given, Parameters) else given.values
    found = {name: value for name, value in named.items() if name in plan.mean_field.full}
    for name, value in found.items():
        shapes = {argument: np.shape(own) for argument, own in initial[name].items()}
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
    plan: Plan, seeding: Seeding | None, start: Start, block: Block, added_variance: Array | None, restarts: int
) -> tuple[Prepared, Block, State]:
    """All that comes before the loop, for data in one block: what the pass needs of it, and the first state."""
    prepared, kept, draw = _drawing(plan, seeding, block, added_variance)

    def begin(start: Start) -> State:
        if start.params is not None:
            return loop.start(plan, start.params, prepared)
        held, seeds = draw(start)
        return _from_held(plan, start, prepared, [kept], [held], seeds, inline, 1)

    return prepared, kept, jax.vmap(begin, in_axes=(start.axes,))(start) if restarts > 1 else begin(start)


def _drawing(
    plan: Plan, seeding: Seeding | None, block: Block, added_variance: Array | None
) -> tuple[Prepared, Block, Callable[[Start], tuple[Array, Array | None]]]:
    """What the pass needs of one block; and the q to be held that a start asks for, and the seeds that led to it."""
    rows = observed_rows(plan, block.data, block.missing)
    prepared, (kept,) = prepare(plan, [block], inline)

    def draw(start: Start) -> tuple[Array, Array | None]:
        if start.held is not None:
            return _with_known(plan, padded(start.held, block.size), block), None
        assert seeding is not None
        assert start.key is not None
        sums = None if block.labels is None else _known(_class_sums(plan, _no_sums(plan), block))
        seeds = seeding.seeds(start.key, rows, block.weights.astype(plan.dtype), plan.num_components, sums)
        return _with_known(plan, nearest_seed(rows, seeds, plan.form.partial), block), seeds

    return prepared._replace(added_variance=added_variance), kept, draw


#: ``begin_in_trace``, compiled.
begin_in_block = by_plan(begin_in_trace, static_argnums=(1, 5))


def begin_from_host(
    plan: Plan,
    seeding: Seeding | None,
    start: Start,
    block: Block,
    added_variance: Array | None,
    limits: Limits,
    restarts: int,
) -> tuple[Prepared, Block, State, tuple[Held, ...] | None]:
    """What ``begin_in_block`` makes, and a q that was held for a start and is released.

    The loop itself makes the first steps of the gradient route, so that they are compiled once.
    """
    if not plan.gradient or not _releases(plan, start):
        return *begin_in_block(plan, seeding, start, block, added_variance, restarts), None
    prepared, kept, attempts = _begin_attempts(plan, seeding, start, block, added_variance, restarts)
    call, run, limits = from_host(restarts > 1), loop.compiled_run(restarts > 1), _held_limits(limits)
    labels = (loop.no_labels(plan, block.size, restarts),)
    made = []
    for state, _, held in attempts:
        own = _hold(held, True, restarts)
        climbed, _, _ = run(plan, state, labels, prepared, (kept,), limits, _held_steps(plan), own)
        made.append((call(_freshly, 0, None)(plan, climbed, prepared), climbed.last))
    return prepared, kept, _best(plan, made, call, restarts), _hold(attempts[0].held, False, restarts)


def _hold(held: Sequence[Array], active: bool | None, restarts: int) -> tuple[Held, ...]:
    """Block by block."""
    number: Any = active if active is None else np.full(restarts if restarts > 1 else (), active)
    return tuple(Held(own, number) for own in held)


def _is_active(plan: Plan, start: Start, call: Call) -> bool | None:
    """Whether a q that is held can be released: where the loop follows that was compiled for both."""
    return True if call is not inline and plan.gradient and _releases(plan, start) else None


def _releases(plan: Plan, start: Start) -> bool:
    """Whether the computation of a step can serve the q that the start holds as well."""
    labels = start.held is None or jnp.issubdtype(start.held.dtype, jnp.integer)
    return start.params is None and can_be_released(plan, labels)


def begin_in_blocks(
    plan: Plan,
    seeding: Seeding | None,
    start: Start,
    rows: Rows,
    blocks: Sequence[Block],
    added_variance: Array | None,
    restarts: int,
) -> tuple[Prepared, list[Block], State, tuple[Held, ...] | None]:
    """What ``begin_from_host`` makes, for data in several blocks."""
    call = from_host(restarts > 1)
    prepared, kept = prepare(plan, blocks, from_host(False))
    prepared = prepared._replace(added_variance=added_variance)
    if start.params is not None:
        return prepared, kept, call(loop.start, 0, None)(plan, start.params, prepared), None
    seeds = None
    if start.held is not None:
        batch = start.held if restarts > 1 else start.held[None]
        cuts = [[part.data[0] for part in to_blocks(Rows((one,)), blocks[0].size, plan.dtype)] for one in batch]
        held = [jnp.stack(parts) if restarts > 1 else parts[0] for parts in zip(*cuts, strict=True)]
    else:
        assert start.key is not None
        assert seeding is not None
        known = None
        if rows.labels is not None:
            sums = _no_sums(plan)
            for block in blocks:
                sums = from_host(False)(_class_sums)(plan, sums, block)
            known = _known(sums)
        # Each restart draws from rows of its own: what one sample leaves out, another has.
        each = [
            _drawn_seeds(plan, seeding, key, *_sample(plan, rows, key), known)
            for key in (start.key if restarts > 1 else [start.key])
        ]
        seeds = jnp.stack(each) if restarts > 1 else each[0]
        held = [call(_seed_labels, 0, None)(plan, seeds, block) for block in blocks]
    held = [call(_with_known, 0, None)(plan, own, block) for own, block in zip(held, blocks, strict=True)]
    state = _from_held(plan, start, prepared, kept, held, seeds, call, restarts)
    return prepared, kept, state, _hold(held, False, restarts) if _is_active(plan, start, call) else None


def _sample(plan: Plan, rows: Rows, key: Array) -> tuple[Array, Array]:
    """The rows that seeds are drawn from, a fixed number, and their weights."""
    capacity = min(seed_rows(plan.num_observed * jnp.dtype(plan.dtype).itemsize), plan.small.block_rows)
    seed = np.asarray(jax.random.key_data(key)).reshape(-1)
    counted = np.arange(rows.num_rows) if rows.weights is None else np.flatnonzero(rows.weights)
    index = np.random.default_rng(seed).choice(counted, min(capacity, len(counted)), replace=False)
    weights = np.ones(len(index)) if rows.weights is None else rows.weights[index]
    # What is left over has no weight.
    index = np.pad(index, (0, capacity - len(index)), mode="edge")
    chosen, missing = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), (rows.data, rows.missing))
    return _observed_rows(plan, chosen, missing), jnp.asarray(np.pad(weights, (0, capacity - len(weights))), plan.dtype)


@functools.partial(by_plan, static_argnums=(1,))
def _drawn_seeds(
    plan: Plan, seeding: Seeding, key: Array, rows: Array, row_weights: Array, known: Known | None
) -> Array:
    return seeding.seeds(key, rows, row_weights, plan.num_components, known)


def _seed_labels(plan: Plan, seeds: Array, block: Block) -> Array:
    return nearest_seed(observed_rows(plan, block.data, block.missing), seeds, plan.form.partial)


def _with_known(plan: Plan, held: Array, block: Block) -> Array:
    """The q that is held, labels ``[B]`` or responsibilities ``[B, K]``, where an assignment is known."""
    if block.labels is None:
        return held
    if held.ndim == 1:
        return jnp.where(block.labels < 0, held, block.labels)
    own = jax.nn.one_hot(block.labels, plan.num_components, dtype=held.dtype)
    return jnp.where((block.labels < 0)[:, None], held, own)


def _no_sums(plan: Plan) -> tuple[Array, Array]:
    count = plan.num_components
    return jnp.zeros((count, plan.num_observed), plan.dtype), jnp.zeros((count, plan.num_observed), plan.dtype)


def _class_sums(plan: Plan, sums: tuple[Array, Array], block: Block) -> tuple[Array, Array]:
    """Add the rows whose assignment is known: sums and weights ``[K, F]``."""
    assert block.labels is not None
    own = jax.nn.one_hot(block.labels, plan.num_components, dtype=plan.dtype)
    own = own * block.weights.astype(plan.dtype)[:, None]
    rows = observed_rows(plan, block.data, block.missing)
    seen = ~jnp.isnan(rows)
    return sums[0] + own.T @ jnp.where(seen, rows, 0.0), sums[1] + own.T @ seen.astype(plan.dtype)


def _known(sums: tuple[Array, Array]) -> Known:
    """The mean of its known rows is the seed of a component that has any."""
    means = sums[0] / jnp.where(sums[1] > 0, sums[1], 1.0)
    return Known(jnp.where(sums[1] > 0, means, jnp.nan), (sums[1] > 0).any(1))


_Made = TypeVar("_Made")


class _Attempt(NamedTuple):
    """The state after the M-step under a q that is held, and F under that q, but for what does not depend on the order
    of the components.
    """

    state: State
    value: Array
    held: tuple[Array, ...]


@functools.partial(by_plan, static_argnums=(1, 5))
def _begin_attempts(
    plan: Plan, seeding: Seeding | None, start: Start, block: Block, added_variance: Array | None, restarts: int
) -> tuple[Prepared, Block, list[_Attempt]]:
    """What the pass needs of one block, and the attempts of a start."""
    prepared, kept, draw = _drawing(plan, seeding, block, added_variance)

    def begin(start: Start) -> list[_Attempt]:
        held, seeds = draw(start)
        return _attempts(plan, start, prepared, [kept], [held], seeds, inline, 1, lambda made: made)

    made = jax.vmap(begin, in_axes=(start.axes,))(start) if restarts > 1 else begin(start)
    return prepared, kept, made


def _from_held(
    plan: Plan,
    start: Start,
    prepared: Prepared,
    blocks: Sequence[Block],
    held: Sequence[Array],
    seeds: Array | None,
    call: Call,
    restarts: int,
) -> State:
    """The M-step under a given q; for the gradient route, some more steps with that q held."""

    def climb(made: _Attempt) -> tuple[State, Array]:
        if not plan.gradient:
            return made.state, made.value
        return _climbed(plan, made, prepared, blocks, _is_active(plan, start, call), call, restarts)

    return _best(plan, _attempts(plan, start, prepared, blocks, held, seeds, call, restarts, climb), call, restarts)


def _attempts(
    plan: Plan,
    start: Start,
    prepared: Prepared,
    blocks: Sequence[Block],
    held: Sequence[Array],
    seeds: Array | None,
    call: Call,
    restarts: int,
    after: Callable[[_Attempt], _Made],
) -> list[_Made]:
    """What ``after`` makes of the M-step under a given q, for each order of the components that is worth trying.

    Where ``seeds`` [K, F] led to that q, components may differ in more than the values of their parameters, and each is
    given the seeds in the order with the highest F. Known labels say which component is which.
    """

    def attempt(held: Sequence[Array], maximised: Callable[..., State]) -> _Made:
        return after(_from_order(plan, start, prepared, blocks, held, maximised, call, restarts))

    def in_order(order: Array) -> _Made:
        own = [call(reordered_labels, 0, 0)(plan, labels, order) for labels in held]
        return attempt(own, _maximised_softly)

    if seeds is None or blocks[0].labels is not None or (plan.is_exchangeable and start.given is None):
        return [attempt(held, _maximised if seeds is None else _maximised_softly)]
    if not plan.form.generic:
        return [attempt(held, _maximised_in_order)]
    orders = call(orders_by_passes, 0)(plan, seeds)
    if call is inline:
        made = jax.lax.map(in_order, orders)
        return [jax.tree.map(lambda leaf, row=row: leaf[row], made) for row in range(len(orders))]
    return [in_order(order) for order in jnp.moveaxis(orders, int(restarts > 1), 0)]


def _best(plan: Plan, made: Sequence[tuple[State, Array]], call: Call, restarts: int) -> State:
    """Of the states under several orders that with the highest F."""
    if len(made) == 1:
        return made[0][0]
    states, values = jax.tree.map(lambda *leaves: jnp.stack(leaves, int(restarts > 1)), *made)
    return call(best_state, 0, 0)(plan, states, values)


def _from_order(
    plan: Plan,
    start: Start,
    prepared: Prepared,
    blocks: Sequence[Block],
    held: Sequence[Array],
    maximised: Callable[..., State],
    call: Call,
    restarts: int,
) -> _Attempt:
    """The M-step under a given q."""
    size, initial, active = blocks[0].size, start.initial, _is_active(plan, start, call)
    if restarts > 1:
        initial = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (restarts, *leaf.shape)), initial)
    labels = jnp.zeros((restarts, size) if restarts > 1 else (size,), jnp.int32)
    state = call(loop.start, 0, None)(plan, initial, prepared)
    if plan.softens_labels and held[0].ndim == 1 + int(restarts > 1):
        soften = call(softened, 0, 0, 0, None, None)
        held = [
            soften(plan, own, state.params, state.linear, prepared, block)
            for own, block in zip(held, blocks, strict=True)
        ]
    if plan.form.completing:
        sums = call(available.no_sums, 0)(plan, state)
        for block, own in zip(blocks, held, strict=True):
            sums = call(available.add_sums, 0, 0, None, None)(plan, sums, own, prepared, block)
        state = call(available.filled_by, 0, 0)(plan, state, sums)
    summary, _ = loop.visit(plan, state, [labels] * len(blocks), _hold(held, active, restarts), prepared, blocks, call)
    state = call(maximised, 0, 0, None, None)(plan, state, summary, prepared, start.given)
    value = call(_value, 0, 0, None)(plan, state, summary, prepared) if plan.form.generic else state.last
    return _Attempt(state, value, tuple(held))


def _climbed(
    plan: Plan,
    made: _Attempt,
    prepared: Prepared,
    blocks: Sequence[Block],
    active: bool | None,
    call: Call,
    restarts: int,
) -> tuple[State, Array]:
    """The state after some steps of the gradient route under the q that is held, and F under that q."""
    limits, num_steps = _held_limits(Limits(Stopping(), jnp.zeros((), jnp.int32))), _held_steps(plan)
    # A q of labels has labels, whatever the family, until it is released.
    size = (restarts, blocks[0].size) if restarts > 1 else (blocks[0].size,)
    empty = jnp.full(size, -1, jnp.int32) if active is None else loop.no_labels(plan, blocks[0].size, restarts)
    labels = [empty] * len(blocks)
    held = _hold(made.held, active, restarts)

    def held_step(state: State) -> State:
        return loop.step(plan, state, labels, held, prepared, blocks, limits, call)[0]

    def is_short(state: State) -> Array:
        return (state.step < num_steps) & loop.goes_on(state, prepared, limits)

    if call is inline:
        state = jax.lax.while_loop(is_short, held_step, made.state)
    else:
        state, short = made.state, jax.vmap(is_short) if restarts > 1 else is_short
        while bool(short(state).any()):
            state = held_step(state)
    return call(_freshly, 0, None)(plan, state, prepared), state.last


def _held_steps(plan: Plan) -> int:
    # Shares have a closed form.
    return 1 if plan.gradient_is_multinomial else _HELD_STEPS


def _held_limits(limits: Limits) -> Limits:
    """The limits of a fit for steps under a q that is held: no rule ends those."""
    return limits._replace(max_steps=jnp.asarray(_HELD_STEPS + 1, jnp.int32), is_held=np.asarray(True))


def _freshly(plan: Plan, state: State, prepared: Prepared) -> State:
    """What was learned of the curvature stays; how the last steps under the held q went says nothing."""
    fresh = loop.start(plan, state.params, prepared)
    return fresh._replace(ascent=fresh.ascent._replace(inverse=state.ascent.inverse, origin=state.ascent.origin))


def _maximised(plan: Plan, state: State, summary: Summary, prepared: Prepared, given: Params | None) -> State:
    """The state after the M-step under the q that was given."""
    stats = soften_zeros(plan, statistics(plan, summary, prepared))
    return _started(plan, _m_step(plan, stats, state, prepared, given), stats, prepared)


def _maximised_softly(plan: Plan, state: State, summary: Summary, prepared: Prepared, given: Params | None) -> State:
    """The same for a q of seeds: where one has too few rows for a spread, every component gets some of all rows."""
    stats = soften_zeros(plan, statistics(plan, summary, prepared))
    params, stats = _softly(plan, stats, state, prepared, given)
    return _started(plan, params, stats, prepared)


def _maximised_in_order(plan: Plan, state: State, summary: Summary, prepared: Prepared, given: Params | None) -> State:
    """The same in the order of the seeds with the highest F."""
    stats = soften_zeros(plan, statistics(plan, summary, prepared))
    softly = functools.partial(_softly, plan, state=state, prepared=prepared, given=given)
    params, stats = maximised_in_best_order(plan, stats, prepared, softly)
    return _started(plan, params, stats, prepared)


def _value(plan: Plan, state: State, summary: Summary, prepared: Prepared) -> Array:
    """F under the q of the summary, but for what does not depend on the order of the components."""
    return value_of(state.linear, state.log_prior, statistics(plan, summary, prepared)) + summary.generic.sum()


def _softly(
    plan: Plan, stats: Statistics, state: State, prepared: Prepared, given: Params | None
) -> tuple[Params, Statistics]:
    """Parameters, and the statistics that they were made of."""
    if not plan.spreads:
        return _m_step(plan, stats, state, prepared, given), stats
    softened = soften_counts(plan, stats, prepared.total_weight)
    # One after the other, and compiled once.
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), stats, softened)
    made = jax.lax.map(lambda own: _m_step(plan, own, state, prepared, given), both)
    broken = collapsed(plan, stats, jax.tree.map(lambda leaf: leaf[0], made)).any()
    return jax.tree.map(lambda leaf: leaf[broken.astype(int)], (made, both))


def _m_step(plan: Plan, stats: Statistics, state: State, prepared: Prepared, given: Params | None) -> Params:
    params = maximise(plan, widened(plan.form, stats, prepared.added_variance), state.params)
    return {**params, **(given or {})}


def _started(plan: Plan, params: Params, stats: Statistics, prepared: Prepared) -> State:
    broken = collapsed(plan, stats, params) if plan.spreads else jnp.zeros(plan.num_components, bool)
    code = jnp.where(broken.any(), RESULTS.index(Result.SINGULAR), RUNNING).astype(jnp.int32)
    fresh = loop.start(plan, params, prepared)
    return fresh._replace(code=code, component=jnp.argmax(broken).astype(jnp.int32))
