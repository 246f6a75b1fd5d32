"""Times of probem and its peers, taken in turn, and what is concluded from them."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

PROBEM = "probem"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One case.

    Attributes
    ----------
    kind, case : which group it belongs to, and its name
    seconds : by side, in each round; ``probem`` is one of the sides, the others are its peers
    first_call : seconds of probem's first call beyond those of the next, above all to compile; None if not measured
    memory : MiB, by side, the peak of a fresh process that makes one short fit; those that were measured
    shares : in each round, the time of the two matrix products of an iteration at the machine's own rate, divided by
        probem's time; empty where that is no question
    num_steps : iterations between the short and the long fit; 1 where whole calls are timed
    differences : by peer, how far what it computes is from what probem does, relative to the data's scale; those that
        were compared
    """

    kind: str
    case: str
    seconds: Mapping[str, list[float]]
    first_call: float | None = None
    memory: Mapping[str, float] = dataclasses.field(default_factory=dict)
    shares: list[float] = dataclasses.field(default_factory=list)
    num_steps: int = 1
    differences: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def medians(self) -> dict[str, float]:
        """Seconds by side."""
        return {side: statistics.median(seconds) for side, seconds in self.seconds.items()}

    @property
    def fastest(self) -> str:
        """The peer with the lowest median."""
        medians = self.medians
        return min((side for side in medians if side != PROBEM), key=medians.__getitem__)

    @property
    def ratios(self) -> list[float]:
        """How many times faster than the fastest peer probem is, in each round."""
        pairs = zip(self.seconds[self.fastest], self.seconds[PROBEM], strict=True)
        return [peer / probem for peer, probem in pairs]

    @property
    def ratio(self) -> float:
        """The median of ``ratios``."""
        return statistics.median(self.ratios)

    @property
    def ratio_at_best(self) -> float:
        """The ratio of the fastest rounds.

        Where it is far from ``ratio``, others used the machine as well: a side whose threads wait for each other loses
        more by that.
        """
        return min(self.seconds[self.fastest]) / min(self.seconds[PROBEM])

    @property
    def share(self) -> float | None:
        """The median of ``shares``."""
        return statistics.median(self.shares) if self.shares else None

    def as_json(self) -> dict[str, Any]:
        """What was measured, and what follows from it."""
        names = ("medians", "fastest", "ratios", "ratio", "ratio_at_best", "share")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in names}


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What the sides say of themselves, one after the other, round by round: what slows the machine meets them all."""
    said: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, seconds in sides.items():
            said[side].append(seconds())
    return said


def seconds_of(call: Callable[[], Any], repeats: int = 1) -> float:
    """The mean time of as many calls, until their arrays are there."""
    began = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(call())
    return (time.perf_counter() - began) / repeats


def measure_calls(
    kind: str,
    case: str,
    sides: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    seconds: float = 0.0,
    part: float = 1.0,
) -> Measurement:
    """Whole calls, repeated in every round until they take about as many seconds.

    The calls of peers do so great a ``part`` of the work, and their times are divided by it.
    """
    first = {side: seconds_of(call) for side, call in sides.items()}
    again = {side: seconds_of(call) for side, call in sides.items() if seconds or side == PROBEM}
    repeats = {side: max(1, round(seconds / again.get(side, 1.0))) for side in sides}
    taken = in_turn({side: functools.partial(seconds_of, call, repeats[side]) for side, call in sides.items()}, rounds)
    for side in taken.keys() - {PROBEM}:
        taken[side] = [second / part for second in taken[side]]
    return Measurement(kind, case, taken, first_call=max(0.0, first[PROBEM] - again[PROBEM]))
