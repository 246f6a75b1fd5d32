"""What the engine asks of an exponential-family view, and nothing about any particular distribution.

A view describes the density of one NumPyro distribution as

    log p(x | arguments) = <T(x), eta(arguments)> - A(arguments) + h(x)      (nats)

so that the table of log joints is one matrix product, and the statistics of the E-step another.
Source: Wainwright & Jordan (2008), Graphical Models, Exponential Families, and Variational Inference, eq. 3.5.
"""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

Arguments = dict[str, jax.Array]


def as_floating(x: jax.typing.ArrayLike) -> jax.Array:
    """``x`` in its own floating dtype, or in JAX's default one where it holds integers or booleans."""
    return jnp.asarray(x, jnp.result_type(x, float))


class ExponentialFamily(abc.ABC):
    """A frozen, hashable description of one distribution class and of how its arguments were given.

    Every method works on arrays with arbitrary leading batch dimensions ``...`` that broadcast against each other,
    and touches only trailing dimensions: the event of the distribution, the ``S`` sufficient statistics, or the
    trailing dimensions of an argument.

    ``shift`` is the point around which a location family forms its moments (the mean of the data): second moments
    around a far-away origin lose all their digits. It has the shape of one event, and families without a location
    ignore it.
    """

    #: The NumPyro classes that this view describes.
    distributions: ClassVar[tuple[type[Distribution], ...]]

    #: Whether ``shift`` matters; False for families whose statistics have no origin to choose.
    is_location: ClassVar[bool] = False

    @classmethod
    def of(cls, distribution: Distribution) -> "ExponentialFamily | None":
        """The view of this distribution (an instance of one of ``distributions``), or None if it has none.

        A view without fields is the same for all of them.
        """
        del distribution
        return cls()

    @property
    @abc.abstractmethod
    def argument_names(self) -> tuple[str, ...]:
        """The arguments that the density depends on, in the order in which a maximisation updates them."""

    def argument_event_ndims(self, name: str) -> int:
        """How many trailing dimensions of the argument belong to one event: 2 for a covariance matrix, 0 for a scalar.

        Zero, unless a family says otherwise.
        """
        del name
        return 0

    @abc.abstractmethod
    def statistics(self, x: jax.Array, shift: jax.Array) -> jax.Array:
        """T(x - shift), shape ``[..., S]``, in the dtype of ``x`` (JAX's default one where x holds integers)."""

    @abc.abstractmethod
    def natural(self, arguments: Arguments, shift: jax.Array) -> jax.Array:
        """eta, shape ``[..., S]``, in the coordinates moved by ``shift``.

        An entry is minus infinity where the density of a row with this statistic above zero is zero: it means
        nothing for rows whose statistic is zero (0 log 0 = 0), which whoever forms the inner product sees to.
        """

    @abc.abstractmethod
    def log_normaliser(self, arguments: Arguments, shift: jax.Array) -> jax.Array:
        """A, shape ``[...]``, nats."""

    @abc.abstractmethod
    def log_base_measure(self, x: jax.Array) -> jax.Array:
        """h(x), shape ``[...]``, nats; independent of the arguments."""

    @abc.abstractmethod
    def moment(self, name: str, mean_statistics: jax.Array, arguments: Arguments, shift: jax.Array) -> jax.Array:
        """The average from which maximum likelihood reads the argument.

        Shape: the batch dimensions of ``mean_statistics``, then the event dimensions of the argument.

        ``mean_statistics`` ``[..., S]`` is the average of T(x - shift) over the rows of a component. ``arguments``
        holds the current value of every argument, those earlier in ``argument_names`` already updated. Averaging
        this quantity over components that share the argument, weighted by their rows, and then applying
        ``from_moment``, gives the maximum of the shared likelihood, unless the components differ in something that
        ``moment`` or ``from_moment`` says it needs. An argument of one event is free, shared or fixed as a whole here.
        Whether a maximum survives other constraints is not for the view to say: prove it where it is used.
        """

    @abc.abstractmethod
    def from_moment(self, name: str, moment: jax.Array, arguments: Arguments) -> jax.Array:
        """The argument whose (possibly pooled) moment this is."""

    def degenerate(self, mean_statistics: jax.Array, arguments: Arguments, shift: jax.Array) -> jax.Array:
        """Whether the density with these arguments has collapsed to rounding, shape ``[...]``, bool.

        True where a spread has fallen to the rounding error of the second moments it was computed from. It says
        nothing about a spread that is not estimated. Never, unless a family says otherwise.
        """
        del arguments, shift
        return jnp.zeros(mean_statistics.shape[:-1], bool)
