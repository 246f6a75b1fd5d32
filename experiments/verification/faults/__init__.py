"""Faults of one line each, in words, with the claim and the test that see them.

What a fault replaces is written here as it stands in the source, and must occur there exactly once. Where no claim sees
a fault, ``unclaimed`` says why: claims are about the bound and the algorithms, and not about refusals, files, or what
only happens where something has already gone wrong.
"""

from . import acceleration, around, certificate, expectation, families, gradient_route, lookups, maximization, moves
from .fault import Fault

__all__ = ["FAULTS", "Fault"]

#: All of them, by room.
FAULTS = (
    *expectation.FAULTS,
    *maximization.FAULTS,
    *gradient_route.FAULTS,
    *certificate.FAULTS,
    *families.FAULTS,
    *acceleration.FAULTS,
    *lookups.FAULTS,
    *moves.FAULTS,
    *around.FAULTS,
)
