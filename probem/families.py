"""Variational families of a latent site, as projections of a row of log joints onto the q's allowed.

A family for assignments takes the table L = log p(x_n, t_n = k | theta), ``[n, K]``, and returns q. Everything else
asks q what it needs: its statistics, an expectation, its entropy. Nothing else in the package knows which family it
was, so the bound E_q[L] + H(q) is the same lines for all.
"""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import entr

from .compiled import concrete
from .errors import InputError, nearest

if TYPE_CHECKING:
    from .data import Block
    from .program import Program


@runtime_checkable
class Assigned(Protocol):
    """q(t_n) for n rows; every reduction is row by row, in nats."""

    def statistics(self, features: Array, rows: "Block") -> tuple[Array, Array]:
        """Weighted counts ``[K]`` = sum_n w_n q_nk and sums ``[K, S]`` = sum_n w_n q_nk features_n."""
        ...

    def expectation(self, table: Array) -> Array:
        """E_q of a table ``[n, K]``, shape ``[n]``; 0 * -inf counts as 0."""
        ...

    def entropy(self) -> Array:
        """H(q), shape ``[n]``; zero for a point mass."""
        ...

    def dense(self) -> Array:
        """The probabilities, ``[n, K]``."""
        ...


class Dense(NamedTuple):
    """Any q: its probabilities and their logarithms, ``[n, K]``."""

    q: Array
    log_q: Array

    def statistics(self, features: Array, rows: "Block") -> tuple[Array, Array]:
        weighted = self.q * rows.weights.astype(self.q.dtype)[:, None]
        return weighted.sum(0), weighted.T @ features

    def expectation(self, table: Array) -> Array:
        return jnp.where(self.q == 0, 0.0, self.q * table).sum(1)

    def entropy(self) -> Array:
        return -jnp.where(self.q == 0, 0.0, self.q * self.log_q).sum(1)

    def dense(self) -> Array:
        return self.q


class Sparse(NamedTuple):
    """A q that is zero outside ``index`` [n, C]: probabilities and logarithms ``[n, C]``."""

    index: Array
    q: Array
    log_q: Array
    zeros: Array

    def statistics(self, features: Array, rows: "Block") -> tuple[Array, Array]:
        weighted = self.q * rows.weights.astype(self.q.dtype)[:, None]
        counts = self.zeros.at[self.index].add(weighted)
        sums = jnp.zeros((self.zeros.shape[0], features.shape[1]), features.dtype)
        return counts, sums.at[self.index].add(weighted[:, :, None] * features[:, None, :])

    def expectation(self, table: Array) -> Array:
        return jnp.where(self.q == 0, 0.0, self.q * jnp.take_along_axis(table, self.index, 1)).sum(1)

    def entropy(self) -> Array:
        return -jnp.where(self.q == 0, 0.0, self.q * self.log_q).sum(1)

    def dense(self) -> Array:
        rows = jnp.arange(self.index.shape[0])[:, None]
        return jnp.zeros((self.index.shape[0], self.zeros.shape[0]), self.q.dtype).at[rows, self.index].add(self.q)


class Point(NamedTuple):
    """A point mass on ``index`` [n]; ``zeros`` [K] carries the number of components."""

    index: Array
    zeros: Array

    def statistics(self, features: Array, rows: "Block") -> tuple[Array, Array]:
        # A scatter is twice as fast as the product with a one-hot matrix; padding points past the end and is dropped.
        index = jnp.where(rows.real, self.index, self.zeros.shape[0])
        sums = jnp.zeros((self.zeros.shape[0], features.shape[1]), features.dtype)
        if rows.row_weights is None:
            counts = jnp.zeros(self.zeros.shape, jnp.int32).at[index].add(1, mode="drop").astype(self.zeros.dtype)
            return counts, sums.at[index].add(features, mode="drop")
        weighted = rows.row_weights[:, None] * features
        return self.zeros.at[index].add(rows.row_weights, mode="drop"), sums.at[index].add(weighted, mode="drop")

    def expectation(self, table: Array) -> Array:
        return jnp.take_along_axis(table, self.index[:, None], 1)[:, 0]

    def entropy(self) -> Array:
        return jnp.zeros(self.index.shape, self.zeros.dtype)

    def dense(self) -> Array:
        return jax.nn.one_hot(self.index, self.zeros.shape[0], dtype=self.zeros.dtype)


