"""Averages over normal numbers as sums over nodes that stay the same.

Where one number matters, the nodes are those of the Gauss-Hermite rule; where two, its product grid; where more, a
Sobol sequence with a random digital shift and the mirror image of every node, made white: an average over it is exact
for quadratic functions.
Source: Golub & Welsch (1969), Calculation of Gauss quadrature rules; L'Ecuyer & Lemieux (2002), Recent advances in
randomized quasi-Monte Carlo methods, section 4.
"""

import dataclasses
import functools
import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int

from probem.jit.structure import structural

#: The most numbers of a product grid.
MOST_IN_GRID = 2
# Nodes of the grid with a smaller weight are left out: they add less than rounding takes.
_LEAST_WEIGHT = 1e-20
# The fewest quasi-random nodes for each number.
_LEAST_DRAWS = 8
# The binary digits of a point.
_DIGITS = 32


@dataclasses.dataclass(frozen=True, eq=False)
class NodeSet:
    """Nodes ``[J, M]`` in M independent standard normal numbers, and their weights ``[J]``, which sum to 1.

    Attributes
    ----------
    densities : the sites whose densities are averaged over these nodes
    columns : for every cell ``[C, D]`` of the sites that reach these densities, which of the M numbers are its own
    nodes, weights : the nodes and weights; other ones of their shape compile nothing
    """

    densities: tuple[str, ...]
    columns: Mapping[str, Int[np.ndarray, "C D"]]
    nodes: Float[np.ndarray, "J M"] | Float[Array, "J M"]
    weights: Float[np.ndarray, " J"] | Float[Array, " J"]

    @property
    def structure(self) -> Hashable:
        """All but the nodes and weights."""
        return structural((self.densities, self.columns, self.nodes.shape))

    @property
    def numbers(self) -> tuple[Any, Any]:
        """The nodes and weights."""
        return self.nodes, self.weights

    def with_numbers(self, numbers: tuple[Any, Any]) -> "NodeSet":
        """The averages over other nodes."""
        nodes, weights = numbers
        return dataclasses.replace(self, nodes=nodes, weights=weights)

    @property
    def is_grid(self) -> bool:
        """Whether the nodes are those of a rule, and not quasi-random."""
        return self.nodes.shape[1] <= MOST_IN_GRID


@functools.lru_cache(maxsize=64)
def grid(num_nodes: int, dim: int) -> tuple[Float[np.ndarray, "J M"], Float[np.ndarray, " J"]]:
    """The product of Gauss-Hermite rules of ``num_nodes`` nodes in each of ``dim`` numbers."""
    points, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    weights = weights / weights.sum()
    nodes = np.stack(np.meshgrid(*(points,) * dim, indexing="ij"), -1).reshape(-1, dim)
    products = np.stack(np.meshgrid(*(weights,) * dim, indexing="ij"), -1).reshape(-1, dim).prod(1)
    kept = products > _LEAST_WEIGHT
    return nodes[kept], products[kept] / products[kept].sum()


@functools.lru_cache(maxsize=64)
def quasi_random(num_draws: int, dim: int, seed: int = 0) -> tuple[Float[np.ndarray, "J M"], Float[np.ndarray, " J"]]:
    """``num_draws`` nodes, or eight for each number where that is more, of equal weights, in ``dim`` numbers.

    Their mean is zero and their covariance the unit matrix, to rounding; another ``seed`` shifts them anew.
    """
    from scipy.special import ndtri
    from scipy.stats import qmc

    power = max(num_draws.bit_length() - 1, math.ceil(math.log2(_LEAST_DRAWS * dim)))
    half = ndtri(_shifted(qmc.Sobol(dim, scramble=False).random_base2(power - 1), np.random.default_rng(seed)))
    nodes = np.concatenate([half, -half])
    nodes = np.linalg.solve(np.linalg.cholesky(nodes.T @ nodes / len(nodes)), nodes.T).T
    return nodes, np.full(len(nodes), 1.0 / len(nodes))


def _shifted(points: Float[np.ndarray, "J M"], random: np.random.Generator) -> Float[np.ndarray, "J M"]:
    """Points of the unit cube with some of their binary digits, the same for all of them, turned."""
    bits = (points * 2.0**_DIGITS).astype(np.uint64) ^ random.integers(
        2**_DIGITS, size=points.shape[1], dtype=np.uint64
    )
    return (bits + 0.5) / 2.0**_DIGITS
