"""The Dirichlet-process Gaussian mixture, truncated."""

import functools

from .bayesian_gmm import bayesian_gmm
from .weights import stick_breaking

#: ``bayesian_gmm`` with stick-breaking weights: K is the largest number of components, and the prior decides how many
#: of them have rows. Source: Blei & Jordan (2006), Variational inference for Dirichlet process mixtures, section 3.
dirichlet_process_gmm = functools.partial(bayesian_gmm, weights=stick_breaking)