class AssignmentFamily(abc.ABC):
    """A set of q's for an assignment site, immutable and hashable. ``entropy_weight`` is the weight of H(q) in what the
    projection maximises.

    A family whose projection is a ``Point`` has no entropy, and its rows stop moving exactly. What a family of a user's
    own says of itself is held against its projection of some tables before anything is fitted.
    """

    @abc.abstractmethod
    def project(self, table: Array) -> Assigned:
        """argmax over the family of E_q[L] + entropy_weight * H(q), for every row of the table ``[n, K]``."""

    def mode(self, table: Array) -> Array:
        """The most probable value under q, ``[n]``: that of the joint for every family, ties to the lowest index."""
        return lowest_argmax(table)

    @property
    def entropy_weight(self) -> float:
        """The weight of H(q) in what the projection maximises."""
        return 1.0

    @property
    def is_exact(self) -> bool:
        """Whether the projection is the posterior itself, so that the gap after an E-step is zero."""
        return False

    @property
    def fills_empty(self) -> bool:
        """Whether a component that no row belongs to is given the worst-fitted row in the M half-step."""
        return False


@dataclasses.dataclass(frozen=True)
class Categorical(AssignmentFamily):
    """Every q on K values: the projection is the posterior, softmax(L), and the algorithm is EM.

    Source: Neal & Hinton (1998), A view of the EM algorithm, theorem 1.
    """

    def project(self, table: Array) -> Dense:
        return _softmax(table)

    @property
    def is_exact(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True, repr=False)
class Delta(AssignmentFamily):
    """A point mass.

    On an assignment: the mode of the posterior, ties to the lowest index (hard, or classification, EM; Celeux & Govaert
    1992). Among point masses it is the closest to the posterior, since KL(delta_c || p) = -log p_c. On a global sample
    site: the mode of the posterior density in constrained space (MAP).

    ``fill_empty``: a component that no row belongs to keeps its parameters, or, if True, is given the row with the
    lowest log joint of all in the M half-step, as scikit-learn's ``KMeans`` does (the next lowest for a second one).
    """

    fill_empty: bool = False

    def __repr__(self) -> str:
        return "Delta(fill_empty=True)" if self.fill_empty else "Delta()"

    def project(self, table: Array) -> Point:
        return Point(lowest_argmax(table), jnp.zeros(table.shape[1], table.dtype))

    @property
    def fills_empty(self) -> bool:
        return self.fill_empty


@dataclasses.dataclass(frozen=True)
class Tempered(AssignmentFamily):
    """q proportional to p(x, t)^beta, the maximum of E_q[L] + H(q) / beta.

    beta = 1 is EM; beta to infinity is hard EM; beta < 1 flattens. The bound F itself need not rise: the objective
    with the entropy weighted by 1 / beta does. Source: Ueda & Nakano (1998), Deterministic annealing EM, eq. 10.
    """

    beta: int | float

    def __post_init__(self) -> None:
        if not (isinstance(self.beta, int | float) and 0 < self.beta < float("inf")):
            raise InputError(
                f"Tempered(beta={self.beta!r})", "a positive, finite beta", "use Delta() for the limit of infinite beta"
            )

    def project(self, table: Array) -> Dense:
        return _softmax(self.beta * table)

    @property
    def entropy_weight(self) -> float:
        return 1.0 / self.beta

    @property
    def is_exact(self) -> bool:
        return self.beta == 1


