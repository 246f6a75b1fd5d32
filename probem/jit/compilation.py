"""Compiled functions, kept while there is room for them.

On a CPU each kernel of jaxlib 0.10 has memory maps of its own, some 700 for EM of a new Gaussian mixture and 1200 for
variational Bayes, and Linux ends a process that has more than ``vm.max_map_count`` (65530, unless somebody raised it).
``jax.jit`` keeps what it compiled for a static argument for good. Here every structure of a plan has its own functions,
and those of the structures longest unused are given up, to be compiled again when they are asked for, before maps run
out.

Code of NumPyro or of a user that is compiled here runs one operation after another: see ``exponential/linalg.py`` for
what waits for itself otherwise.
"""

import dataclasses
import enum
import functools
import gc
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

# Options of the compiler are refused inside a function that is being compiled, whatever its arguments are.
from jax.extend.core import (
    unsafe_am_i_under_a_jit_DO_NOT_USE as is_inside_jit,  # pyright: ignore[reportPrivateImportUsage]
)

from probem.errors import InputError
from probem.jit.structure import Numbered, origin, structural

#: Fewer numbers in the rows than these do not repay optimising what runs once a fit, and what runs in all of its steps.
FEW_ONCE, FEW_IN_STEPS = 2**16, 2**12
#: As many numbers repay the fusion emitters of XLA 0.10 in a pass of point masses, whose sums they scatter three times
#: as fast. Of other passes they slow down more than they speed up; and they double the time to compile.
MANY_OF_POINTS = 2**19
# The share of the maps of a process beyond which functions are given up.
_FULL = 0.6
# The maps of one function, at most.
_MOST_MAPS = 1500
# An array no larger is kept until the next call, only to wait for it.
_KEPT_ENTRIES = 10_000
# The most programs for which one function that runs in planning is kept.
_MOST_CONCRETE = 64


class Effort(enum.Enum):
    """How long the compiler may take."""

    LEAST = "without optimisation: half the time"
    LESS = "without the fusion emitters of XLA 0.10: half the time there"
    MOST = "with all that XLA does"


@runtime_checkable
class Key(Numbered, Protocol):
    """What functions are compiled for, a plan: those of equal structure share what is compiled."""

    @property
    def runs_foreign_code(self) -> bool:
        """Whether the function runs code of NumPyro or of a user."""
        ...


@dataclasses.dataclass(eq=False)
class _Kept:
    """Compiled functions by what they were compiled for, those used last at the end."""

    functions: "OrderedDict[Hashable, Callable[..., Any]]" = dataclasses.field(default_factory=OrderedDict)


# Threads may fit side by side: what is kept here is looked up under one lock.
_lock = threading.RLock()
_of_plans: "OrderedDict[Hashable, dict[Hashable, Callable[..., Any]]]" = OrderedDict()
_concrete: "weakref.WeakSet[_Kept]" = weakref.WeakSet()


def by_plan(
    function: Callable[..., Any],
    static_argnums: tuple[int, ...] = (),
    foreign: bool = False,
    effort: Effort = Effort.LESS,
) -> Callable[..., Any]:
    """``jax.jit`` of a function of a plan, whose structure is known while tracing, as are the arguments
    ``static_argnums``; the numbers of the plan are traced.

    ``foreign`` says that it runs code of NumPyro or of a user whatever the plan.
    """

    @functools.wraps(function)
    def call(plan: Key, *arguments: Any) -> Any:
        (numbers, of_numbers), structure = _on_device(plan), plan.structure
        # A computation that is part of another is compiled with that one, by whoever asked for it.
        leaves = of_numbers + jax.tree.leaves(arguments)
        outermost = not (any(isinstance(leaf, Tracer) for leaf in leaves) or is_compiling())
        alone = outermost and (foreign or plan.runs_foreign_code) and bool(one_by_one())
        options: dict[str, Any] = one_by_one() if alone else {}
        if outermost:
            options = options | compiler_options(effort)
        key = (function, tuple(options), tuple(arguments[number - 1] for number in static_argnums))
        with _lock:
            run = _of_plans[structure].get(key) if structure in _of_plans else None
            if run is None:
                make_room()
                bound = _with_numbers(function, origin(plan))
                # The numbers stand in the place of the plan.
                run = jax.jit(bound, static_argnums=static_argnums, compiler_options=options)
                _of_plans.setdefault(structure, {})[key] = run
            _of_plans.move_to_end(structure)
        return _alone(run, numbers, *arguments) if alone else run(numbers, *arguments)

    return call


