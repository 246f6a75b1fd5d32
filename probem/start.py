"""From an initialiser to the first state of the loop."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers

from . import ascent, available, loop
from .calls import Call, from_host, inline
from .compiled import by_plan
from .data import Block, Rows, padded, to_blocks
from .errors import InputError
from .expectation import Prepared, Summary, statistics
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
# Nats a row that may be left to gain under that q.
_HELD_TOLERANCE = 1e-6
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


@functools.partial(by_plan, foreign=True)
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
    rows = observed_rows(plan, block.data, block.missing)
    prepared, (kept,) = prepare(plan, [block], inline)
    prepared = prepared._replace(added_variance=added_variance)

    def begin(start: Start) -> State:
        if start.params is not None:
            return loop.start(plan, start.params, prepared)
        if start.held is not None:
            seeds, held = None, padded(start.held, block.size)
        else:
            seeds = drawn_seeds(start.key)
            held = nearest_seed(rows, seeds, plan.form.partial)
        held = _with_known(plan, held, block)
        return _from_held(plan, start, prepared, [kept], [held], seeds, inline, 1)

    def drawn_seeds(key: Array | None) -> Array:
        assert seeding is not None
        assert key is not None
        known = None if block.labels is None else _known(_class_sums(plan, _no_sums(plan), block))
        return seeding.seeds(key, rows, block.weights.astype(plan.dtype), plan.num_components, known)

    return prepared, kept, jax.vmap(begin, in_axes=(start.axes,))(start) if restarts > 1 else begin(start)


#: ``begin_in_trace``, compiled.
begin_in_block = by_plan(begin_in_trace, static_argnums=(1, 5))


def begin_in_blocks(
    plan: Plan,
    seeding: Seeding | None,
    start: Start,
    rows: Rows,
    blocks: Sequence[Block],
    added_variance: Array | None,
    restarts: int,
) -> tuple[Prepared, list[Block], State]:
    """The same for data in several blocks, from the host."""
    call = from_host(restarts > 1)
    prepared, kept = prepare(plan, blocks, from_host(False))
    prepared = prepared._replace(added_variance=added_variance)
    if start.params is not None:
        return prepared, kept, call(loop.start, 0, None)(plan, start.params, prepared)
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
    return prepared, kept, _from_held(plan, start, prepared, kept, held, seeds, call, restarts)


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
    """The M-step under a given q; for the gradient route, some more steps with that q held.

    Where ``seeds`` [K, F] led to that q, and components differ in more than the values of their parameters, in the
    order of the seeds with the highest F. Known labels say which component is which.
    """
    if seeds is None or blocks[0].labels is not None or (plan.is_exchangeable and start.given is None):
        maximised = _maximised if seeds is None else _maximised_softly
        return _from_order(plan, start, prepared, blocks, held, maximised, call, restarts)[0]
    if not plan.form.generic:
        return _from_order(plan, start, prepared, blocks, held, _maximised_in_order, call, restarts)[0]

    def begin(order: Array) -> tuple[State, Array]:
        own = [call(reordered_labels, 0, 0)(plan, labels, order) for labels in held]
        return _from_order(plan, start, prepared, blocks, own, _maximised_softly, call, restarts)

    orders = call(orders_by_passes, 0)(plan, seeds)
    if call is inline:
        return best_state(plan, *jax.lax.map(begin, orders))
    axis = int(restarts > 1)
    made = [begin(order) for order in jnp.moveaxis(orders, axis, 0)]
    return call(best_state, 0, 0)(plan, *jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *made))


def _from_order(
    plan: Plan,
    start: Start,
    prepared: Prepared,
    blocks: Sequence[Block],
    held: Sequence[Array],
    maximised: Callable[..., State],
    call: Call,
    restarts: int,
) -> tuple[State, Array]:
    """The state under a given q, and its F, but for what does not depend on the order of the components."""
    size, initial = blocks[0].size, start.initial
    if restarts > 1:
        initial = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (restarts, *leaf.shape)), initial)
    labels = jnp.zeros((restarts, size) if restarts > 1 else (size,), jnp.int32)
    state = call(loop.start, 0, None)(plan, initial, prepared)
    if plan.form.completing:
        sums = call(available.no_sums, 0)(plan, state)
        for block, own in zip(blocks, held, strict=True):
            sums = call(available.add_sums, 0, 0, None, None)(plan, sums, own, prepared, block)
        state = call(available.filled_by, 0, 0)(plan, state, sums)
    summary, _ = loop.visit(plan, state, [labels] * len(blocks), held, prepared, blocks, call)
    state = call(maximised, 0, 0, None, None)(plan, state, summary, prepared, start.given)
    value = call(_value, 0, 0, None)(plan, state, summary, prepared) if plan.form.generic else state.last
    if plan.gradient:
        limits = Limits(Stopping(), jnp.asarray(_HELD_STEPS + 1, jnp.int32))

        allowed = _HELD_TOLERANCE * prepared.total_weight
        # Shares have a closed form.
        num_steps = 1 if plan.gradient_is_multinomial else _HELD_STEPS

        def held_step(state: State) -> State:
            return loop.step(plan, state, [labels] * len(blocks), held, prepared, blocks, limits, call)[0]

        def is_short(state: State) -> Array:
            return (state.step < num_steps) & ~ascent.is_settled(state.ascent, allowed)

        if call is inline:
            state = jax.lax.while_loop(is_short, held_step, state)
        else:
            short = jax.vmap(is_short) if restarts > 1 else is_short
            while bool(short(state).any()):
                state = held_step(state)
        value = state.last
        # What was learned of the curvature stays; how the last steps under the held q went says nothing.
        fresh = call(loop.start, 0, None)(plan, state.params, prepared)
        state = fresh._replace(ascent=fresh.ascent._replace(inverse_hessian=state.ascent.inverse_hessian))
    return state, value


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
    return value_of(state.linear, state.log_prior, statistics(plan, summary, prepared)) + summary.generic


def _softly(
    plan: Plan, stats: Statistics, state: State, prepared: Prepared, given: Params | None
) -> tuple[Params, Statistics]:
    """Parameters, and the statistics that they were made of."""
    params = _m_step(plan, stats, state, prepared, given)
    if not plan.spreads:
        return params, stats
    softened = soften_counts(plan, stats, prepared.total_weight)
    softly = _m_step(plan, softened, state, prepared, given)
    broken = collapsed(plan, stats, params).any()
    params = jax.tree.map(lambda soft, own: jnp.where(broken, soft, own), softly, params)
    return params, jax.tree.map(lambda a, b: jnp.where(broken, a, b), softened, stats)


def _m_step(plan: Plan, stats: Statistics, state: State, prepared: Prepared, given: Params | None) -> Params:
    params = maximise(plan, widened(plan.form, stats, prepared.added_variance), state.params)
    return {**params, **(given or {})}


def _started(plan: Plan, params: Params, stats: Statistics, prepared: Prepared) -> State:
    broken = collapsed(plan, stats, params) if plan.spreads else jnp.zeros(plan.num_components, bool)
    code = jnp.where(broken.any(), RESULTS.index(Result.SINGULAR), RUNNING).astype(jnp.int32)
    fresh = loop.start(plan, params, prepared)
    return fresh._replace(code=code, component=jnp.argmax(broken).astype(jnp.int32))
