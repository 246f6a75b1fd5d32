"""Families of the sites outside the data plate that have a prior."""

import dataclasses

from probem.families.assignments import Delta


@dataclasses.dataclass(frozen=True)
class Conjugate:
    """The full posterior of a site outside the data plate, in the family of its conjugate prior.

    q(z) is the exact posterior of z with all other sites held. It is read off the program: the prior has to be
    conjugate to every density that depends on the site. Source: Beal (2003), Variational algorithms for approximate
    Bayesian inference, theorem 2.2.
    """


#: A family for a site outside the data plate that has a prior.
ParameterFamily = Delta | Conjugate
