"""What a fit says while it runs: a bar on a terminal, or a line for some iterations."""

from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int
from tqdm.auto import tqdm

from probem.e_step.bound import Bound
from probem.errors import InputError

# A fit that takes longer than this shows its bar, seconds.
_DELAY = 2.0
_ELBO = Bound._fields.index("elbo")


def check_verbose(verbose: Any) -> None:
    """Refuse what is neither None nor a whole number from 0; True is 1.

    Raises
    ------
    InputError
        With the levels.
    """
    if verbose is not None and (not isinstance(verbose, int | np.integer) or verbose < 0):
        raise InputError(
            f"verbose={verbose!r}",
            "None (a bar), 0 (nothing), 1 (a line for some iterations) or 2 (for each)",
            "choose one",
        )


class Reporter:
    """Is told of every call of the loop, and says of it what was asked for.

    ``verbose`` is None for a bar on a terminal once the fit takes long, 0 for nothing, 1 for a line in iterations 1, 2,
    5, 10, 20, 50 and so on and in the last, and 2 for a line in each. A line has the number of the iteration, F after
    its E half-step (nats, total), and by how much that is above F of the iteration before; of several restarts the
    highest F.
    """

    def __init__(self, verbose: int | None, max_steps: int):
        self.verbose = verbose
        self.iteration = 0
        self.printed = 0
        self.elbos: Float[np.ndarray, " R"] = np.zeros(0)
        self.highest = self.before = np.nan
        self.bar = tqdm(
            total=max_steps,
            desc="probem",
            unit="step",
            disable=None if verbose is None else True,
            delay=_DELAY,
            leave=False,
        )

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.close()
        if self.verbose and self.printed < self.iteration:
            self._print()

    def moved(self, done: int, elbo: float) -> None:
        """So many iterations are done, and F is so high."""
        self.bar.update(done - self.bar.n)
        self.bar.set_postfix_str(f"F = {elbo:.8g}", refresh=False)

    def recorded(self, bounds: Any, before: Int[Array, "*R"], after: Int[Array, "*R"]) -> None:
        """The terms of F, ``[(R,) steps, 2, 5]``, in the iterations of every restart from ``before`` to ``after``."""
        if not self.verbose:
            return
        counts = (np.asarray(after) - np.asarray(before)).reshape(-1)
        # After the E half-step of each iteration.
        values = np.asarray(bounds, float).reshape(len(counts), -1, 2, len(Bound._fields))[:, :, 0, _ELBO]
        if len(self.elbos) != len(counts):
            self.elbos = np.full(len(counts), -np.inf)
        for place in range(int(counts.max())):
            # A restart that has ended stays where it is.
            self.elbos = np.where(place < counts, values[:, place], self.elbos)
            self.iteration, self.before = self.iteration + 1, self.highest
            self.highest = float(np.max(self.elbos[np.isfinite(self.elbos)], initial=-np.inf))
            if self.verbose > 1 or str(self.iteration).rstrip("0") in ("1", "2", "5"):
                self._print()

    def _print(self) -> None:
        self.printed = self.iteration
        best = f" (highest of {len(self.elbos)})" if len(self.elbos) > 1 else ""
        rise = "" if not np.isfinite(self.before) else f"  rise {self.highest - self.before:.3g}"
        print(f"iteration {self.iteration:>5}  F = {self.highest:.6f} nats{best}{rise}", flush=True)
