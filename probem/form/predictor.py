"""Linear predictors: locations that differ from row to row, affine in parameters with slopes that data alone decide.

A location is offset + c' d + a, where the covariates d and the offset follow from a row alone, and coefficients c and
intercept a are entries of sites (or sums of such). The site then has the sufficient statistics of its value and its
covariates together: see ``exponential/linear.py``. The covariates are those of the program itself, by its derivatives:
a column of the data, a power of it, a product of two, an indicator of a group.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probem.form.layout import located
from probem.jit.live import live
from probem.program.program import Program


@dataclasses.dataclass(frozen=True, eq=False)
class LinearPredictor:
    """How covariates and coefficients of a site follow from data and from parameters.

    ``entries[k, c, q]`` are the entries, among those of ``sites`` one after another, whose sum is coefficient q of copy
    c under component k; -1 stands for none. Covariate p of copy c is the derivative of the location of that copy under
    component ``components[g]`` along ``directions[g]``, where g is ``place[c, p]``, and zero where that is -1; it does
    not depend on where it is taken, which is at ``point``. ``argument`` is what the distribution calls it;
    ``starts_at_zero``: it has no offset.
    """

    sites: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    entries: Int[np.ndarray, "K C Q M"]
    components: tuple[int, ...]
    directions: Int[np.ndarray, "G m"]
    place: Int[np.ndarray, "C P"]
    point: Mapping[str, Float[np.ndarray, "..."]]
    argument: str
    starts_at_zero: bool

    @property
    def free(self) -> Float[np.ndarray, "K C Q"]:
        """One where a coefficient is a parameter, zero where it is zero for good."""
        return np.asarray((self.entries >= 0).any(-1), float)

    @property
    def num_covariates(self) -> int:
        return self.place.shape[1]

    def coefficients(self, sites: Mapping[str, dict[str, Any]]) -> Float[Array, "K C Q"]:
        """Coefficients, the intercept last, at the values of a trace."""
        flat = jnp.concatenate([jnp.ravel(sites[name]["value"]) for name in self.sites])
        picked = flat[np.maximum(self.entries, 0)]
        if (self.entries < 0).any():
            picked = jnp.where(self.entries >= 0, picked, 0.0)
        # One alone stays what it is, to the last bit.
        return picked.sum(-1) if self.entries.shape[-1] > 1 else picked[..., 0]

    def events(
        self, program: Program, site: str, values: Float[Array, "n C"], data: tuple[Any, ...]
    ) -> Float[Array, "n C D"]:
        """The value of every copy without its offset, then its covariates."""
        offset, derivatives = live(lambda data: self._derivatives(program, site, values.shape[1], data))(data)
        columns = [(values - offset)[..., None]]
        if self.num_covariates:
            padded = jnp.concatenate([derivatives, jnp.zeros((1, *values.shape), derivatives.dtype)])
            if (self.place == self.place[:1]).all():
                covariates = jnp.moveaxis(padded[self.place[0]], 0, -1)
            else:
                covariates = jnp.moveaxis(padded[self.place, :, np.arange(len(self.place))[:, None]], -1, 0)
            columns.append(covariates)
        return jnp.concatenate(columns, axis=-1)

    def _derivatives(
        self, program: Program, site: str, copies: int, data: tuple[Any, ...]
    ) -> tuple[Float[Array, "n C"], Float[Array, "G n C"]]:
        """The offset, and the derivatives along all directions."""
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        point = {name: jnp.asarray(value) for name, value in self.point.items()}
        zeros = {name: jnp.zeros(shape) for name, shape in zip(self.sites, self.shapes, strict=True)}

        def at(values: Mapping[str, Array], component: int) -> Float[Array, "n C"]:
            sites = program.enumerated_trace({**point, **values}, data, component=component)
            return located(program, sites[site], copies, (1,) * len(program.assignments), self.argument)[0]

        offset, parts = None, []
        for component in dict.fromkeys((*self.components, 0)):
            here = [number for number, other in enumerate(self.components) if other == component]
            if not here:
                offset = at(zeros, component) if offset is None else offset
                continue
            flat = np.zeros((len(here), sum(sizes)))
            for row, number in enumerate(here):
                flat[row, self.directions[number][self.directions[number] >= 0]] = 1.0
            blocks = np.split(flat, np.cumsum(sizes)[:-1], axis=1)
            steps = {
                name: jnp.asarray(block.reshape(len(here), *shape))
                for name, block, shape in zip(self.sites, blocks, self.shapes, strict=True)
            }
            offset, derivatives = jax.vmap(
                lambda step, component=component: jax.jvp(lambda values: at(values, component), (zeros,), (step,)),
                out_axes=(None, 0),
            )(steps)
            parts.append((here, derivatives))
        assert offset is not None
        order = [number for here, _ in parts for number in here]
        empty = jnp.zeros((0, *offset.shape), offset.dtype)
        whole = jnp.concatenate([derivatives for _, derivatives in parts]) if parts else empty
        return offset, whole[np.argsort(order)] if parts else whole
