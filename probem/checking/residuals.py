"""Residuals of two sides, and what rounding may make of them; a residual that is not a number stays one."""

from typing import Any

import numpy as np

from probem.stopping import ROUNDINGS

#: Sums of N terms on two ways through the same densities: some hundred roundings of 2e-16 each, and room.
SAME = 1e-10
#: One way, compared with itself a half-step later: rounding alone.
ROUNDING = 1e-12


def worst(*residuals: Any) -> float:
    """The largest of all residuals, each a number or an array of them; not a number if any of them is none.

    Python's ``max(0.0, nan)`` is 0.0, so that a claim would hold on residuals that were never computed: every
    comparison is reduced here, and nowhere else.

    Raises
    ------
    ValueError : there is no residual at all
    """
    values = [np.ravel(np.asarray(residual, float)) for residual in residuals]
    if not sum(residual.size for residual in values):
        raise ValueError("nothing was compared: there is no residual")
    return float(np.maximum.reduce(np.concatenate(values)))


def excess(values: Any, limit: float | int = 0.0) -> float:
    """By how much the largest value is above the limit, and 0 where none is; not a number if any value is none."""
    return float(np.maximum(worst(np.asarray(values, float) - limit), 0.0))


def difference(first: Any, second: Any) -> Any:
    """First less second, entry by entry; of two that are impossible, minus infinity, there is none."""
    with np.errstate(invalid="ignore"):
        return np.where(first == second, 0.0, np.subtract(first, second))


def rounding(sizes: Any) -> Any:
    """How far a sum of terms of these sizes may be off by rounding alone, by the rule of the solver."""
    return ROUNDINGS * np.finfo(float).eps * sizes


def share(distance: Any, scale: Any, lost: Any = 0.0, tolerance: float = SAME) -> Any:
    """A distance, relative to the scale; what is ``lost`` in rounding is allowed beside ``tolerance`` times the scale.

    The residual is at most ``tolerance`` where the distance is at most ``tolerance * scale + lost``: terms that cancel
    count as much of the scale as their rounding makes up. No distance is no residual, whatever the scale; an infinite
    distance is an infinite residual.
    """
    distance, whole = np.abs(distance), np.abs(scale) + np.asarray(lost) / tolerance
    plain = (distance == 0) | np.isinf(distance)
    return np.where(plain, distance, distance / np.where(plain, 1.0, whole))


def relative(first: float, second: float, *terms: float, lost: float = 0.0, tolerance: float = SAME) -> float:
    """The difference, relative to the largest of all that was added up on the way; ``lost`` as in ``share``."""
    with np.errstate(divide="ignore"):
        return float(share(first - second, worst(np.abs([first, second, *terms])), lost, tolerance))


def violations(holds: Any) -> int:
    """At how many places a comparison is false.

    What must be true is stated, not what must not: every comparison with NaN is false, and so is counted.

    Raises
    ------
    ValueError : there is no comparison at all
    TypeError : numbers where comparisons are expected
    """
    compared = np.asarray(holds)
    if not compared.size:
        raise ValueError("nothing was compared: there is no comparison to count")
    if compared.dtype != bool:
        raise TypeError(f"comparisons are true or false, not of type {compared.dtype}")
    return int((~compared).sum())
