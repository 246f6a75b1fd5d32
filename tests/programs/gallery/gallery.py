"""All entries, and the page that lists them: ``python -m tests.programs.gallery.gallery`` writes it."""

import pathlib

import probem
from tests.programs.gallery.categories import CATEGORIES
from tests.programs.gallery.counts import COUNTS
from tests.programs.gallery.entry import POSTERIOR_CORNERS, Entry
from tests.programs.gallery.normal import NORMAL
from tests.programs.gallery.positive import POSITIVE
from tests.programs.gallery.regressions import REGRESSIONS

#: What stands above the entries of every kind, in the order of the page.
KINDS = {
    "Normal distributions": NORMAL,
    "Durations, tails, intervals": POSITIVE,
    "Counts": COUNTS,
    "Categories, angles, shares": CATEGORIES,
    "Regressions, look-ups, shapes of programs": REGRESSIONS,
}
GALLERY = {name: entry for kind in KINDS.values() for name, entry in kind.items()}
POINT_CORNERS = (probem.EM, probem.HARD_EM)
PAGE = pathlib.Path(__file__).parents[3] / "docs" / "programs.md"

_HEAD = """# Programs that are fitted, corner by corner

{number} programs in the manner of tutorials and textbooks, written in `tests/programs/gallery`, and what each corner
makes of them. A test fits every one on sixty rows and holds it against NumPyro's own densities. F never falls. At
points it is log p(X, θ), or that with the most probable labels, and no coordinate of θ gains anything. F of full
posteriors is that of draws from them, within the error of the draws. The same test checks this table.

**ML** stands for parameters without a prior, for which the corners with full posteriors are those with points; **MAP**
for points under a prior; **posterior** for full posteriors. What is refused says why, before anything runs.
"""
_COLUMNS = """
| program | `EM` | `HARD_EM` | `VARIATIONAL_BAYES` | `MAXIMIZATION_EXPECTATION` |
|---|---|---|---|---|
"""


def corners(entry: Entry) -> tuple[probem.families.Corner, ...]:
    """Those that differ."""
    return (*POINT_CORNERS, *POSTERIOR_CORNERS) if entry.has_prior else POINT_CORNERS


def _cell(entry: Entry, corner: probem.families.Corner) -> str:
    if corner.name in entry.refused:
        return f"refused: {entry.because}"
    if not entry.has_prior:
        return "ML"
    return "posterior" if corner in POSTERIOR_CORNERS else "MAP"


def page() -> str:
    """The text of the page."""
    parts = [_HEAD.format(number=len(GALLERY))]
    for kind, entries in KINDS.items():
        parts.append(f"\n## {kind}\n{_COLUMNS}")
        for name, entry in entries.items():
            cells = [_cell(entry, corner) for corner in (*POINT_CORNERS, *POSTERIOR_CORNERS)]
            if cells[2] == cells[3] and cells[2].startswith("refused"):
                cells[3] = "refused likewise"
            parts.append(f"| {name} | {' | '.join(cells)} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
