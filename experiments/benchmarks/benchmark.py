"""All that a configuration asks for, case by case."""

import dataclasses
import importlib.metadata
import os
import statistics
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax

from probem.runs.folders import versions

from . import estimators, iterations
from .processes import processes
from .settings import BenchmarkSettings
from .timing import Measurement

# The kinds of measurement over which a geometric mean is taken, and what it is called.
KMEANS, MIXTURES = "k-means, one iteration", "mixtures, one iteration"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What was measured.

    Attributes
    ----------
    environment : versions, the number of cores, and which of the peers were there
    measurements : all but those of the sweeps
    growth : those of the sweeps: by the name of the base, for each of N, D and K, its values and measurements
    """

    environment: dict[str, Any]
    measurements: list[Measurement]
    growth: dict[str, list[list[tuple[int, Measurement]]]]

    @property
    def kinds(self) -> dict[str, list[Measurement]]:
        """The measurements of each kind, in the order in which they were made."""
        kinds: dict[str, list[Measurement]] = {}
        for measurement in self.measurements:
            kinds.setdefault(measurement.kind, []).append(measurement)
        return kinds

    @property
    def geometric_means(self) -> dict[str, float]:
        """Of the ratios, by kind."""
        return {
            kind: statistics.geometric_mean(measurement.ratio for measurement in measurements)
            for kind, measurements in self.kinds.items()
        }

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "environment": self.environment,
            "geometric_means": self.geometric_means,
            "measurements": [measurement.as_json() for measurement in self.measurements],
            "growth": {
                base: [[{"value": value} | point.as_json() for value, point in axis] for axis in axes]
                for base, axes in self.growth.items()
            },
        }


def _installed(peers: list[str]) -> list[str]:
    def is_there(peer: str) -> bool:
        try:
            return bool(importlib.metadata.version(peer))
        except importlib.metadata.PackageNotFoundError:
            return False

    return [peer for peer in peers if is_there(peer)]


def _measurements(settings: BenchmarkSettings, peers: list[str]) -> Iterator[Measurement]:
    seed = settings.seed
    if settings.iterations:
        options = settings.iterations.model_dump(exclude={"cases"})
        for case in settings.iterations.cases:
            kind = KMEANS if case.model == "kmeans" else MIXTURES
            yield iterations.measure(kind, case, peers, seed, **options)
    if settings.answers:
        yield from estimators.answers(settings.answers, peers, seed)
    if settings.small_fits:
        yield from estimators.small_fits(settings.small_fits, peers, seed)
    if settings.restarts:
        yield from estimators.restarts(settings.restarts, peers, seed)
    if settings.processes:
        yield from processes(settings.processes, peers)


def _growth(
    settings: BenchmarkSettings, peers: list[str], tell: Callable[[Measurement], None]
) -> dict[str, list[list[tuple[int, Measurement]]]]:
    if settings.growth is None:
        return {}
    options = settings.growth.model_dump(exclude={"sweeps"})
    # The base of a sweep lies on all three of its axes.
    measured: dict[str, Measurement] = {}
    growth: dict[str, list[list[tuple[int, Measurement]]]] = {}
    for sweep in settings.growth.sweeps:
        axes = growth.setdefault(sweep.base.name, [])
        for axis in range(3):
            points = []
            for case in sweep.along(axis):
                if case.name not in measured:
                    measured[case.name] = iterations.measure("growth", case, peers, settings.seed, **options)
                    tell(measured[case.name])
                points.append((case.shape[axis], measured[case.name]))
            axes.append(points)
    return growth


def run(settings: BenchmarkSettings, tell: Callable[[Measurement], None] = lambda _: None) -> Benchmark:
    """Measure everything; ``tell`` is told of each case when it is done."""
    jax.config.update("jax_enable_x64", True)
    peers = _installed(list(settings.peers))
    # Of the last minute.
    load = os.getloadavg()[0]
    measurements = []
    with warnings.catch_warnings():
        # Fits of so few iterations have not converged, and are not meant to.
        warnings.simplefilter("ignore")
        for measurement in _measurements(settings, peers):
            measurements.append(measurement)
            tell(measurement)
        growth = _growth(settings, peers, tell)
    environment = {
        "versions": versions("jax", "numpyro", "numpy", *settings.peers),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "peers": peers,
        "absent": [peer for peer in settings.peers if peer not in peers],
        "load": load,
    }
    return Benchmark(environment, measurements, growth)
