"""The work of a verification, task by task: in this process, or side by side in several."""

import contextlib
import dataclasses
import functools
import gc
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from types import FrameType

from probem.experiments.claims.claim import NO_DATASET, Check, Claim
from probem.experiments.claims.datasets import load
from probem.experiments.claims.drawing import draw
from probem.experiments.outcomes.record import Outcome, Picture, Result, Task
from probem.runs import processes

# Bytes of a process from which on it gives up what it compiled between units.
_LARGE = 2 * 2**30

Results = Generator[tuple[Task, Result], None, None]


def in_turn(claims: Mapping[str, Claim], tasks: Sequence[Task], seed: int) -> Results:
    """Every task with its result, in this process.

    Raises
    ------
    KeyboardInterrupt : Ctrl-C was pressed; the task in hand is given up
    """
    _set_flags()
    with _interruption() as interrupted:
        for task in tasks:
            yield task, _perform(claims, task, seed, interrupted)


def side_by_side(
    claims: Mapping[str, Claim], units: Sequence[Sequence[Task]], seed: int, num_processes: int
) -> Results:
    """Every task with its result, in the order in which they are done; the tasks of a unit share a process.

    Where a process dies, the task in hand fails by name, and another process goes on. If this generator is closed or
    interrupted, the processes end with it.
    """
    perform = functools.partial(_perform, claims, seed=seed)
    with contextlib.closing(processes.side_by_side(perform, units, num_processes, _prepare, _forget)) as done:
        for task, future in done:
            error = future.exception()
            yield task, _failed(claims[task.claim], task, _sentence(error)) if error else future.result()


def _failed(claim: Claim, task: Task, error: str) -> Result:
    return Picture(claim, None, error) if task.is_figure else Outcome(claim, task.dataset, (), 0.0, error)


def _set_flags(*flags: str) -> None:
    """Flags of XLA where it is known to have them, before it is first asked for anything.

    One is always set: NumPyro's densities of all rows wait for themselves on two cores otherwise
    (``probem/exponential/linalg.py`` says why).
    """
    import jax

    if jax.__version_info__[:2] == (0, 10):  # a flag that XLA does not know ends the process
        flags = (*flags, "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED")
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])


def _prepare() -> None:
    """What a process does before its first task."""
    import jax

    jax.config.update("jax_enable_x64", True)
    # Small data: nearly all the time goes into compiling, most of it into what pays off on large data only.
    jax.config.update("jax_disable_most_optimizations", True)
    # One module of LLVM for each program, not up to 32, which are built side by side, but cost a quarter more in all.
    _set_flags("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")


def _forget() -> None:
    """Give up what was compiled, little of which is of use to the next unit, in a process that has become large."""
    import jax

    if _peak_memory() > _LARGE:
        jax.clear_caches()
        gc.collect()


def _peak_memory() -> float:
    """Of this process, in bytes; infinite where it cannot be asked for."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    # In KiB, but on macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)


def _perform(
    claims: Mapping[str, Claim], task: Task, seed: int, interrupted: Callable[[], bool] = lambda: False
) -> Result:
    claim = claims[task.claim]
    result = _picture(claim, task, seed) if task.is_figure else _outcome(claim, task, seed, interrupted)
    # A fit inside may have caught Ctrl-C to return its best state so far: what follows from it is not to be relied on.
    if interrupted():
        raise KeyboardInterrupt
    return result


def _outcome(claim: Claim, task: Task, seed: int, interrupted: Callable[[], bool]) -> Outcome:
    clock = time.perf_counter()
    checks: list[Check] = []
    error = None
    try:
        for check in _checks(claim, task, seed):
            if interrupted():
                raise KeyboardInterrupt
            checks.append(check)
        if not checks:
            error = "nothing was compared"
    except Exception as raised:
        error = _sentence(raised)
    return Outcome(claim, task.dataset, tuple(checks), time.perf_counter() - clock, error)


def _checks(claim: Claim, task: Task, seed: int) -> Iterator[Check]:
    if task.dataset == NO_DATASET:
        return claim.by_itself(seed) if claim.by_itself else iter(())
    return claim.check(load(task.dataset), seed) if claim.check else iter(())


def _picture(claim: Claim, task: Task, seed: int) -> Picture:
    figure = claim.figure
    if figure is None:
        return Picture(claim, None, "there is none")
    try:
        dataset = load(task.dataset)
        drawing = draw(lambda: figure(dataset, seed), prefix=claim.id)
        if claim.scene is not None:
            drawing = dataclasses.replace(drawing, scene=json.dumps(claim.scene(seed), separators=(",", ":")))
        return Picture(claim, drawing)
    except Exception as raised:
        return Picture(claim, None, _sentence(raised))


def _sentence(error: BaseException) -> str:
    """What was raised, on one line."""
    if isinstance(error, BrokenProcessPool):
        return processes.DIED
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


@contextlib.contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed inside the block, even where a fit caught it to return its best state."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def remember(number: int, frame: FrameType | None) -> None:
        pressed.set()
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGINT, remember)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, earlier)
