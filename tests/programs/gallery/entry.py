"""An entry of the gallery, and the rows and parameters that many of its programs share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

import probem

#: Rows of a program.
NUM_ROWS = 60
#: The corners that differ only where parameters have a prior.
POSTERIOR_CORNERS = (probem.VARIATIONAL_BAYES, probem.MAXIMIZATION_EXPECTATION)


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A program, the data that it is fitted to, and the corners that refuse it.

    ``refused`` gives, by the name of a corner, what the error says; ``because`` the same in a few words, for the table.
    ``meaning`` is another program and data of the same density, which NumPyro alone can evaluate; ``start`` gives
    parameters to start at; ``on_edge`` names those that end at zero where assignments are point masses.
    """

    program: Callable[..., None]
    data: tuple[Any, ...]
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    because: str = ""
    meaning: tuple[Callable[..., None], tuple[Any, ...]] | None = None
    start: Mapping[str, Any] | None = None
    has_prior: bool = False
    on_edge: tuple[str, ...] = ()

    @property
    def init(self) -> probem.Parameters | None:
        return None if self.start is None else probem.Parameters(dict(self.start))


def fitted(program: Callable[..., None], *data: Any, **others: Any) -> Entry:
    """Parameters without a prior: EM and hard EM."""
    return Entry(program, data, **others)


def bayesian(program: Callable[..., None], *data: Any, **others: Any) -> Entry:
    """Parameters with a prior: every corner."""
    return Entry(program, data, has_prior=True, **others)


def no_posterior(program: Callable[..., None], *data: Any, message: str, because: str, **others: Any) -> Entry:
    """Parameters with a prior that has no conjugate posterior: EM and hard EM, which are MAP."""
    refused = {corner.name: message for corner in POSTERIOR_CORNERS}
    return Entry(program, data, refused, because, has_prior=True, **others)


def groups(seed: int, num_rows: int = NUM_ROWS) -> tuple[np.random.Generator, np.ndarray]:
    """A generator, and a group of two for every row."""
    random = np.random.default_rng(seed)
    return random, random.permutation(np.arange(num_rows) % 5 < 2).astype(int)


def shares(num_components: int = 2, name: str = "weights") -> jax.Array:
    return numpyro.param(name, jnp.full(num_components, 1 / num_components), constraint=constraints.simplex)


def prior_shares(num_components: int = 2) -> jax.Array:
    return numpyro.sample("weights", dist.Dirichlet(jnp.full(num_components, 2.0)))


def positive(name: str, value: Any) -> jax.Array:
    return numpyro.param(name, jnp.asarray(value, float), constraint=constraints.positive)


def free(name: str, value: Any) -> jax.Array:
    return numpyro.param(name, jnp.asarray(value, float))