@dataclasses.dataclass(frozen=True)
class TopC(AssignmentFamily):
    """The posterior truncated to its C largest values and normalised again: C = 1 is hard EM, C = K is EM.

    Source: Lücke & Forster (2019), k-means as a variational EM approximation of Gaussian mixture models, eq. 10.
    """

    num_kept: int

    def __post_init__(self) -> None:
        if not (isinstance(self.num_kept, int) and self.num_kept >= 1):
            raise InputError(f"TopC({self.num_kept!r})", "a whole number of at least 1", "use TopC(1) or Delta()")

    def project(self, table: Array) -> Sparse:
        values, index = jax.lax.top_k(table, min(self.num_kept, table.shape[1]))
        kept = _softmax(values)
        return Sparse(index, kept.q, kept.log_q, jnp.zeros(table.shape[1], table.dtype))


@functools.lru_cache(maxsize=256)
def projects_to_points(family: AssignmentFamily, num_values: int) -> bool:
    """Whether the q's of a family are point masses: what its projection returns says so, and nothing else."""
    shape = jax.ShapeDtypeStruct((2, num_values), jnp.result_type(float))
    return isinstance(jax.eval_shape(family.project, shape), Point)


def _softmax(table: Array) -> Dense:
    # The maximum is taken out first. A row of -inf alone gets the uniform q, whose expectation of it is -inf and
    # shows up in the bound. To clip every entry costs nothing, to test every row a third of the pass.
    table = jnp.clip(table, jnp.finfo(table.dtype).min, jnp.finfo(table.dtype).max)
    centred = table - table.max(1, keepdims=True)
    exponential = jnp.exp(centred)
    total = exponential.sum(1, keepdims=True)
    # One division and one logarithm a row, not one for each entry.
    return Dense(exponential * (1.0 / total), centred - jnp.log(total))


