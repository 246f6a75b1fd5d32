"""Variational families of a latent site, as projections of a row of log joints onto the q's allowed.

A family for assignments takes the table L = log p(x_n, t_n = k | theta), ``[n, K]``, and returns q. Everything else
asks q what it needs: its statistics, an expectation, its entropy. Nothing else in the package knows which family it
was, so the bound E_q[L] + H(q) is the same lines for all.
"""

import abc
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer, PRNGKeyArray

from probem.errors import InputError
from probem.families.parameters import ParameterFamily
from probem.families.posteriors import Assigned, Dense, Point, Sparse, lowest_argmax, softmax


class HalfStep(NamedTuple):
    """The E half-step that some rows take part in: its ``number``, 0 for the first, the ``seed`` of the fit, and the
    ``place`` of these rows among all.
    """

    number: Integer[Array, ""]
    seed: Integer[Array, ""]
    place: Integer[Array, ""]

    @property
    def key(self) -> PRNGKeyArray:
        """A random key that no other rows of the fit get, nor these in another E half-step."""
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), self.number), self.place)


class AssignmentFamily(abc.ABC):
    """A set of q's for an assignment site, immutable and hashable; a subclass says how a posterior is projected onto
    it.

    A family whose projection is a ``Point`` has no entropy, and its rows stop moving exactly. What a family of your own
    says of itself is held against its projection of some tables before anything is fitted.
    """

    @abc.abstractmethod
    def project(self, table: Float[Array, "n K"]) -> Assigned:
        """argmax over the family of E_q[L] + entropy_weight * H(q), for every row of a table.

        Parameters
        ----------
        table : ``[n, K]``, L_nk = log p(x_n, t_n = k | theta) up to a constant of each row, nats

        Returns
        -------
        Assigned : q, a ``Dense``, ``Sparse`` or ``Point``
        """

    def begin(self, num_rows: int, num_values: int) -> Any:
        """What rows keep from one E half-step to the next, before the first: a pytree of ``[n, ...]``, or None.

        Parameters
        ----------
        num_rows : n
        num_values : K
        """
        del num_rows, num_values

    def assign(self, table: Float[Array, "n K"], memory: Any, half_step: HalfStep) -> tuple[Assigned, Any]:
        """q of some rows in an E half-step, and what these rows keep for the next: the projection, and nothing new.

        A family that draws q (``is_stochastic``), that mixes it with the q before, or that anneals (``is_final``) says
        so here; answers about rows of a fit that has ended take the projection. Rows whose assignment is known get
        their label, whatever is returned.

        Parameters
        ----------
        table : ``[n, K]``, log p(x_n, t_n = k | theta) up to a constant of each row, nats
        memory : what they kept of the E half-step before, or of ``begin``
        half_step : its number, and a key for these rows
        """
        del half_step
        return self.project(table), memory

    def mode(self, table: Float[Array, "n K"]) -> Int[Array, " n"]:
        """The most probable value under q, ``[n]``: that of the joint for every family, ties to the lowest index."""
        return lowest_argmax(table)

    @property
    def entropy_weight(self) -> float | Float[Array, ""]:
        """The weight of H(q) in what the projection maximises."""
        return 1.0

    @property
    def is_exact(self) -> bool:
        """Whether the projection is the posterior itself, so that the gap after an E-step is zero; so is q of every E
        half-step, once a schedule has ended (``is_final``).
        """
        return False

    @property
    def is_stochastic(self) -> bool:
        """Whether ``assign`` draws at random: a fall of F is no fault then, and neither a small rise nor that no row
        moves proves anything. By default a fit ends by ``probem.stopping.Averages``, and its answer is an average; with
        a number for the tolerance it goes on for ``max_steps``. Where ``assign`` returns q of the kind that ``project``
        does, the last E half-step is the projection, and F that is reported has no chance in it.
        """
        return False

    def is_final(self, number: Int[Array, ""]) -> Bool[Array, ""] | bool:
        """Whether the E half-step of this number, and all that follow, are made alike: no fit converges before, and F
        may fall. A schedule says when it has ended.
        """
        del number
        return True

    @property
    def fills_empty(self) -> bool:
        """Whether a component that no row belongs to is given the worst-fitted row in the M half-step."""
        return False


