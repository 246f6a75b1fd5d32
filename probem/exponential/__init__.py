"""Exponential-family views: what turns a table of log joints into one matrix product, one file per distribution."""

from numpyro.distributions import Distribution

from .base import Arguments, Density, ExponentialFamily, Location, Prior, as_floating
from .bernoulli import Bernoulli
from .categorical import Categorical
from .counts import ExposedPoisson, Trials
from .dirichlet import Beta, Dirichlet
from .exponential import Exponential
from .gamma import Gamma, GammaPrior, InverseGamma
from .linear import LinearNormal
from .multinomial import Multinomial
from .multivariate_normal import MultivariateNormal
from .normal import Normal
from .poisson import Poisson
from .wishart import InverseWishart, Wishart

#: Every view. A new one is its file and its name here.
VIEWS = (Bernoulli, Categorical, Exponential, Gamma, Multinomial, MultivariateNormal, Normal, Poisson)

#: Every conjugate prior but those of locations, which are normal.
PRIORS = (Beta, Dirichlet, GammaPrior, InverseGamma, InverseWishart, Wishart)

_VIEW_OF: dict[type[Distribution], type[ExponentialFamily]] = {
    distribution: view for view in VIEWS for distribution in view.distributions
}

_PRIOR_OF: dict[type[Distribution], type[Prior]] = {
    distribution: prior for prior in PRIORS for distribution in prior.distributions
}


def view(distribution: Distribution) -> ExponentialFamily | None:
    """The view of a base distribution (not wrapped by to_event, expand or mask), or None if it has none.

    Subclasses have none: they may have changed the density.
    """
    cls = _VIEW_OF.get(type(distribution))
    return None if cls is None else cls.of(distribution)


def prior(distribution: Distribution) -> Prior | None:
    """The conjugate prior of this class (not wrapped by to_event, expand or mask), or None if there is none."""
    cls = _PRIOR_OF.get(type(distribution))
    family = None if cls is None else cls.of(distribution)
    assert family is None or isinstance(family, Prior)
    return family


__all__ = [
    "PRIORS",
    "VIEWS",
    "Arguments",
    "Density",
    "ExponentialFamily",
    "ExposedPoisson",
    "LinearNormal",
    "Location",
    "Multinomial",
    "Prior",
    "Trials",
    "as_floating",
    "prior",
    "view",
]