def lowest_argmax(table: Array) -> Array:
    """argmax along the last axis of ``[n, K]``, ties to the lowest index, int32.

    One reduction over (value, index): what is built from max and comparison, XLA repeats in everything that uses the
    result.
    """

    def better(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        take = (second[0] > first[0]) | ((second[0] == first[0]) & (second[1] < first[1]))
        return jnp.where(take, second[0], first[0]), jnp.where(take, second[1], first[1])

    index = jax.lax.broadcasted_iota(jnp.int32, table.shape, 1)
    nothing = (jnp.asarray(-jnp.inf, table.dtype), jnp.asarray(table.shape[1] - 1, jnp.int32))
    return jax.lax.reduce((table, index), nothing, better, (1,))[1]


@dataclasses.dataclass(frozen=True)
class Conjugate:
    """The full posterior of a site outside the data plate, in the family of its conjugate prior.

    q(z) is the exact posterior of z with all other sites held. It is found from the program: the prior has to be
    conjugate to every density that depends on the site. Source: Beal (2003), theorem 2.2.
    """


#: A family for a site outside the data plate that has a prior.
ParameterFamily = Delta | Conjugate


@dataclasses.dataclass(frozen=True)
class Corner:
    """A named choice of families: one for the assignments, one for the parameters with a prior.

    ``corner | {"loc": probem.Delta()}`` is the same with another family on some sites.
    """

    name: str
    assignments: AssignmentFamily
    parameters: ParameterFamily
    others: tuple[tuple[str, Any], ...] = ()

    def __or__(self, families: Mapping[str, Any]) -> "Corner":
        return dataclasses.replace(self, others=tuple({**dict(self.others), **families}.items()))


#: Full categorical assignments, point parameters (maximum likelihood; MAP where there are priors).
EM = Corner("EM", Categorical(), Delta())

#: Point-mass assignments, point parameters: classification EM, and k-means for the model ``kmeans``.
HARD_EM = Corner("HARD_EM", Delta(), Delta())

#: Full categorical assignments, full posteriors on the parameters with a prior. Source: Attias (2000); Beal (2003).
VARIATIONAL_BAYES = Corner("VARIATIONAL_BAYES", Categorical(), Conjugate())

#: Point-mass assignments, full posteriors on the parameters with a prior: Bayesian k-means for Gaussian mixtures.
#: Source: Kurihara & Welling (2009), Bayesian k-means as a "maximization-expectation" algorithm.
MAXIMIZATION_EXPECTATION = Corner("MAXIMIZATION_EXPECTATION", Delta(), Conjugate())


class Families(NamedTuple):
    """The one family of the assignments, and the sites with a full posterior; the other sites are points.

    ``modes`` allows a point under a conjugate prior its closed form, the mode of what its full posterior would be;
    ``fixed`` says which entries of which points stay where they are (``probem.fixed``).
    """

    assignments: AssignmentFamily
    conjugate: tuple[str, ...] = ()
    modes: bool = True
    fixed: tuple[tuple[str, bytes], ...] = ()


def choose_families(program: "Program", families: Any) -> Families:
    """The families of all sites, once every choice is checked against its site.

    Raises
    ------
    InputError
        For a family on an unknown site (with the nearest name) or of the wrong kind for its site.
    """
    corner = families if isinstance(families, Corner) else EM
    if not (isinstance(corner.assignments, AssignmentFamily) and isinstance(corner.parameters, ParameterFamily)):
        raise InputError(
            f"the corner {corner.name} of {corner.assignments!r} and {corner.parameters!r}",
            "a family for the assignments and one for the parameters",
            "write Corner(name, Categorical(), Delta()), or use one of those named",
        )
    if families is not None and not isinstance(families, Corner | Mapping):
        raise InputError(
            f"families of type {type(families).__name__}",
            "a mapping from site to family, or a named corner",
            "write families={'site': probem.Delta()} or families=probem.HARD_EM",
        )
    chosen = dict(families) if isinstance(families, Mapping) else dict(corner.others)
    assignments = [site.name for site in program.assignments]
    with_prior = [site.name for site in program.globals if site.has_prior]
    without = [site.name for site in program.globals if not site.has_prior]
    if corner.parameters == Conjugate() and not with_prior:
        raise InputError(
            f"{corner.name} for a program in which no site outside the data plate has a prior",
            "numpyro.sample sites there",
            "put priors on its parameters, or use probem.EM or probem.HARD_EM",
        )
    for name, family in chosen.items():
        if name in without:
            raise InputError(
                f"a family for '{name}', a param site without a prior",
                "families for sample sites",
                "leave it out (it is fitted by maximum likelihood), or give it a prior with numpyro.sample",
            )
        if name not in (*assignments, *with_prior):
            remedy = nearest(name, (*assignments, *with_prior))
            raise InputError(f"a family for the unknown site '{name}'", "a latent site of the program", remedy)
        if isinstance(family, type) and issubclass(family, AssignmentFamily | Conjugate):
            raise InputError(
                f"the class {family.__name__} as the family of '{name}'", "a family", f"write {family.__name__}()"
            )
        if not isinstance(family, AssignmentFamily | Conjugate):
            raise InputError(
                f"{family!r} as the family of '{name}'",
                "a family",
                "use Categorical(), Delta(), Tempered(beta) or TopC(C) for assignments, Delta() or Conjugate() for"
                " sites with a prior",
            )
        if name in with_prior and not isinstance(family, ParameterFamily):
            raise InputError(
                f"{family!r} on the continuous site '{name}'",
                "a family for continuous sites",
                "use Delta() there (MAP) or Conjugate(); Categorical, Tempered and TopC are for assignments",
            )
        if name in with_prior and family == Delta(fill_empty=True):
            raise InputError(
                f"{family!r} on the continuous site '{name}', which has no rows to be filled with",
                "Delta() there",
                "leave fill_empty out, or give it to the assignments",
            )
        if name in assignments and isinstance(family, Conjugate):
            raise InputError(
                f"Conjugate() on the assignment '{name}'", "a family for assignments", "use Categorical() there"
            )
    if with_prior and corner.parameters == Delta(fill_empty=True):
        raise InputError(
            f"{corner.parameters!r} for the parameters of the corner {corner.name}", "Delta() there", "leave it out"
        )
    for name in assignments:
        _check_hashable(name, chosen.get(name, corner.assignments))
    used = {chosen.get(name, corner.assignments) for name in assignments}
    if len(used) > 1:
        raise InputError(
            f"different families for the assignments ({', '.join(sorted(map(repr, used)))})",
            "one family for all of them, since they are enumerated jointly",
            "give each the same",
        )
    conjugate = tuple(name for name in with_prior if isinstance(chosen.get(name, corner.parameters), Conjugate))
    _check_contract(next(iter(used)), program.num_components)
    return Families(used.pop(), conjugate)


def _check_hashable(name: str, family: AssignmentFamily) -> None:
    try:
        hash(family)
    except TypeError:
        raise InputError(
            f"{type(family).__name__} as the family of '{name}', which cannot be hashed",
            "an immutable family: what is compiled is kept for it",
            "make it a frozen dataclass, with tuples in place of lists and arrays",
        ) from None


# Rows of the tables that the word of a family is held against, and how often each comes, at what temperatures.
_CONTRACT_ROWS = 8
_CONTRACT_SCALES = (1.0, 0.5, 0.8, 1.25, 2.0)
_CONTRACT_TOLERANCE = 1e-8


@functools.lru_cache(maxsize=256)
def _check_contract(family: AssignmentFamily, num_values: int) -> None:
    """Hold what a family says of itself against what its projection returns.

    q has to lie on the simplex, with the entropy and the expectations that it reports; it has to be the posterior where
    ``is_exact`` says so; and no other q that the family returned for some row may do better by
    E_q[L] + entropy_weight * H(q).

    Raises
    ------
    InputError
        Naming what contradicts what.
    """
    if isinstance(family, TopC) and family.num_kept > num_values:
        raise InputError(
            f"{family!r} of {num_values} values", f"at most {num_values}", "use Categorical(), which keeps them all"
        )
    if type(family) in (Categorical, Delta, Tempered, TopC):
        return
    name = type(family).__name__
    own = 2.0 * np.random.default_rng(0).normal(size=(_CONTRACT_ROWS, num_values))
    table = np.concatenate([scale * own for scale in _CONTRACT_SCALES])

    def look(table: Array) -> dict[str, Array]:
        q = family.project(table)
        return {"q": q.dense(), "expectation": q.expectation(table), "entropy": q.entropy()}

    try:
        weight, is_exact = float(family.entropy_weight), bool(family.is_exact)
        with jax.enable_x64(True):
            found = concrete(look)(table)
    except Exception as error:
        text = " ".join(str(error).split())
        raise InputError(
            f"{type(error).__name__} from {name} on a table of shape {table.shape}: {text[:300]}",
            "a family whose projection returns q(t_n) for every row of a table [n, K]",
            "return a Dense, a Sparse or a Point of probem.families",
        ) from error
    q = found["q"]
    remedy = f"mend {name}.project"
    if q.shape != table.shape or not (np.isfinite(q).all() and (q >= 0).all() and np.allclose(q.sum(1), 1.0)):
        raise InputError(
            f"{name}, whose q of some row is no probability of {num_values} values",
            "rows that are not negative and sum to 1",
            remedy,
        )
    entropy, expectation = np.asarray(entr(q)).sum(1), (q * table).sum(1)
    for key, value in (("entropy", entropy), ("expectation", expectation)):
        if not np.allclose(found[key], value, rtol=1e-5, atol=1e-5):
            raise InputError(
                f"{name}, whose q has the {key} {value[0]:.6g} and says {float(np.ravel(found[key])[0]):.6g}",
                "what follows from its probabilities",
                f"return a Dense of {name}.project, which works it out",
            )
    if is_exact and not np.allclose(q, np.asarray(jax.nn.softmax(table, axis=1)), atol=1e-5):
        raise InputError(
            f"{name} with is_exact=True, whose projection is not the posterior", "the truth", "leave is_exact out"
        )
    if not (np.isfinite(weight) and weight >= 0):
        raise InputError(f"{name} with entropy_weight={weight}", "a finite number from 0", "change it")
    objectives = table @ q.T + weight * entropy
    if (objectives > np.diag(objectives)[:, None] + _CONTRACT_TOLERANCE * (1 + np.abs(table).max())).any():
        raise InputError(
            f"{name} with entropy_weight={weight:g}, whose q for some row is not its best: E_q[L] + {weight:g} H(q) is"
            " higher under its q for another row",
            "a projection that maximises it over the family",
            f"{remedy}, or its entropy_weight",
        )
