"""NumPyro's mixtures, which sum over their assignment, with the assignment as a site of the program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, Int
from numpyro.distributions import (
    Bernoulli,
    BinomialProbs,
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    MixtureGeneral,
    MixtureSameFamily,
    Poisson,
    ZeroInflatedPoisson,
    constraints,
)
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.discrete import ZeroInflatedProbs
from numpyro.primitives import Messenger

from probem.program.densities import log_prob_within

_MIXTURES = (MixtureSameFamily, MixtureGeneral, ZeroInflatedProbs, ZeroInflatedPoisson)
# Marks the sites that are added.
_IS_WRITTEN = "is_written_out"


def with_assignments(program: Callable[..., Any]) -> Callable[..., Any]:
    """The program with a site for the assignment of each observed mixture, over which NumPyro's distribution sums.

    ``x ~ MixtureSameFamily(Categorical(weights), Normal(loc, scale))`` becomes

        x_component ~ Categorical(weights)
        x ~ Normal(loc[x_component], scale[x_component])

    which has the same p(x), and q(x_component) for EM to climb with. Zero-inflated distributions have the assignment
    x_component ~ Bernoulli(gate), which is 1 where the zero is an extra zero.

    Parameters
    ----------
    program : a NumPyro program in which ``MixtureSameFamily``, ``MixtureGeneral`` or a zero-inflated distribution is
        observed, one event for each row; it may be masked

    Returns
    -------
    A program of the same arguments; the assignment of the site ``x`` is ``x_component``.

    Raises
    ------
    InputError
        From ``fit``, as for any other program: a mixture in ``to_event`` has an assignment for each entry of the event,
        and stays as it is.

    Examples
    --------
    >>> def program(x):
    ...     weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    ...     loc = numpyro.param("loc", jnp.array([0.0, 5.0]))
    ...     with numpyro.plate("data", x.shape[0]):
    ...         density = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, 1.0))
    ...         numpyro.sample("x", density, obs=x)
    >>> fit = probem.fit(probem.with_assignments(program), x)  # doctest: +SKIP
    """
    return WithAssignments(program)


def is_mixture(distribution: Any) -> bool:
    """Whether it sums over an assignment that can be written as a site."""
    return isinstance(_bare(distribution), _MIXTURES)


class WithAssignments(Messenger):
    """Writes out the mixtures of the program that it is around."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        if msg["is_observed"] and is_mixture(msg["fn"]):
            msg["fn"] = _written_out(msg["name"], msg["fn"])
        elif _IS_WRITTEN in msg["infer"]:
            # Of a masked mixture nothing is said of x: the assignment is what its prior says.
            while isinstance(msg["fn"], MaskedDistribution):
                msg["fn"] = msg["fn"].base_dist


def _bare(distribution: Any) -> Any:
    while isinstance(distribution, ExpandedDistribution | MaskedDistribution):
        distribution = distribution.base_dist
    return distribution


def _written_out(name: str, distribution: Any) -> Any:
    """A draw of the assignment, and the distribution given it."""
    mixture = _bare(distribution)
    zeros = not isinstance(mixture, MixtureSameFamily | MixtureGeneral)
    prior: Any = Bernoulli(probs=mixture.gate) if zeros else mixture.mixing_distribution
    index = numpyro.sample(f"{name}_component", prior, infer={_IS_WRITTEN: True})
    chosen = _inflated(mixture, index) if zeros else _chosen(mixture, jnp.asarray(index))
    while not isinstance(distribution, _MIXTURES):
        if isinstance(distribution, MaskedDistribution):
            chosen = chosen.mask(distribution._mask)
        distribution = distribution.base_dist
    return chosen


def _inflated(mixture: Any, index: Any) -> Any:
    """The counts, or nothing but zeros: a Poisson distribution of rate 0 is all at zero."""
    base, is_zero = mixture.base_dist, index == 1
    counts: Any = _bare(base)
    if isinstance(counts, Poisson):
        return Poisson(jnp.where(is_zero, 0.0, counts.rate))
    if isinstance(counts, BinomialProbs):
        probs: Any = counts.probs
        return BinomialProbs(jnp.where(is_zero, 0.0, probs), counts.total_count)
    return Chosen((base, _Zero()), index)


