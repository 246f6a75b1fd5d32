"""All claims, in the order in which they are checked, and the names by which they are chosen."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from probem.experiments import asymptotics, bayes, beyond_gaussian, bound, convergence, hard_and_soft, kmeans, routes
from probem.experiments.claims.claim import Claim

SUBJECTS = (asymptotics, bayes, beyond_gaussian, bound, convergence, hard_and_soft, kmeans, routes)


def claims_of(subject: ModuleType) -> Iterator[Claim]:
    """What the modules of a package have in their ``CLAIMS``."""
    for module in pkgutil.walk_packages(subject.__path__, f"{subject.__name__}."):
        yield from getattr(importlib.import_module(module.name), "CLAIMS", ())


CLAIMS: tuple[Claim, ...] = tuple(
    sorted(
        (claim for subject in SUBJECTS for claim in claims_of(subject)),
        key=lambda claim: (claim.id[0], int(claim.id[1:])),
    )
)
GROUPS = tuple(dict.fromkeys(claim.id[0] for claim in CLAIMS))
NAMES = (*GROUPS, *(claim.id for claim in CLAIMS))
