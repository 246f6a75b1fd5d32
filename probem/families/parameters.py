"""Families of the sites outside the data plate that have a prior."""

import abc
import dataclasses


class ParameterFamily(abc.ABC):
    """A set of q's for a site outside the data plate that has a prior, immutable and hashable.

    What is done with q there is asked of a ``SitePosterior`` (``mean_field/sites.py``), whose class names its family.
    """

    @property
    @abc.abstractmethod
    def needs_conjugate_prior(self) -> bool:
        """Whether there is such a q only where the prior is conjugate to every density that depends on the site."""

    @property
    def in_words(self) -> str:
        """What ``explain`` calls q of the site."""
        return repr(self)


@dataclasses.dataclass(frozen=True)
class Conjugate(ParameterFamily):
    """The full posterior of a site outside the data plate, in the family of its conjugate prior.

    q(z) is the exact posterior of z given all other sites. It is read off the program: the prior has to be
    conjugate to every density that depends on the site. Source: Beal (2003), Variational algorithms for approximate
    Bayesian inference, theorem 2.2.
    """

    @property
    def needs_conjugate_prior(self) -> bool:
        return True
