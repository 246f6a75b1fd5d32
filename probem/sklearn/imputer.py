"""Missing values filled in by a mixture."""

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from probem.errors import InputError

from .base import NanTolerant, restored
from .checks import valid
from .density import DensityEstimator
from .gaussian import GaussianMixture


class Imputer(OneToOneFeatureMixin, TransformerMixin, NanTolerant):
    """A transformer that puts E[x_m | x_o] under a mixture in place of NaN, for a pipeline.

    Parameters
    ----------
    estimator : what is fitted to the rows with their gaps, any estimator of ``probem.sklearn`` with ``impute``; one
        normal distribution (``GaussianMixture()``) if None

    Attributes
    ----------
    estimator_ : the fitted one

    Source: Ghahramani & Jordan (1994), Supervised learning from incomplete data via an EM approach.
    """

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "Imputer":
        """Fit the mixture to the rows ``[N, D]``, NaN where a value is missing; y is what it makes of it."""
        chosen: Any = GaussianMixture() if self.estimator is None else clone(self.estimator)
        if not isinstance(chosen, DensityEstimator):
            raise InputError(
                f"an estimator of type {type(chosen).__name__} of {type(chosen).__module__.partition('.')[0]}",
                "a mixture of probem.sklearn",
                "use GaussianMixture, BayesianGaussianMixture or Mixture",
            )
        with restored(self):
            rows = valid(self, X, dtype=[np.float64, np.float32])
            self.estimator_ = chosen.fit(rows, y, sample_weight=sample_weight)
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "N D"]:
        """The rows with their gaps filled, ``[N, D]``."""
        check_is_fitted(self)
        return self.estimator_.impute(self._rows(X))

    @property
    def _dtype(self) -> np.dtype:
        return self.estimator_._dtype
