"""What a family says of itself, held against what its projection returns."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from jaxtyping import Array, Float

from probem.errors import InputError
from probem.families.assignments import AssignmentFamily, Categorical, Delta, HalfStep, Tempered, TopC, assigned_type
from probem.families.numbers import LiftedFamily, lifted_family
from probem.families.posteriors import Point
from probem.jit.compilation import concrete

# Rows of the tables that the word of a family is held against, and how often each comes, at what temperatures.
_CONTRACT_ROWS = 8
_CONTRACT_SCALES = (1.0, 0.5, 0.8, 1.25, 2.0)
_CONTRACT_TOLERANCE = 1e-8


@functools.lru_cache(maxsize=256)
def check_contract(family: AssignmentFamily, num_values: int) -> None:
    """Hold what a family says of itself against what its projection, and an E half-step with it, return.

    q has to lie on the simplex, with the entropy and the expectations that it reports; it has to be the posterior where
    ``is_exact`` says so, and not to depend on the random key unless ``is_stochastic``; and no other q that the family
    projected some row onto may do better by E_q[L] + entropy_weight * H(q).

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
    base = 2.0 * np.random.default_rng(0).normal(size=(_CONTRACT_ROWS, num_values))
    table = np.concatenate([scale * base for scale in _CONTRACT_SCALES])

    lifted = lifted_family(family, num_values)
    for claim in ("is_exact", "is_stochastic", "fills_empty"):
        if not isinstance(said := getattr(family, claim), bool | np.bool_):
            raise InputError(
                f"{name}.{claim} of type {type(said).__name__}",
                "True or False",
                "make it an attribute or a property",
            )
    is_exact, is_stochastic = family.is_exact, family.is_stochastic
    try:
        weight = float(family.entropy_weight)
        with jax.enable_x64(True):
            projection = _projected(lifted, table)
            draws, memories = _assigned(lifted, table, num_values=num_values)
    except Exception as error:
        text = " ".join(str(error).split())
        raise InputError(
            f"{type(error).__name__} from {name} on a table of shape {table.shape}: {text[:300]}",
            "a family whose projection returns q(t_n) for every row of a table [n, K]",
            "return a Dense, a Sparse or a Point of probem.families",
        ) from error
    _check_q(name, projection, table, f"mend {name}.project")
    for said in draws:
        _check_q(name, said, table, f"mend {name}.assign")
    before, after = (jax.tree.map(np.shape, memory) for memory in memories[:2])
    if before != after or any(shape[:1] != (len(table),) for shape in map(np.shape, jax.tree.leaves(memories))):
        raise InputError(
            f"{name}, whose {len(table)} rows keep {after} after an E half-step and {before} before the first",
            "arrays of the same shapes, with an axis of the rows in front",
            f"mend {name}.begin or {name}.assign",
        )
    if family.fills_empty and not issubclass(assigned_type(family, num_values), Point):
        raise InputError(f"{name} with fills_empty=True, whose q is no point mass", "a Point", "leave it out")
    if not is_stochastic and not all(np.array_equal(*(said.q for said in draws[n : n + 2])) for n in (0, 2)):
        raise InputError(
            f"{name}, whose q depends on the key, with is_stochastic=False", "is_stochastic=True", "say so in the class"
        )
    q, entropy = projection.q, np.asarray(entr(projection.q)).sum(1)
    # While a schedule runs, q need not be what it is in the end.
    final = draws if type(family).is_final is AssignmentFamily.is_final else []
    if is_exact and not all(np.allclose(said.q, _posterior(table), atol=1e-5) for said in (projection, *final)):
        raise InputError(f"{name} with is_exact=True, whose q is not the posterior", "the truth", "leave is_exact out")
    if not (np.isfinite(weight) and weight >= 0):
        raise InputError(f"{name} with entropy_weight={weight}", "a finite number from 0", "change it")
    objectives = table @ q.T + weight * entropy
    if (objectives > np.diag(objectives)[:, None] + _CONTRACT_TOLERANCE * (1 + np.abs(table).max())).any():
        raise InputError(
            f"{name} with entropy_weight={weight:g}, whose q for some row is not its best: E_q[L] + {weight:g} H(q) is"
            " higher under its q for another row",
            "a projection that maximises it over the family",
            f"mend {name}.project, or its entropy_weight",
        )


@concrete
def _projected(lifted: LiftedFamily, table: Float[Array, "n K"]) -> "_Said":
    return _said(lifted.family.project(table), table)


@concrete
def _assigned(lifted: LiftedFamily, table: Float[Array, "n K"], *, num_values: int) -> tuple[list["_Said"], list[Any]]:
    """What the family says in two E half-steps with two seeds, and what rows keep before and after."""
    memory = lifted.family.begin(len(table), num_values)
    said, kept = [], [memory]
    for number, seed in ((0, 0), (0, 1), (1, 0), (1, 1)):
        half_step = HalfStep(*(jnp.asarray(part, jnp.uint32) for part in (number, seed, 0)))
        q, after = lifted.family.assign(table, memory, half_step)
        said.append(_said(q, table))
        kept.append(after)
    return said, kept


class _Said(NamedTuple):
    """The probabilities of a q, and what it says follows from them."""

    q: Any
    expectation: Any
    entropy: Any


def _said(q: Any, table: Float[Array, "n K"]) -> _Said:
    return _Said(q.dense(), q.expectation(table), q.entropy())


def _posterior(table: Float[np.ndarray, "n K"]) -> Float[np.ndarray, "n K"]:
    return np.asarray(jax.nn.softmax(table, axis=1))


def _check_q(name: str, said: _Said, table: Float[np.ndarray, "n K"], remedy: str) -> None:
    """Refuse what is no probability, or says of itself what does not follow from it."""
    q = said.q
    if q.shape != table.shape or not (np.isfinite(q).all() and (q >= 0).all() and np.allclose(q.sum(1), 1.0)):
        raise InputError(
            f"{name}, whose q of some row is no probability of {table.shape[1]} values",
            "rows that are not negative and sum to 1",
            remedy,
        )
    entropy, expectation = np.asarray(entr(q)).sum(1), (q * table).sum(1)
    for key, value, claim in (("entropy", entropy, said.entropy), ("expectation", expectation, said.expectation)):
        if not np.allclose(claim, value, rtol=1e-5, atol=1e-5):
            raise InputError(
                f"{name}, whose q has the {key} {value[0]:.6g} and says {float(np.ravel(claim)[0]):.6g}",
                "what follows from its probabilities",
                "return a Dense, which works it out",
            )
