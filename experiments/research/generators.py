"""Data drawn at random, with the components and the parameters it was drawn from.

A generator is a function of a seed, with keyword parameters; one of your own may stand in any file.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Drawn(NamedTuple):
    """Rows ``[N, D]``, the component of each ``[N]``, and true parameters by the name of their site."""

    rows: np.ndarray
    labels: np.ndarray | None = None
    parameters: dict[str, np.ndarray] | None = None


def gaussian_clusters(
    seed: int,
    *,
    rows: int = 200,
    dimension: int = 2,
    components: int = 2,
    separation: float = 4.0,
    elongation: float = 1.0,
    weights: list[float] | None = None,
) -> Drawn:
    """Gaussian clusters of standard deviation 1, neighbouring centres ``separation`` apart.

    Two centres, or those of one-dimensional rows, stand on a line along the first axis; more stand on a regular polygon
    in the first two. Along the last axis the standard deviation is ``elongation``. Parameters: ``loc``, ``weights``.
    """
    generator = np.random.default_rng(seed)
    centres = _centres(components, dimension, separation)
    shares, labels = _labels(generator, rows, components, weights)
    noise = generator.standard_normal((rows, dimension))
    noise[:, -1] *= elongation
    return Drawn(centres[labels] + noise, labels, {"loc": centres, "weights": shares})


def poisson_counts(
    seed: int,
    *,
    rows: int = 200,
    dimension: int = 4,
    components: int = 2,
    rate: float = 2.0,
    ratio: float = 3.0,
    weights: list[float] | None = None,
) -> Drawn:
    """Counts: component k has the rate ``rate * ratio`` in the columns d with d = k modulo K, and ``rate`` elsewhere.

    Parameters: ``rate``, ``weights``.
    """
    generator = np.random.default_rng(seed)
    rates = np.where(_own_column(components, dimension), rate * ratio, rate)
    shares, labels = _labels(generator, rows, components, weights)
    return Drawn(generator.poisson(rates[labels]).astype(float), labels, {"rate": rates, "weights": shares})


def bernoulli_features(
    seed: int,
    *,
    rows: int = 200,
    dimension: int = 8,
    components: int = 2,
    contrast: float = 0.3,
    weights: list[float] | None = None,
) -> Drawn:
    """Zeros and ones: P(x_d = 1) is 1/2 + ``contrast`` where d = k modulo K, and 1/2 - ``contrast`` elsewhere.

    Parameters: ``probs``, ``weights``.
    """
    generator = np.random.default_rng(seed)
    probs = np.where(_own_column(components, dimension), 0.5 + contrast, 0.5 - contrast)
    shares, labels = _labels(generator, rows, components, weights)
    ones = generator.random((rows, dimension)) < probs[labels]
    return Drawn(ones.astype(float), labels, {"probs": probs, "weights": shares})


def uniform_noise(seed: int, *, rows: int = 200, dimension: int = 2, width: float = 1.0) -> Drawn:
    """Rows without clusters, uniform on a cube of this width around zero."""
    return Drawn((np.random.default_rng(seed).random((rows, dimension)) - 0.5) * width)


#: The built-in generators, by name.
GENERATORS = {
    function.__name__: function for function in (gaussian_clusters, poisson_counts, bernoulli_features, uniform_noise)
}


def _centres(components: int, dimension: int, separation: float) -> Float[np.ndarray, "K D"]:
    centres = np.zeros((components, dimension))
    if components <= 2 or dimension == 1:
        centres[:, 0] = separation * (np.arange(components) - (components - 1) / 2)
        return centres
    angles = 2 * math.pi * np.arange(components) / components
    radius = separation / (2 * math.sin(math.pi / components))  # the side of the polygon is the separation
    centres[:, :2] = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return centres


def _labels(
    generator: np.random.Generator, rows: int, components: int, weights: list[float] | None
) -> tuple[Float[np.ndarray, " K"], Int[np.ndarray, " N"]]:
    """The shares of the components, and a component for every row."""
    shares = np.full(components, 1 / components) if weights is None else np.asarray(weights, float) / np.sum(weights)
    if len(shares) != components:
        raise ValueError(f"{len(shares)} weights for {components} components")
    return shares, generator.choice(components, size=rows, p=shares)


def _own_column(components: int, dimension: int) -> np.ndarray:
    """Which columns are those of which component ``[K, D]``."""
    return np.arange(dimension) % components == np.arange(components)[:, None]