def _on_device(owner: Numbered) -> tuple[Any, list[Any]]:
    """The numbers of an owner as JAX has them, moved there once, traced ones as they are; and those that are traced, or
    the largest of them.
    """
    if origin(owner) is not owner:
        return owner.numbers, jax.tree.leaves(owner.numbers)
    kept, precision = vars(owner).setdefault("_moved", {}), bool(jax.config.read("jax_enable_x64"))
    if precision not in kept:
        with jax.ensure_compile_time_eval():
            moved = jax.device_put(owner.numbers)
        kept[precision] = moved, sorted(jax.tree.leaves(moved), key=np.size)[-1:]
    return kept[precision]


def _with_numbers(function: Callable[..., Any], owner: Numbered, **static: Any) -> Callable[..., Any]:
    """The function of an owner as one of its numbers."""

    @functools.wraps(function)
    def bound(numbers: Any, *arguments: Any) -> Any:
        return function(owner.with_numbers(numbers), *arguments, **static)

    return bound


def is_compiling() -> bool:
    """Whether a caller is being compiled, so that what is computed now is part of that."""
    return bool(is_inside_jit())


def check_hashable(value: Any, role: str, kind: str) -> None:
    """Refuse what functions cannot be compiled for; ``role`` and ``kind`` say what it is to be.

    Raises
    ------
    InputError
        For an object that cannot be hashed, or that equals another of other numbers: a subclass of a dataclass which is
        none itself compares the fields of its base alone.
    """
    try:
        hash(value)
    except TypeError:
        raise InputError(
            f"{type(value).__name__} as {role}, which cannot be hashed",
            f"an immutable {kind}: what is compiled is kept for it",
            "make it a frozen dataclass, with tuples in place of lists and arrays",
        ) from None
    compares = next(base for base in type(value).__mro__ if "__eq__" in vars(base))
    if "__dataclass_fields__" in vars(compares):
        seen = {field.name for field in dataclasses.fields(compares) if field.compare}
        cached = {name for base in type(value).__mro__ for name, part in vars(base).items() if is_cached(part)}
        if unseen := [name for name in vars(value) if name not in seen | cached]:
            raise InputError(
                f"{type(value).__name__} as {role}, whose {', '.join(unseen)} its equality does not see",
                f"an immutable {kind}, all of whose numbers are fields: what is compiled is kept for it",
                "decorate the class with dataclasses.dataclass(frozen=True)",
            )


def is_cached(attribute: Any) -> bool:
    """Whether an attribute of a class is worked out once, and kept among the others of an object."""
    return isinstance(attribute, functools.cached_property)


