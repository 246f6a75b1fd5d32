"""Every conjugate prior as NumPyro and as SciPy have it: where its conformance suite takes its numbers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats as stats
from numpyro import distributions as dist

from probem.exponential import prior
from probem.exponential.base import Prior
from tests.exponential.exponential_cases import DIM, _covariance

Arrays = dict[str, np.ndarray]
EYE = np.eye(DIM)


@dataclasses.dataclass(frozen=True, eq=False)
class PriorCase:
    """A prior as NumPyro and as SciPy have it; ``borders`` are arguments, and whether they are proper and bounded."""

    name: str
    build: Callable[[Arrays], dist.Distribution]
    draw_arguments: Callable[[np.random.Generator, tuple[int, ...]], Arrays]
    scipy: Callable[[Arrays], Any]
    borders: tuple[tuple[Arrays, bool, bool], ...]
    #: Its value, moved by u along its support, in every direction where u is zero.
    move: Callable[[Any, Any], Any] = lambda value, u: value + u
    #: The function of the value whose mean is that of ``point``.
    of_mean: Callable[[np.ndarray], np.ndarray] = lambda value: value

    def view(self, arguments: Arrays) -> Prior:
        found = prior(self.build(arguments))
        assert found is not None
        return found


def _positive(*names: str) -> Callable[[np.random.Generator, tuple[int, ...]], Arrays]:
    """Concentrations above one, so that there is a mode inside."""
    return lambda rng, batch: {name: 1.1 + rng.gamma(2.0, size=batch) for name in names}


def _matrices(name: str) -> Callable[[np.random.Generator, tuple[int, ...]], Arrays]:
    def draw(rng: np.random.Generator, batch: tuple[int, ...]) -> Arrays:
        return {"concentration": DIM + 1.5 + rng.gamma(2.0, size=batch), name: _covariance(rng, batch)}

    return draw


def _gamma_borders(lowest: float) -> tuple[tuple[Arrays, bool, bool], ...]:
    """``lowest``: from which concentration on the density is bounded."""
    values = [(1.0, 1.0), (0.99, 1.0), (1e-3, 1.0), (0.0, 1.0), (-1.0, 1.0), (np.inf, 1.0), (2.0, 0.0), (2.0, np.nan)]
    return tuple(
        (
            {"concentration": np.array(c), "rate": np.array(r)},
            bool(0 < c < np.inf and r > 0),
            bool(max(lowest, 1e-9) <= c < np.inf and r > 0),
        )
        for c, r in values
    )


def _matrix_borders(name: str, lowest: float) -> tuple[tuple[Arrays, bool, bool], ...]:
    """``lowest``: above which concentration the density is bounded with its mode inside."""
    indefinite = np.diag([1.0, 1.0, -1.0])
    values = [
        (DIM + 1.001, EYE, True),
        (DIM + 1.0, EYE, True),
        (DIM - 0.99, EYE, True),
        (DIM - 1.0, EYE, False),
        (np.inf, EYE, False),
        (DIM + 2.0, indefinite, False),
        (DIM + 2.0, np.diag([1.0, 1.0, 0.0]), False),
    ]
    return tuple(
        ({"concentration": np.array(dof), name: matrix}, proper, proper and dof > lowest)
        for dof, matrix, proper in values
    )


def _symmetric(value: Any, u: Any) -> Any:
    return value + 0.5 * (u + jnp.swapaxes(u, -1, -2))


CASES = (
    PriorCase(
        "dirichlet",
        lambda a: dist.Dirichlet(**a),
        lambda rng, batch: {"concentration": 1.1 + rng.gamma(2.0, size=(*batch, 4))},
        lambda a: stats.dirichlet(a["concentration"]),
        tuple(
            ({"concentration": np.array(own)}, proper, bounded)
            for own, proper, bounded in (
                ([1.0, 1.0, 2.0], True, True),
                ([0.99, 1.0, 2.0], True, False),
                ([0.0, 1.0, 2.0], False, False),
                ([np.inf, 1.0, 2.0], False, False),
                ([np.nan, 1.0, 2.0], False, False),
            )
        ),
        move=lambda value, u: jax.nn.softmax(jnp.log(value) + u),
    ),
    PriorCase(
        "beta",
        lambda a: dist.Beta(**a),
        _positive("concentration1", "concentration0"),
        lambda a: stats.beta(a["concentration1"], a["concentration0"]),
        tuple(
            ({"concentration1": np.array(a), "concentration0": np.array(b)}, proper, bounded)
            for a, b, proper, bounded in (
                (1.0, 1.0, True, True),
                (0.99, 2.0, True, False),
                (2.0, 0.99, True, False),
                (0.0, 1.0, False, False),
                (1.0, np.inf, False, False),
            )
        ),
    ),
    PriorCase(
        "gamma",
        lambda a: dist.Gamma(**a),
        _positive("concentration", "rate"),
        lambda a: stats.gamma(a["concentration"], scale=1 / a["rate"]),
        _gamma_borders(1.0),
    ),
    PriorCase(
        "inverse_gamma",
        lambda a: dist.InverseGamma(**a),
        _positive("concentration", "rate"),
        lambda a: stats.invgamma(a["concentration"], scale=a["rate"]),
        _gamma_borders(0.0),
        of_mean=lambda value: 1 / value,
    ),
    PriorCase(
        "wishart",
        lambda a: dist.Wishart(**a),
        _matrices("rate_matrix"),
        lambda a: stats.wishart(float(a["concentration"]), np.linalg.inv(a["rate_matrix"])),
        _matrix_borders("rate_matrix", DIM + 1.0),
        move=_symmetric,
    ),
    PriorCase(
        "inverse_wishart",
        lambda a: dist.InverseWishart(a["concentration"], scale_matrix=a["rate_matrix"]),
        _matrices("rate_matrix"),
        lambda a: stats.invwishart(float(a["concentration"]), a["rate_matrix"]),
        _matrix_borders("rate_matrix", 0.0),
        move=_symmetric,
        of_mean=np.linalg.inv,
    ),
)
