"""All claims, in the order in which they are checked, and the names by which they are chosen."""

from probem.experiments.bayes.evidence import claims as evidence
from probem.experiments.bayes.priors import claims as priors
from probem.experiments.bound import claims as bound
from probem.experiments.claims.claim import Claim
from probem.experiments.kmeans import claims as kmeans
from probem.experiments.routes import claims as routes

CLAIMS: tuple[Claim, ...] = (
    *bound.CLAIMS,
    *kmeans.CLAIMS,
    *sorted((*evidence.CLAIMS, *priors.CLAIMS), key=lambda claim: claim.id),
    *routes.CLAIMS,
)
GROUPS = tuple(dict.fromkeys(claim.id[0] for claim in CLAIMS))
NAMES = (*GROUPS, *(claim.id for claim in CLAIMS))