def concrete(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of an owner, such as a program, compiled by itself: NumPy arrays in and out, even while a caller
    traces. Arguments by name are static; those of equal content share what is compiled.

    What a program *is* does not depend on its data, and is found out with numbers, once.
    """
    kept = _Kept()
    with _lock:
        _concrete.add(kept)

    @functools.wraps(function)
    def call(owner: Numbered, *arguments: Any, **static: Any) -> Any:
        owner = origin(owner)
        numbers = owner.numbers
        leaves, treedef = jax.tree.flatten((numbers, arguments))
        # The precision, too: outside of it NumPy's float64 is another.
        kinds = tuple((np.shape(leaf), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves)
        key = (owner.structure, structural(static), treedef, kinds, str(jnp.result_type(float)))
        with _lock:
            run = kept.functions.get(key)
            if run is not None:
                kept.functions.move_to_end(key)
        if run is None:
            make_room()
            bound = jax.jit(_with_numbers(function, owner, **static))
            run = bound.lower(numbers, *arguments).compile(compiler_options(Effort.LEAST) | one_by_one())
            with _lock:
                kept.functions[key] = run
                while len(kept.functions) > _MOST_CONCRETE:
                    kept.functions.popitem(last=False)
        returned = _alone(run, numbers, *arguments) if one_by_one() else run(numbers, *arguments)
        return jax.tree.map(np.asarray, returned)

    # What is kept lives as long as the function.
    vars(call)["_kept"] = kept
    return call


def of_foreign_code(function: Callable[..., Any], effort: Effort = Effort.LEAST) -> Callable[..., Any]:
    """``jax.jit`` of a function of arrays that runs code of NumPyro or of a user, for the host; whoever asked keeps it.

    What the function closes over is a part of what is compiled; arrays of any size are better among its arguments.
    """
    run = jax.jit(function, compiler_options=compiler_options(effort) | one_by_one())

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        make_room()
        return _alone(run, *arguments) if one_by_one() else run(*arguments)

    return call


class _Turn:
    """Which thread ran code of NumPyro or of a user last, and the smallest array that this returned."""

    lock = threading.RLock()
    thread = 0
    returned: Any = None


def _alone(run: Callable[..., Any], *arguments: Any) -> Any:
    """Run what needs ``one_by_one`` in one thread at a time: two that each run one such operation wait for ever, too.

    The turn comes before ``tracing.HANDLERS``, which ``run`` may need in order to trace.
    """
    with _Turn.lock:
        if _Turn.thread != threading.get_ident():
            # What another thread has called may not have come to its end.
            jax.block_until_ready(_Turn.returned)
        returned = run(*arguments)
        smallest: Any = min(jax.tree.leaves(returned), key=np.size, default=None)
        if np.size(smallest) > _KEPT_ENTRIES:
            jax.block_until_ready(smallest)
            smallest = None
        _Turn.thread, _Turn.returned = threading.get_ident(), None if isinstance(smallest, Tracer) else smallest
    return returned


@functools.cache
def one_by_one() -> dict[str, Any]:
    """Options of the compiler with which operations that do not depend on each other do not run side by side."""
    return _if_there({"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"})


@functools.cache
def compiler_options(effort: Effort) -> dict[str, Any]:
    """Options of the compiler with which it takes so much time."""
    unoptimised = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    without_emitters = {} if effort is Effort.MOST else _if_there({"xla_cpu_use_fusion_emitters": False})
    return (unoptimised if effort is Effort.LEAST else {}) | without_emitters


def _if_there(options: dict[str, Any]) -> dict[str, Any]:
    """The options, or none where XLA does not have them; JAX 0.12 needs none of them."""
    if jax.__version_info__ >= (0, 12):
        return {}
    try:
        jax.jit(lambda: 0).lower().compile(options)
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def make_room() -> None:
    """Give up functions until there are maps for one more: first those that run once, then those of whole plans."""
    most = _most_maps()
    with _lock:
        if most is None or _maps.are_few(_FULL * most):
            return
        for kept in list(_concrete):
            kept.functions.clear()
        gc.collect()
        while _of_plans and _num_maps() >= _FULL * most:
            for _ in range(1 + len(_of_plans) // 4):
                _of_plans.popitem(last=False)
            gc.collect()


class _Maps:
    """How many there were when they were counted, and how many functions may have been compiled since."""

    def __init__(self) -> None:
        self.counted, self.functions = 0, 0

    def are_few(self, most: float) -> bool:
        """Whether there are fewer than ``most`` even if another function is compiled; they are counted where that is
        not certain, which takes milliseconds.
        """
        self.functions += 1
        if not self.counted or self.counted + self.functions * _MOST_MAPS >= most:
            self.counted, self.functions = _num_maps(), 0
        return self.counted < most


_maps = _Maps()


def _num_maps() -> int:
    return Path("/proc/self/maps").read_bytes().count(b"\n")


@functools.cache
def _most_maps() -> int | None:
    """The limit of Linux; None where there is none, or none that can be read."""
    try:
        _num_maps()
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        return None
