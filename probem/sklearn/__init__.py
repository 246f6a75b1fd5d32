from .gaussian import GaussianMixture
from .kmeans import KMeans
