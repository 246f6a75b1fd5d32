"""Tables of plain text."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], sides: str) -> str:
    """The rows below one another, a rule under the first; ``sides`` aligns each column, ``<`` left or ``>`` right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    layout = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
    ruled = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join(layout.format(*row).rstrip() for row in ruled)