@dataclasses.dataclass(frozen=True)
class Categorical(AssignmentFamily):
    """Every q on K values: the projection is the posterior, softmax(L), and the algorithm is EM.

    Source: Neal & Hinton (1998), A view of the EM algorithm, theorem 1.
    """

    def project(self, table: Float[Array, "n K"]) -> Dense:
        return softmax(table)

    @property
    def is_exact(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True, repr=False)
class Delta(AssignmentFamily, ParameterFamily):
    """A point mass.

    On an assignment: the mode of the posterior, ties to the lowest index (hard, or classification, EM). Among point
    masses it is the closest to the posterior, since KL(delta_c || p) = -log p_c. On a global sample site: the mode of
    the posterior density in constrained space (MAP). Source: Celeux & Govaert (1992), A classification EM algorithm for
    clustering and two stochastic versions.

    Parameters
    ----------
    fill_empty : False leaves a component that no row belongs to at its parameters; True gives it the row with the
        lowest log joint of all in the M half-step, as scikit-learn's ``KMeans`` does (the next lowest for a second
        component)
    """

    fill_empty: bool = False

    def __repr__(self) -> str:
        return "Delta(fill_empty=True)" if self.fill_empty else "Delta()"

    def project(self, table: Float[Array, "n K"]) -> Point:
        return Point(lowest_argmax(table), jnp.zeros(table.shape[1], table.dtype))

    @property
    def fills_empty(self) -> bool:
        return self.fill_empty

    @property
    def needs_conjugate_prior(self) -> bool:
        return False

    @property
    def in_words(self) -> str:
        return f"{self!r} (MAP)"


@dataclasses.dataclass(frozen=True)
class Tempered(AssignmentFamily):
    """q proportional to p(x, t)^beta, the maximum of E_q[L] + H(q) / beta.

    beta = 1 is EM; beta to infinity is hard EM; beta < 1 flattens. The bound F itself need not rise: the objective
    with the entropy weighted by 1 / beta does. Source: Ueda & Nakano (1998), Deterministic annealing EM, eq. 10.

    Parameters
    ----------
    beta : a positive, finite number

    Raises
    ------
    InputError
        For any other ``beta``.
    """

    beta: int | float

    def __post_init__(self) -> None:
        if not (isinstance(self.beta, int | float) and 0 < self.beta < float("inf")):
            raise InputError(
                f"Tempered(beta={self.beta!r})", "a positive, finite beta", "use Delta() for the limit of infinite beta"
            )

    def project(self, table: Float[Array, "n K"]) -> Dense:
        return softmax(self.beta * table)

    @property
    def entropy_weight(self) -> float | Float[Array, ""]:
        return 1.0 / self.beta

    @property
    def is_exact(self) -> bool:
        return bool(self.beta == 1)


@dataclasses.dataclass(frozen=True)
class TopC(AssignmentFamily):
    """The posterior truncated to its C largest values and normalised again: C = 1 is hard EM, C = K is EM.

    Source: Lücke & Forster (2019), k-means as a variational EM approximation of Gaussian mixture models, eq. 10.

    Parameters
    ----------
    num_kept : C, a whole number from 1 to K

    Raises
    ------
    InputError
        For any other ``num_kept``; above K, once it is used in a fit.
    """

    num_kept: int

    def __post_init__(self) -> None:
        if not (isinstance(self.num_kept, int) and self.num_kept >= 1):
            raise InputError(f"TopC({self.num_kept!r})", "a whole number of at least 1", "use TopC(1) or Delta()")

    def project(self, table: Float[Array, "n K"]) -> Sparse:
        values, index = jax.lax.top_k(table, min(self.num_kept, table.shape[1]))
        kept = softmax(values)
        return Sparse(index, kept.q, kept.log_q, jnp.zeros(table.shape[1], table.dtype))


@functools.lru_cache(maxsize=256)
def projects_to_points(family: AssignmentFamily, num_values: int) -> bool:
    """Whether the q's of a family are point masses: what an E half-step returns says so, and nothing else."""
    return issubclass(assigned_type(family, num_values), Point)


def assigned_type(family: AssignmentFamily, num_values: int) -> type[Assigned]:
    """The type of q in an E half-step: ``Dense``, ``Sparse`` or ``Point``."""

    def assign(table: Float[Array, "n K"]) -> Assigned:
        zero = jnp.zeros((), jnp.uint32)
        return family.assign(table, family.begin(2, num_values), HalfStep(zero, zero, zero))[0]

    return type(jax.eval_shape(assign, jax.ShapeDtypeStruct((2, num_values), jnp.result_type(float))))
