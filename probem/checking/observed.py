"""What is observed, as NumPyro's densities take it."""

from typing import Any

import jax.numpy as jnp
from numpyro import handlers


class WholeNumbers(handlers.Messenger):
    """Categories that are observed as floats, as NumPyro takes them."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or not msg["is_observed"] or "Categorical" not in _name(msg["fn"]):
            return
        value = jnp.asarray(msg["value"])
        if jnp.issubdtype(value.dtype, jnp.floating):
            msg["value"] = value.astype(int)


def _name(distribution: Any) -> str:
    """The name of a distribution without what is wrapped around it."""
    while hasattr(distribution, "base_dist") and distribution.base_dist is not None:
        distribution = distribution.base_dist
    return type(distribution).__name__
