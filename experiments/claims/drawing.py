"""Figures for a page that may be light or dark, on paper or on a phone.

A figure is drawn once, in the colours below. Saved as PNG it keeps them; as SVG inside the page every one of them
becomes a CSS variable, so that the figure follows the page.
"""

import dataclasses
import io
import re
from collections.abc import Callable
from typing import Any

from probem.plotting.fit import SERIES

INK, PAPER, FAINT = "#1c1d22", "#fdfdfc", "#8b8d96"

# A point of a figure on the page: nine of them make letters of 0.8 rem.
_REM_PER_POINT = 0.8 / 9

# Inches around a figure.
_MARGIN = 0.1

_VARIABLES = {
    INK: "var(--ink)",
    PAPER: "var(--paper)",
    FAINT: "var(--faint)",
    "#000000": "var(--ink)",
    "#ffffff": "var(--paper)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)},
}


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One figure: an ``<svg>`` element to stand in the page, and the bytes of a PNG file; ``scene`` is what a reader
    can step through beside it, as JSON, or empty.
    """

    svg: str
    png: bytes
    scene: str = ""


def draw(make: Callable[[], Any], prefix: str) -> Drawing:
    """Draw the matplotlib figure that ``make`` returns; ``prefix`` keeps its ids apart from those of other figures."""
    import cycler
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    style: Any = {
        "axes.edgecolor": FAINT,
        "axes.facecolor": "none",
        "axes.grid": False,
        "axes.labelcolor": INK,
        "axes.labelsize": 9,
        "axes.prop_cycle": cycler.cycler(color=SERIES),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "figure.facecolor": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "patch.edgecolor": INK,
        "svg.fonttype": "path",
        "svg.hashsalt": prefix,
        "text.color": INK,
        "xtick.color": INK,
        "xtick.labelsize": 8,
        "ytick.color": INK,
        "ytick.labelsize": 8,
    }
    with matplotlib.rc_context(style):
        figure = make()
        # Laid out and measured once, and not for every format again: that takes most of the time.
        figure.draw_without_rendering()
        figure.set_layout_engine(None)
        extent = figure.get_tightbbox().padded(_MARGIN)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", bbox_inches=extent, metadata={"Date": None})
        figure.savefig(png, format="png", bbox_inches=extent, dpi=160, facecolor=PAPER)
    pyplot.close(figure)
    return Drawing(_inline(svg.getvalue(), prefix), png.getvalue())


def _inline(svg: str, prefix: str) -> str:
    """The ``<svg>`` element alone, with CSS variables for colours and ids that occur nowhere else in the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Wide enough for its words to be as large as the small print; the viewBox has the proportions.
    view = re.search(r'viewBox="0 0 ([0-9.]+) [0-9.]+"', svg)
    if view is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox")
    opening = f'<svg {view.group()} style="--width: {float(view.group(1)) * _REM_PER_POINT:.1f}rem">'
    svg = re.sub(r"^<svg [^>]*>", opening, svg)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    return re.sub("|".join(_VARIABLES), lambda match: _VARIABLES[match.group()], svg)