def _chosen(mixture: Any, index: Int[Array, "..."]) -> Any:
    if isinstance(mixture, MixtureSameFamily):
        components = promote_batch_shape(mixture.component_distribution)
        return _at(components, mixture.batch_shape, index)
    promoted = [promote_batch_shape(each) for each in mixture.component_distributions]
    leaves, trees = zip(*(jax.tree.flatten(each) for each in promoted), strict=True)
    shapes = {tuple(jnp.shape(leaf) for leaf in each) for each in leaves}
    if (
        len(set(trees)) == 1
        and len({type(each) for each in promoted}) == 1
        and len(shapes) == 1
        and not mixture.batch_shape
    ):
        stacked = jax.tree.unflatten(
            trees[0], [jnp.stack(jnp.broadcast_arrays(*each)) for each in zip(*leaves, strict=True)]
        )
        return _at(stacked, (), index)
    return Chosen(tuple(mixture.component_distributions), index, mixture.support)


def _at(components: Any, rows: tuple[int, ...], index: Int[Array, "..."]) -> Any:
    """The component with this index of a distribution with batch shape ``[*rows, K, ...]``."""
    if isinstance(components, Independent):
        base = _at(components.base_dist, rows, index)
        return base.to_event(components.reinterpreted_batch_ndims)
    batch = tuple(components.batch_shape)
    places = tuple(
        jnp.arange(size).reshape(-1, *(1,) * after) for size, after in zip(rows, range(len(rows))[::-1], strict=True)
    )

    def at(leaf: Any) -> Array:
        rest = jnp.shape(leaf)[len(batch) :]
        return jnp.broadcast_to(leaf, (*batch, *rest))[(*places, index)]

    chosen = jax.tree.map(at, components)
    _reshape(chosen, jnp.broadcast_shapes(index.shape, rows), len(rows) + 1)
    return chosen


def _reshape(distribution: Any, shape: tuple[int, ...], replaced: int) -> None:
    """Put the batch shape in the place of the first dimensions, and so for the distributions that it is made of."""
    distribution._batch_shape = (*shape, *distribution.batch_shape[replaced:])
    for part in vars(distribution).values():
        if isinstance(part, Distribution):
            _reshape(part, shape, replaced)


class Chosen(Distribution):
    """That of several distributions with this index, zero outside its support."""

    pytree_data_fields = ("components", "index", "_support")

    def __init__(self, components: tuple[Any, ...], index: Any, support: Any = None) -> None:
        self.components, self.index = components, index
        self._support = components[0].support if support is None else support
        batch: Any = jnp.broadcast_shapes(jnp.shape(index), *(each.batch_shape for each in components))
        super().__init__(batch, components[0].event_shape, validate_args=False)

    @constraints.dependent_property
    def support(self) -> Any:
        return self._support

    def log_prob(self, value: Any) -> Float[Array, "..."]:
        each = [log_prob_within(component, value) for component in self.components]
        return jnp.select([self.index == number for number in range(len(each))], jnp.broadcast_arrays(*each))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        keys = jax.random.split(key, len(self.components))
        shape = (*sample_shape, *self.batch_shape)
        draws = [
            component.expand(self.batch_shape).sample(each, sample_shape)
            for component, each in zip(self.components, keys, strict=True)
        ]
        index = jnp.broadcast_to(self.index, shape).reshape(*shape, *(1,) * self.event_dim)
        return jnp.select([index == number for number in range(len(draws))], draws)


class _Zero(Distribution):
    """All at zero, among the whole numbers from 0."""

    support: Any = constraints.nonnegative_integer  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]

    def __init__(self) -> None:
        super().__init__((), (), validate_args=False)

    def log_prob(self, value: Any) -> Float[Array, "..."]:
        return jnp.where(value == 0, 0.0, -jnp.inf)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        del key
        return jnp.zeros(sample_shape, int)
