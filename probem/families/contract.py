"""What a family says of itself, held against what its projection returns."""

import functools

import jax
import numpy as np
from jax import Array
from jax.scipy.special import entr

from probem.errors import InputError
from probem.families.assignments import AssignmentFamily, Categorical, Delta, Tempered, TopC
from probem.jit.compilation import concrete

# Rows of the tables that the word of a family is held against, and how often each comes, at what temperatures.
_CONTRACT_ROWS = 8
_CONTRACT_SCALES = (1.0, 0.5, 0.8, 1.25, 2.0)
_CONTRACT_TOLERANCE = 1e-8


@functools.lru_cache(maxsize=256)
def check_contract(family: AssignmentFamily, num_values: int) -> None:
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
