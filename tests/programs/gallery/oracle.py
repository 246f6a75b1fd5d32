"""What NumPyro alone says of a program: its densities at many parameters, one run for each value of the assignments."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.infer.util import compute_log_probs

Params = Mapping[str, Any]


class Densities:
    """log p(x_n, t_n = k | params) and log p(params) of a program on its data; ``size`` numbers without constraints are
    its parameters.
    """

    def __init__(self, program: Callable[..., None], data: tuple[Any, ...]):
        self.program, self.data = program, jax.tree.map(jnp.asarray, data)
        sites = handlers.trace(handlers.seed(program, 0)).get_trace(*self.data)
        self.num_rows = jax.tree.leaves(self.data)[0].shape[0]
        self.rows = {
            name: frame.dim
            for name, site in sites.items()
            for frame in site.get("cond_indep_stack", ())
            if frame.size == self.num_rows and site["type"] == "sample"
        }
        self.latents = {
            name: (np.asarray(site["fn"].enumerate_support(expand=False)).reshape(-1), np.shape(site["value"]))
            for name, site in sites.items()
            if site["type"] == "sample" and not site["is_observed"] and name in self.rows
        }
        self.bijections = {
            name: biject_to(
                site["fn"].support if site["type"] == "sample" else site["kwargs"].get("constraint", constraints.real)
            )
            for name, site in sites.items()
            if site["type"] in ("param", "sample") and name not in self.rows and not site.get("is_observed")
        }
        first = {name: sites[name]["value"] for name in self.bijections}
        flat, self.unravel = ravel_pytree(self._free(first))
        self.size = flat.size
        self.at = jax.jit(jax.vmap(self._moved))

    def _free(self, params: Params) -> dict[str, Any]:
        return {name: bijection.inv(jnp.asarray(params[name])) for name, bijection in self.bijections.items()}

    def _moved(self, params: Params, offset: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The table [N, K] and the log prior at parameters, moved by so much without constraints."""
        flat, _ = ravel_pytree(self._free(params))
        moved = self.unravel(flat + offset)
        params = {name: bijection(moved[name]) for name, bijection in self.bijections.items()}
        table, prior = [], jnp.zeros(())
        for values in itertools.product(*(values for values, _ in self.latents.values())):
            labels = {
                name: jnp.full(shape, value)
                for (name, (_, shape)), value in zip(self.latents.items(), values, strict=True)
            }
            parts, _ = compute_log_probs(self.program, self.data, {}, {**params, **labels}, sum_log_prob=False)
            column, prior = jnp.zeros(self.num_rows), jnp.zeros(())
            for name, part in parts.items():
                if name in self.rows:
                    column = column + _by_row(part, self.rows[name], self.num_rows)
                else:
                    prior = prior + jnp.sum(part)
            table.append(column)
        return jnp.stack(table, 1), prior


def _by_row(values: jax.Array, dim: int, num_rows: int) -> jax.Array:
    """Sums over all axes but that of the rows; a factor may have fewer axes."""
    values = jnp.asarray(values)
    if values.ndim < -dim:
        values = jnp.broadcast_to(values, (num_rows, *[1] * (-dim - 1)))
    axis = values.ndim + dim
    moved = jnp.moveaxis(values, axis, 0)
    return jnp.broadcast_to(moved, (num_rows, *moved.shape[1:])).reshape(num_rows, -1).sum(1)
