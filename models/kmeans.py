"""k-means: the Gaussian mixture with three restrictions."""

import functools

from .covariance import identity
from .gmm import gmm
from .weights import equal

# The lecture's derivation. Restrict the mixture twice,
#
#     Sigma_c = I,   pi_c = 1 / K      =>      log p(x, t = c) = -1/2 |x - mu_c|^2 + constant,
#
# and q(t) to point masses (the third restriction, a family: ``probem.HARD_EM``). The E-step is then
# argmax_c log p(x, t = c) = argmin_c |x - mu_c|^2, the nearest centre, and the M-step the mean of the rows assigned.
kmeans = functools.partial(gmm, covariance=identity, weights=equal)
