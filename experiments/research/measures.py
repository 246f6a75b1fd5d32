"""What is measured of a fit: numbers by name."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import probem
from probem.errors import InputError, nearest
from probem.program.component_axes import component_axes
from probem.results.fit import Fit
from probem.runs.config import Complaint, described
from probem.runs.programs import function_in_file
from probem.solver.result import Result

from .data import Data
from .resolution import name_of, source_digest


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """A fit, what it was fitted to, its program with every argument bound, and the seconds that it took."""

    fit: Fit
    data: Data
    program: Any
    seconds: float

    @functools.cached_property
    def evidence(self) -> float:
        """log p(X), nats."""
        return probem.evidence(self.program, self.data.rows)


def _gap(measured: Measured) -> float:
    return measured.fit.gap(measured.data.rows)


def _log_density(measured: Measured) -> float:
    if measured.data.held_out is None:
        raise InputError("no held-out rows", "data with some", "add held_out: 0.2, say, to data")
    return float(np.mean(measured.fit.log_density(measured.data.held_out)))


def _ari(measured: Measured) -> float:
    """The adjusted Rand index of the most probable components beside the labels. Source: Hubert & Arabie (1985)."""
    if measured.data.labels is None:
        raise InputError("rows without labels", "data that comes with labels", "leave ari out of measure")
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(measured.data.labels, measured.fit.predict(measured.data.rows)))


def _parameters_error(measured: Measured) -> Mapping[str, float]:
    """Root mean squared error of every site that has a true value, under the numbering of the components that is best
    for all of them together; a site that all components share has no numbering.
    """
    from scipy.optimize import linear_sum_assignment

    fitted = {name: np.asarray(value, float) for name, value in measured.fit.params.items()}
    true = {
        name: value
        for name, value in measured.data.parameters.items()
        if name in fitted and fitted[name].shape == value.shape
    }
    if not true:
        raise InputError(
            f"true parameters {sorted(measured.data.parameters)} and sites {sorted(fitted)}",
            "a site in both, of one shape",
            "leave parameters_error out of measure",
        )
    plan = measured.fit.plan
    assert plan is not None
    axes = component_axes(plan.program)
    for place, assignment in enumerate(plan.program.assignments):
        indexed = {
            name: axis
            for name in true
            for at, axis in axes[name]
            # Of a site that two assignments look up, neither order is known before the other.
            if at == place and len(axes[name]) == 1
        }
        costs = np.zeros((assignment.size, assignment.size))
        for name, axis in indexed.items():
            # Equal values, such as weights of 1 / K, say nothing of an order, and differ by rounding at most.
            spread = float(true[name].var(axis=axis).max())
            if spread > _ROUNDING**2 * float((true[name] ** 2).max()):
                costs += _distances(fitted[name], true[name], axis) / spread
        order = linear_sum_assignment(costs.T)[1]
        for name in true:
            for at, axis in axes[name]:
                fitted[name] = np.take(fitted[name], order, axis) if at == place else fitted[name]
    return {name: float(np.sqrt(((fitted[name] - value) ** 2).mean())) for name, value in true.items()}


# Values that are this near to each other, relative to the largest, are equal.
_ROUNDING = 1e-9


def _distances(fitted: np.ndarray, true: np.ndarray, axis: int) -> np.ndarray:
    """The mean squared distance of every component of the fit (rows) from every true one."""
    fitted, true = (np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1) for value in (fitted, true))
    return ((fitted[:, None] - true[None]) ** 2).mean(axis=2)


def _occupied(measured: Measured) -> float:
    return float(len(np.unique(measured.fit.predict(measured.data.rows))))


#: The built-in measures: what each is, its unit, and the function; a mapping becomes one measure for each of its names.
MEASURES: dict[str, tuple[str, Callable[[Measured], float | Mapping[str, float]]]] = {
    "elbo": ("F, nats, total", lambda measured: measured.fit.elbo),
    "terms": ("terms of F, nats, total", lambda measured: measured.fit.elbo_terms),
    "gap": ("KL from q to the posterior of the assignments at the parameters, nats, total", _gap),
    "evidence": ("exact log p(X), nats, total", lambda measured: measured.evidence),
    "evidence_gap": ("log p(X) − F, nats, total", lambda measured: measured.evidence - measured.fit.elbo),
    "log_density": ("mean log density of held-out rows, nats a row", _log_density),
    "ari": ("adjusted Rand index against the labels", _ari),
    "parameters_error": ("root mean squared error of the parameters", _parameters_error),
    "occupied": ("components that are the most probable one of some row", _occupied),
    "twins": ("pairs of components that have become one", lambda measured: float(len(measured.fit.twins))),
    "converged": ("share of the fits that converged", lambda measured: float(measured.fit.result is Result.CONVERGED)),
    "steps": ("E half-steps", lambda measured: float(measured.fit.num_steps)),
    "time": ("time of a fit and of what was compiled for it, seconds", lambda measured: measured.seconds),
}


def names(measure: Sequence[Any]) -> tuple[str, ...]:
    """What the measures are called: the function of ``file.py:function``."""
    return tuple(name_of(each).rpartition(":")[2] for each in measure)


def described_as(name: str) -> str:
    """A measure, as the axis of a figure says it."""
    head, _, rest = name.partition(".")
    if head not in MEASURES:
        return name
    return f"{rest}: {MEASURES[head][0]}" if rest else MEASURES[head][0]


def unit_of(name: str) -> str | None:
    """The unit of a built-in measure, empty for a number without one; None if it is not known."""
    head = name.partition(".")[0]
    # Parameters have the units that their program gives them.
    if head not in MEASURES or head == "parameters_error":
        return None
    return MEASURES[head][0].partition(", ")[2]


def complaints(measure: Sequence[Any], folder: Path) -> Iterator[Complaint]:
    """What is wrong with a list of measures."""
    seen: set[str] = set()
    for place, (each, name) in enumerate(zip(measure, names(measure), strict=True)):
        key = ("measure", place)
        if not isinstance(each, str) and not callable(each):
            yield Complaint(key, described(each), "the name of a measure", "change the value")
        elif isinstance(each, str) and ".py" in each:
            try:
                function_in_file(each, "measure", folder)
            except InputError as error:
                yield Complaint(key, error.got, error.expected, error.remedy)
        elif isinstance(each, str) and each not in MEASURES:
            expected = f"one of {', '.join(MEASURES)}, or path/to/file.py:function"
            yield Complaint(key, f"'{each}'", expected, nearest(each, MEASURES))
        if name in seen:
            yield Complaint(key, f"'{name}' a second time", "every measure once", "keep one")
        seen.add(name)


def fingerprint(measure: Sequence[Any], folder: Path) -> list[str]:
    """What the values depend on beside the fit: the names, and the source of functions in files."""
    return [
        f"{name} {source_digest(_function(each, folder))}" if callable(each) or ".py" in each else name
        for each, name in zip(measure, names(measure), strict=True)
    ]


def measure_all(measure: Sequence[Any], folder: Path, measured: Measured) -> tuple[dict[str, float], list[str]]:
    """The numbers of a fit by name, and what was said by the measures that failed."""
    values: dict[str, float] = {}
    failures = []
    for each, name in zip(measure, names(measure), strict=True):
        try:
            if isinstance(each, str) and each in MEASURES:
                value = MEASURES[each][1](measured)
            else:
                value = _function(each, folder)(measured.fit, measured.data)
            if isinstance(value, Mapping):
                values |= {f"{name}.{part}": float(number) for part, number in value.items()}
            else:
                values[name] = float(value)
        except Exception as error:
            failures.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
    return values, failures


def _function(each: Any, folder: Path) -> Callable[..., Any]:
    return each if callable(each) else function_in_file(each, "measure", folder)
