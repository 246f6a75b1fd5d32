"""What the engine asks of an exponential-family view, and nothing about any particular distribution.

A view describes the density of one NumPyro distribution as

    log p(x | arguments) = <T(x), eta(arguments)> - A(arguments) + h(x)      (nats)

so that the table of log joints is one matrix product, and the statistics of the E-step another.
Source: Wainwright & Jordan (2008), Graphical Models, Exponential Families, and Variational Inference, eq. 3.5.
"""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped
from numpyro.distributions import Distribution

Arguments = dict[str, Array]


class Location(NamedTuple):
    """What is known of an uncertain location: ``mean`` [..., *event] and ``covariance`` [..., *event, *event]."""

    mean: Float[Array, "..."]
    covariance: Float[Array, "..."]


def as_floating(x: Shaped[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """``x`` in its own floating dtype, or in JAX's default one where it holds integers or booleans."""
    x = jnp.asarray(x)  # without a word about NumPy's float64 where x64 is off
    return jnp.asarray(x, jnp.result_type(x, float))


def with_logarithm(positive: Shaped[ArrayLike, "*batch"]) -> Float[Array, "*batch 2"]:
    """A positive argument and its logarithm."""
    value = as_floating(positive)
    return jnp.stack([value, jnp.log(value)], axis=-1)


def draw_gamma(concentration: Float[np.ndarray, "*batch"], random: np.random.Generator) -> Float[np.ndarray, "*batch"]:
    """Draws of rate one, none of them the zero to which those of a small concentration are rounded."""
    return np.maximum(random.standard_gamma(concentration), np.finfo(float).tiny)


class Density(abc.ABC):
    """A frozen, hashable description of one distribution class and of how its arguments were given.

    Every method works on arrays with arbitrary leading batch dimensions ``...`` that broadcast against each other,
    and touches only trailing dimensions: the event of the distribution, the ``S`` sufficient statistics, or the
    trailing dimensions of an argument.

    No method knows of an origin. Second moments of rows far away from zero lose all their digits, so whoever calls a
    location family subtracts a point near the rows from the rows and from ``loc`` first (``centred_events`` in
    ``form/centring.py``).
    """

    #: The NumPyro classes that this view describes.
    distributions: ClassVar[tuple[type[Distribution], ...]]

    #: Whether this is a location family, whose statistics are moments: its density is a function of x - ``loc`` alone,
    #: so that the same point may be subtracted from both. Other families have no origin to choose.
    is_location: ClassVar[bool] = False

    #: The argument that is the location of a location family.
    location_argument: ClassVar[str] = "loc"

    #: Whether T(x) holds x and the products of two of its D entries alone: ``canonical`` then has a matrix for eta, and
    #: ``packed`` the T of sums of x and x x'.
    is_quadratic: ClassVar[bool] = False

    #: Arguments that ``argument_statistics`` does not cover, beside the location of a location family.
    certain: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, distribution: Distribution) -> "Density | None":
        """The view of this distribution (an instance of one of ``distributions``), or None if it has none.

        A view without fields is the same for all of them.
        """
        del distribution
        return cls()

    @property
    @abc.abstractmethod
    def argument_names(self) -> tuple[str, ...]:
        """The arguments that the density depends on, in the order in which a maximisation updates them."""

    @property
    def argument_constraints(self) -> Mapping[str, Any]:
        """Where each argument may lie."""
        return {key: value for cls in self.distributions for key, value in cls.arg_constraints.items()}

    def around(self, arguments: Arguments, origin: Float[Array, "..."]) -> Arguments:
        """The arguments of the density of x - origin, of a location family."""
        return {**arguments, "loc": arguments["loc"] - origin} if "loc" in arguments else arguments

    def location_around(self, location: Location, origin: Float[Array, "..."]) -> Location:
        """What is known of the location of x - origin."""
        return location._replace(mean=location.mean - origin)

    def argument_event_ndims(self, name: str) -> int:
        """How many trailing dimensions of the argument belong to one event: 2 for a covariance matrix, 0 for a scalar.

        Zero, unless a family says otherwise.
        """
        del name
        return 0

    @abc.abstractmethod
    def statistics(self, x: Shaped[Array, "..."]) -> Float[Array, "... S"]:
        """T(x), in the dtype of ``x`` (JAX's default one where x holds integers)."""

    @abc.abstractmethod
    def natural(self, arguments: Arguments) -> Float[Array, "... S"]:
        """eta.

        An entry is minus infinity where the density of a row with this statistic above zero is zero: it means
        nothing for rows whose statistic is zero (0 log 0 = 0), which whoever forms the inner product sees to.
        """

    @abc.abstractmethod
    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """A, nats."""

    def natural_and_log_normaliser(self, arguments: Arguments) -> tuple[Float[Array, "... S"], Float[Array, "..."]]:
        """eta, and A in nats: ``natural`` and ``log_normaliser``, which may have a factor of a matrix in common."""
        return self.natural(arguments), self.log_normaliser(arguments)

    @abc.abstractmethod
    def log_base_measure(self, x: Shaped[Array, "..."]) -> Float[Array, "..."]:
        """h(x), nats; independent of the arguments."""

    def argument_statistics(self, arguments: Arguments) -> Float[Array, "... A"] | None:
        """Functions of the arguments other than a location, in which eta and A are linear.

        Where they are, on the other side, linear in the sufficient statistics of a prior, the prior is conjugate.
        None, unless a family says otherwise.
        """
        del arguments
        return None

    def expected(
        self, statistics: Float[Array, "... A"], location: Location | None, arguments: Arguments
    ) -> tuple[Float[Array, "... S"], Float[Array, "..."]]:
        """E[eta] and E[A] (nats) under uncertain arguments.

        ``statistics`` are the expected ``argument_statistics``, independent of the ``location`` of a location family
        (None for the others); of ``arguments`` only those count that neither covers. With certain arguments these
        are ``natural`` and ``log_normaliser``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no conjugate priors")

    def spread(self, covariance: Float[Array, "..."]) -> Float[Array, "... S"]:
        """E[T(x)] - T(E[x]) of a location family, for an x of this covariance."""
        raise NotImplementedError(f"{type(self).__name__} is no location family")

    def canonical(
        self, natural: Float[Array, "*batch S"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D D"]]:
        """b and Lambda, where <T(x), eta> = b' x - x' Lambda x / 2."""
        raise NotImplementedError(f"{type(self).__name__} is no location family of vectors")

    def packed(self, first: Float[Array, "*batch D"], second: Float[Array, "*batch D D"]) -> Float[Array, "*batch S"]:
        """T, which is linear in x and in x x', of a sum (or an average) of each."""
        raise NotImplementedError(f"{type(self).__name__} has statistics other than x and its products")

    def independent(self, mean: Float[Array, "*batch D"], variance: Float[Array, "... D"]) -> Float[Array, "*batch S"]:
        """eta of a vector of independent entries with these moments."""
        raise NotImplementedError(f"{type(self).__name__} is no location family of vectors")

    def precision(self, statistics: Float[Array, "... A"]) -> Float[Array, "..."]:
        """The precision ``[..., *event, *event]`` of a location family in its ``argument_statistics``.

        The last of these is its log determinant.
        """
        raise NotImplementedError(f"{type(self).__name__} is no location family")


class ExponentialFamily(Density):
    """A density whose maximum-likelihood arguments follow from average statistics."""

    @abc.abstractmethod
    def moment(self, name: str, mean_statistics: Float[Array, "... S"], arguments: Arguments) -> Float[Array, "..."]:
        """The average from which maximum likelihood reads the argument.

        Shape: the batch dimensions of ``mean_statistics``, then the event dimensions of the argument.

        ``mean_statistics`` is the average of T(x) over the rows of a component. ``arguments`` holds the
        current value of every argument, those earlier in ``argument_names`` already updated. Averaging this quantity
        over components that share the argument, weighted by their rows, and then applying ``from_moment``, gives the
        maximum of the shared likelihood, unless the components differ in something that ``moment`` or ``from_moment``
        says it needs. An argument of one event is free, shared or fixed as a whole here. Whether a maximum survives
        other constraints is not for the view to say: prove it where it is used.
        """

    @abc.abstractmethod
    def from_moment(self, name: str, moment: Float[Array, "..."], arguments: Arguments) -> Float[Array, "..."]:
        """The argument whose (possibly pooled) moment this is."""

    def moment_from(
        self, name: str, moment: Float[Array, "*shape"], origin: Float[Array, "..."]
    ) -> Float[Array, "*shape"]:
        """The moment of x, from that of x - origin, of a location family."""
        return moment + origin if name == "loc" else moment

    def centre(self, mean_statistics: Float[Array, "*batch S"]) -> Float[Array, "..."]:
        """E[x] of a location family."""
        return self.moment("loc", mean_statistics, {})

    def degenerate(self, mean_statistics: Float[Array, "*batch S"], arguments: Arguments) -> Bool[Array, "*batch"]:
        """Whether the density with these arguments has collapsed to rounding.

        True where a spread has fallen to the rounding error of the second moments it was computed from. It says
        nothing about a spread that is not estimated. Never, unless a family says otherwise.
        """
        del arguments
        return jnp.zeros(mean_statistics.shape[:-1], bool)

    def degenerate_completed(
        self, mean_statistics: Float[Array, "*batch S"], arguments: Arguments
    ) -> Bool[Array, "*batch"]:
        """Whether it has where events of which entries are missing were completed: as ``degenerate``,
        unless a family says otherwise.
        """
        return self.degenerate(mean_statistics, arguments)

    def absorbing(
        self, mean_statistics: Float[Array, "*batch S"], overall: Float[Array, "... S"]
    ) -> Bool[Array, "*batch"]:
        """Whether maximum likelihood from these averages rules out what other rows show.

        ``overall`` are the averages over all rows. A probability of zero is absorbing: rows that show what it rules out
        never belong to that component, so that no later M-step makes it positive. Never, unless a family says
        otherwise.
        """
        del overall
        return jnp.zeros(mean_statistics.shape[:-1], bool)


class Prior(Density):
    """A density that is a conjugate prior: the q of its site is of the same family, given by the same arguments.

    Its statistics are chosen so that h = 0. Source: Wainwright & Jordan (2008), section 3.2: the gradient of the log
    normaliser is the mean of the statistics, and the negative entropy its convex conjugate.
    """

    @abc.abstractmethod
    def read(self, distribution: Any) -> Arguments:
        """The arguments of a base distribution of one of the classes in ``distributions``."""

    @abc.abstractmethod
    def expected_statistics(self, arguments: Arguments) -> Float[Array, "... S"]:
        """E[T], the gradient of A in the natural parameters."""

    @abc.abstractmethod
    def from_natural(self, natural: Float[Array, "... S"]) -> Arguments:
        """The arguments with these natural parameters."""

    @abc.abstractmethod
    def point(self, arguments: Arguments) -> Float[Array, "..."]:
        """The value that stands for the distribution: its mean; of a variance, the inverse of the mean precision."""

    @abc.abstractmethod
    def mode(self, arguments: Arguments) -> Float[Array, "..."]:
        """The value of the highest density."""

    def has_mode(self, arguments: Arguments) -> Bool[Array, "..."]:
        """Whether the density is bounded, as a prior and with any observations."""
        return self.proper(arguments)

    @abc.abstractmethod
    def proper(self, arguments: Arguments) -> Bool[Array, "..."]:
        """Whether the density with these arguments can be normalised."""

    #: What ``proper`` asks for, in words.
    requirement: ClassVar[str]

    @abc.abstractmethod
    def distribution(self, arguments: Arguments) -> Distribution:
        """NumPyro's distribution with these arguments."""

    @abc.abstractmethod
    def draw(self, arguments: Mapping[str, np.ndarray], random: np.random.Generator) -> Float[np.ndarray, "..."]:
        """One draw of every event, without the seconds that a sampler takes to compile."""

    def student(self, arguments: Arguments) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """A normal whose precision has this distribution is a Student t: its degrees of freedom, and what the inverse
        of the expected precision is to be multiplied by to be its scale matrix.
        """
        raise NotImplementedError(f"{type(self).__name__} is no distribution of precisions")

    def entropy(self, arguments: Arguments, statistics: Float[Array, "... S"]) -> Float[Array, "..."]:
        """H = A - <eta, E[T]>, nats, with the ``expected_statistics``."""
        return self.log_normaliser(arguments) - (self.natural(arguments) * statistics).sum(-1)

    def log_base_measure(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Zero."""
        return jnp.zeros(x.shape[: x.ndim - self.event_ndim], x.dtype)

    #: Dimensions of one event.
    event_ndim: ClassVar[int] = 0
