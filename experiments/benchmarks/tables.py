"""A benchmark in words: a table of at most a hundred columns, and a block for README.md."""

import textwrap

from probem.runs.text_table import text_table

from .benchmark import Benchmark
from .timing import PROBEM, Measurement

# What peers are called in a table.
_NAMES = {"scikit-learn": "sklearn", "scikit-learn-intelex": "intelex", "faiss-cpu": "faiss"}
_HEADER = ("case", "probem", "peer", "", "ratio", "best", "first", "MiB", "share")
# How far a peer may be from what probem computes without a word about it.
_NOTABLE = 1e-3


def time(seconds: float) -> str:
    """Three digits and a unit."""
    unit, value = (
        ("s", seconds) if seconds >= 1 else ("ms", 1e3 * seconds) if seconds >= 1e-3 else ("us", 1e6 * seconds)
    )
    return f"{value:.{2 - (value >= 10) - (value >= 100)}f} {unit}"


def cells(measurement: Measurement) -> tuple[str, ...]:
    """A line of the table; what was not measured is empty."""
    medians, fastest = measurement.medians, measurement.fastest
    memory, share = measurement.memory.get(PROBEM), measurement.share
    return (
        measurement.case,
        time(medians[PROBEM]),
        time(medians[fastest]),
        _NAMES.get(fastest, fastest),
        f"{measurement.ratio:.2f}",
        f"{measurement.ratio_at_best:.2f}",
        "" if measurement.first_call is None else f"{measurement.first_call:.1f} s",
        "" if memory is None else f"{memory:.0f}",
        "" if share is None else f"{share:.0%}",
    )


def conditions(benchmark: Benchmark) -> str:
    """With what it was measured, in half a sentence."""
    versions, environment = benchmark.environment["versions"], benchmark.environment
    used = ", ".join(f"{name} {versions[name]}" for name in ("jax", *environment["peers"]))
    absent = ", ".join(environment["absent"])
    cores = f"{environment['cores']} core{'s' if environment['cores'] > 1 else ''}"
    machine = f"{cores} (load average {environment['load']:.1f} before)"
    return f"{machine}, {used}" + (f"; not installed: {absent}" if absent else "")


_LEGEND = """\
peer: the fastest of them. ratio: its time / that of probem, the median over rounds taken in turn;
below 1, probem is slower. best: the ratio of the fastest rounds. first: what probem's first call
takes beyond the next. MiB: peak memory of a fresh process of probem. share: time of an iteration's
two matrix products at the rate at which this machine multiplies, divided by the iteration's."""


def table(benchmark: Benchmark) -> str:
    """Every case in a line, kind by kind, with the geometric mean of the ratios of each."""
    parts = [textwrap.fill(conditions(benchmark), 100), _LEGEND]
    lines = [cells(measurement) for measurements in benchmark.kinds.values() for measurement in measurements]
    if not lines:
        return "\n\n".join(parts)
    # One table, so that columns stand below one another in all kinds.
    head, rule, *body = text_table([_HEADER, *lines], "<>><>>>>>").splitlines()
    for kind, measurements in benchmark.kinds.items():
        rows, body = body[: len(measurements)], body[len(measurements) :]
        mean = f"{kind}: geometric mean {benchmark.geometric_means[kind]:.2f}"
        parts.append("\n".join([mean, head, rule, *rows]))
    differing = [
        f"{measurement.case}: {_NAMES.get(peer, peer)} differs from probem by {difference:.1g}"
        for measurement in benchmark.measurements
        for peer, difference in measurement.differences.items()
        if difference > _NOTABLE
    ]
    return "\n\n".join([*parts, "\n".join(differing)] if differing else parts)


def markdown(benchmark: Benchmark) -> str:
    """The block of README.md: for each kind the geometric mean, and the slowest and the fastest case."""
    lines = [
        f"Measured by the command below: {conditions(benchmark)}.",
        "",
        "| what | cases | ratio | the worst | the best | share of the bound |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, measurements in benchmark.kinds.items():
        ordered = sorted(measurements, key=lambda measurement: measurement.ratio)
        ends = (f"{end.ratio:.2f}: {end.case}" for end in (ordered[0], ordered[-1]))
        shares = [measurement.share for measurement in measurements if measurement.share is not None]
        share = f"{min(shares):.0%} to {max(shares):.0%}" if shares else ""
        values = (kind, str(len(ordered)), f"**{benchmark.geometric_means[kind]:.2f}**", *ends, share)
        lines.append(f"| {' | '.join(values)} |".replace("|  |", "| |"))
    return "\n".join(lines)
