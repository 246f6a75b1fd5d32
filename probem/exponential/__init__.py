"""Exponential-family views: what turns a table of log joints into one matrix product, one file per distribution."""

from numpyro.distributions import Distribution

from .base import Arguments, ExponentialFamily
from .bernoulli import Bernoulli
from .categorical import Categorical
from .exponential import Exponential
from .gamma import Gamma
from .multivariate_normal import MultivariateNormal
from .normal import Normal
from .poisson import Poisson

#: Every view. A new one is its file and its name here.
VIEWS = (Bernoulli, Categorical, Exponential, Gamma, MultivariateNormal, Normal, Poisson)

_VIEW_OF: dict[type[Distribution], type[ExponentialFamily]] = {
    distribution: view for view in VIEWS for distribution in view.distributions
}


def view(distribution: Distribution) -> ExponentialFamily | None:
    """The view of a base distribution (not wrapped by to_event, expand or mask), or None if it has none.

    Subclasses have none: they may have changed the density.
    """
    cls = _VIEW_OF.get(type(distribution))
    return None if cls is None else cls.of(distribution)


__all__ = ["VIEWS", "Arguments", "ExponentialFamily", "view"]
