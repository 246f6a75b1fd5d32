"""scikit-learn estimators over the engine: each chooses a program, families and a stopping rule, nothing more."""

from .bayesian import BayesianGaussianMixture
from .gaussian import GaussianMixture
from .imputer import Imputer
from .kmeans import KMeans
from .mixture import Mixture

__all__ = ["BayesianGaussianMixture", "GaussianMixture", "Imputer", "KMeans", "Mixture"]
