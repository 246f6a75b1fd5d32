"""The four corners of the square: a family for the assignments and one for the parameters, by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from probem.families.assignments import AssignmentFamily, Categorical, Delta
from probem.families.parameters import Conjugate, Gaussian, ParameterFamily


@dataclasses.dataclass(frozen=True)
class Corner:
    """A named choice of families, for the assignments and for the parameters with a prior.

    ``corner | {"loc": probem.Delta()}`` is a corner with another family on some sites.

    Attributes
    ----------
    name : what it is called in messages
    assignments : the family of every assignment site
    parameters : the family of every site outside the data plate that has a prior
    others : (site, family) pairs that differ from these
    """

    name: str
    assignments: AssignmentFamily
    parameters: ParameterFamily
    others: tuple[tuple[str, Any], ...] = ()

    def __or__(self, families: Mapping[str, Any]) -> "Corner":
        return dataclasses.replace(self, others=tuple({**dict(self.others), **families}.items()))


#: Full categorical assignments, point parameters (maximum likelihood; MAP where there are priors).
EM = Corner("EM", Categorical(), Delta())
#: Point-mass assignments, point parameters: classification EM, and k-means for the model ``kmeans``.
HARD_EM = Corner("HARD_EM", Delta(), Delta())
#: Full categorical assignments, full posteriors on the parameters with a prior. Source: Attias (2000); Beal (2003).
VARIATIONAL_BAYES = Corner("VARIATIONAL_BAYES", Categorical(), Conjugate())
#: Point-mass assignments, full posteriors on the parameters with a prior: Bayesian k-means for Gaussian mixtures.
#: Source: Kurihara & Welling (2009), Bayesian k-means as a "maximization-expectation" algorithm.
MAXIMIZATION_EXPECTATION = Corner("MAXIMIZATION_EXPECTATION", Delta(), Conjugate())


class Families(NamedTuple):
    """The families of a program, once checked against its sites.

    Attributes
    ----------
    assignments : the family of all assignment sites
    parameters : (site, family) pairs of those outside the data plate that have a prior; one left out is a point
    modes : whether a point under a conjugate prior has its closed form, the mode of what its full posterior would be
    fixed : which entries of which points stay where they are (``program/fixed.py``)
    predictors : whether a location that is linear in parameters has its statistics, and closed forms by them
    """

    assignments: AssignmentFamily
    parameters: tuple[tuple[str, ParameterFamily], ...] = ()
    modes: bool = True
    fixed: tuple[tuple[str, bytes], ...] = ()
    predictors: bool = True

    def of(self, name: str) -> ParameterFamily:
        """The family of a site outside the data plate that has a prior."""
        return dict(self.parameters).get(name, Delta())

    @property
    def conjugate(self) -> tuple[str, ...]:
        """The sites whose prior has to be conjugate to what depends on them."""
        return tuple(name for name, family in self.parameters if family.needs_conjugate_prior)

    @property
    def gaussian(self) -> tuple[str, ...]:
        """The sites whose q is normal in unconstrained space."""
        return tuple(name for name, family in self.parameters if isinstance(family, Gaussian))

    @property
    def full(self) -> tuple[str, ...]:
        """The sites with a full posterior."""
        return (*self.conjugate, *self.gaussian)
