"""What several figures draw alike: both sides of an equality, differences beside their tolerance, ellipses."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .drawing import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_FRACTION_DATA, _DATA_FRACTION = ("axes fraction", "data"), ("data", "axes fraction")
_WORDS: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": INK}

#: A marker for each colour of ``SERIES``, so that series are told apart without colours.
MARKERS = "o^sDvP"


def blank(width: float, height: float) -> "Figure":
    """An empty figure of so many inches; letters keep their size on paper and shrink by half at most on a phone."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def both_sides(
    axes: "Axes",
    places: Sequence[Any] | np.ndarray,
    inner: Sequence[Any] | np.ndarray,
    outer: Sequence[Any] | np.ndarray,
    colour: str,
    words: tuple[str | None, str | None] = (None, None),
    marker: str = "o",
) -> None:
    """One side as filled markers, the other as hollow ones about them: where sides are equal, markers are centred."""
    axes.plot(places, inner, marker, color=colour, markersize=4, label=words[0])
    axes.plot(places, outer, marker, color=colour, markersize=9, fillstyle="none", label=words[1])


def differences(
    axes: "Axes", places: Sequence[Any] | np.ndarray, values: Sequence[float] | np.ndarray, **style: Any
) -> None:
    """Differences on a logarithmic scale; one of 0 is drawn at the rounding of a double."""
    style = {"color": INK, "markersize": 3} | style
    axes.plot(places, np.maximum(values, np.finfo(float).eps / 2), **style)


def tolerated(axes: "Axes", tolerance: float, lowest: int, step: int, *, along: str = "y") -> None:
    """A logarithmic axis from 10 to the power of ``lowest`` up to the tolerance, which is a dashed line, or further
    where data are beyond it.
    """
    upright = along == "y"
    axis, data = (axes.yaxis, axes.dataLim.y1) if upright else (axes.xaxis, axes.dataLim.x1)
    (axes.set_yscale if upright else axes.set_xscale)("log")
    (axes.set_ylim if upright else axes.set_xlim)(10.0 ** (lowest - 0.5), 3 * max(tolerance, data))
    powers_of_ten(axis, range(lowest, math.ceil(math.log10(max(tolerance, data))) + 1, step))
    (axes.axhline if upright else axes.axvline)(tolerance, color=INK, linewidth=1, linestyle="dashed")
    if upright:
        axes.annotate("tolerance", (1, tolerance), (-2, -3), xycoords=_FRACTION_DATA, **_WORDS, ha="right", va="top")
    else:
        axes.annotate("tolerance", (tolerance, 0), (-3, 3), xycoords=_DATA_FRACTION, **_WORDS, ha="right", va="bottom")


def powers_of_ten(axis: "Axis", powers: Sequence[int]) -> None:
    """Ticks at these powers of ten and nowhere else, in plain letters: formulas take most of the time of a figure."""
    from matplotlib.ticker import NullLocator

    axis.set_ticks([10.0**power for power in powers], labels=[power_of_ten(power) for power in powers])
    axis.set_minor_locator(NullLocator())


def power_of_ten(power: int) -> str:
    """As print has it: 0.1, 1, 10, 100, and 10 with a superscript otherwise."""
    return f"{10.0**power:g}" if -2 <= power <= 3 else f"10{str(power).translate(_SUPERSCRIPT)}"


def zone(axes: "Axes", low: float | int, high: float, words: str) -> None:
    """A band in which the claim says that nothing lies."""
    axes.axhspan(low, high, color=FAINT, alpha=0.22, linewidth=0)
    axes.annotate(words, (0.02, high), (0, -3), xycoords=_FRACTION_DATA, **_WORDS, va="top")


def ellipse(axes: "Axes", centre: np.ndarray, covariance: np.ndarray, **style: Any) -> None:
    """The curve one standard deviation from the centre."""
    angle = np.linspace(0, 2 * np.pi, 80)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    style = {"linewidth": 1.2} | style
    axes.plot(*(centre[:, None] + np.linalg.cholesky(covariance) @ circle), **style)
