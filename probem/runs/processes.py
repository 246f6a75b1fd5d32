"""Work in several processes side by side."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


#: What is said of a piece of work whose future raises ``BrokenProcessPool``.
DIED = "the process that had it in hand ended before it did"


def side_by_side(
    perform: Callable[[T], R],
    units: Sequence[Sequence[T]],
    num_processes: int,
    prepare: Callable[[], None],
    between: Callable[[], None] | None = None,
) -> Generator[tuple[T, Future[R]]]:
    """Every piece of work with its future, in the order in which they are done; those of a unit share a process.

    Where a process dies, the future of the piece in hand raises ``BrokenProcessPool``, and another process goes on with
    the rest of its unit. If this generator is closed or interrupted, the processes end with it.

    Parameters
    ----------
    perform, prepare, between : functions that can be pickled: the work, what a process does before its first piece, and
        what it does between two units
    """
    earlier = set(multiprocessing.active_children())
    todo = iter(units)
    running: dict[Future[R], tuple[ProcessPoolExecutor, Sequence[T]]] = {}
    with contextlib.ExitStack() as pools:

        def started() -> ProcessPoolExecutor:
            # Of one process each: a pool of several that loses one gives up what the others have in hand as well.
            # JAX has threads, so that a process must not be forked from this one.
            spawn = multiprocessing.get_context("spawn")
            return pools.enter_context(ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=(prepare,)))

        def submitted(pool: ProcessPoolExecutor, unit: Sequence[T]) -> Future[R]:
            future = pool.submit(perform, unit[0])
            if between is not None and not unit[1:]:
                pool.submit(between)
            return future

        def go_on(pool: ProcessPoolExecutor, unit: Sequence[T]) -> None:
            if not (unit := unit or next(todo, ())):
                return
            try:
                future = submitted(pool, unit)
            except BrokenProcessPool:
                # It died with nothing in hand.
                pool = started()
                future = submitted(pool, unit)
            running[future] = pool, unit

        try:
            for _ in range(num_processes):
                go_on(started(), ())
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    pool, (piece, *rest) = running.pop(future)
                    go_on(started() if isinstance(future.exception(), BrokenProcessPool) else pool, rest)
                    yield piece, future
        except BaseException:
            # A pool waits for what it has in hand; only from Python 3.14 on can it be told to end its process.
            for process in set(multiprocessing.active_children()) - earlier:
                process.terminate()
            raise


def _begin(prepare: Callable[[], None]) -> None:
    # Ctrl-C reaches every process of the terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare()
