"""What data say of a row beside the value that is observed there: a part of the event of its density."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from probem.exponential import Arguments
from probem.form.layout import located
from probem.form.predictor import LinearPredictor
from probem.jit.live import live
from probem.program.program import Program


class Companion(abc.ABC):
    """Numbers of a row that stand beside its value in an event, and arguments of the density that they change."""

    @abc.abstractmethod
    def events(
        self, program: Program, site: str, values: Float[Array, "n C"], data: tuple[Any, ...]
    ) -> Float[Array, "n C D"]:
        """The value of every copy, and what stands beside it."""

    @abc.abstractmethod
    def arguments(self, sites: Mapping[str, dict[str, Any]]) -> Arguments:
        """The arguments ``[K, C, ...]`` that take the place of those of the distribution, at the values of a trace."""


@dataclasses.dataclass(frozen=True, eq=False)
class Covariates(Companion):
    """The covariates of a linear predictor. The density has its coefficients, and which are not zero for good."""

    predictor: LinearPredictor

    def events(
        self, program: Program, site: str, values: Float[Array, "n C"], data: tuple[Any, ...]
    ) -> Float[Array, "n C D"]:
        return self.predictor.events(program, site, values, data)

    def arguments(self, sites: Mapping[str, dict[str, Any]]) -> Arguments:
        coefficients = self.predictor.coefficients(sites)
        return {"coefficients": coefficients, "free": jnp.asarray(self.predictor.free, coefficients.dtype)}


@dataclasses.dataclass(frozen=True, eq=False)
class Exposure(Companion):
    """What a rate is multiplied by: the covariate of a linear predictor whose coefficient is the rate of a unit."""

    predictor: LinearPredictor

    def events(
        self, program: Program, site: str, values: Float[Array, "n C"], data: tuple[Any, ...]
    ) -> Float[Array, "n C 2"]:
        return self.predictor.events(program, site, values, data)

    def arguments(self, sites: Mapping[str, dict[str, Any]]) -> Arguments:
        return {"rate": self.predictor.coefficients(sites)[..., 0]}


@dataclasses.dataclass(frozen=True)
class Size(Companion):
    """A number of trials, which depends on no parameter."""

    argument: str = "total_count"

    def events(
        self, program: Program, site: str, values: Float[Array, "n C"], data: tuple[Any, ...]
    ) -> Float[Array, "n C 2"]:
        def sizes(data: tuple[Any, ...]) -> Float[Array, "n C"]:
            here = program.enumerated_trace(params, data, component=0)[site]
            return located(program, here, values.shape[1], (1,) * len(program.assignments), self.argument)[0]

        # The values of the parameters do not matter.
        params = {each.name: jnp.zeros(each.shape) for each in program.globals}
        # A size that all rows share may have a single row.
        beside = jnp.broadcast_to(live(sizes)(data), values.shape)
        return jnp.stack([values, beside.astype(values.dtype)], axis=-1)

    def arguments(self, sites: Mapping[str, dict[str, Any]]) -> Arguments:
        del sites
        return {}
