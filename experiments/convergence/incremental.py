"""G13: EM that looks at one block of rows at a time, and keeps the statistics of the others, never lowers F.

The loop is plain; the engine is the judge: ``probem.elbo`` has F at any q and any parameters.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import entr

import probem
from probem.checking.residuals import ROUNDING, SAME, excess, worst
from probem.experiments.claims.claim import Check, Dataset

from .plain import Sums, iterated, log_joint, posterior
from .rates import COMPONENTS, program

#: Blocks of rows, and how often each is visited.
BLOCKS, ROUNDS = 6, 5
#: Rounds until the loop stands still.
TO_THE_END = 200


class Visit(NamedTuple):
    """q ``[N, K]`` and the parameters after an E-step of one block, or after the M-step that follows."""

    half: str
    q: np.ndarray
    params: dict[str, np.ndarray]


def visits(rows: np.ndarray, start: dict[str, np.ndarray], num_rounds: int) -> Iterator[Visit]:
    """Every half-step of incremental EM over blocks: Neal & Hinton (1998), section 4. In the first round a block is
    looked at for the first time, so that all of them begin at the start's q.
    """
    blocks = np.array_split(np.arange(len(rows)), BLOCKS)
    q = posterior(start, rows)
    sums = [Sums.of(q[block], rows[block]) for block in blocks]
    total = Sums.of(q, rows)
    params = total.maximised()
    yield Visit("M", q, params)
    for _ in range(num_rounds):
        for number, block in enumerate(blocks):
            q = q.copy()
            q[block] = posterior(params, rows[block])
            yield Visit("E", q, params)
            new = Sums.of(q[block], rows[block])
            total, sums[number] = total.replaced(sums[number], new), new
            params = total.maximised()
            yield Visit("M", q, params)


def plain_bound(visit: Visit, rows: np.ndarray) -> float:
    """F = E_q[log p(X, T)] + H(q), nats, by densities in NumPy."""
    return float((visit.q * log_joint(visit.params, rows)).sum() + entr(visit.q).sum())


def bounds(made: Iterable[Visit], rows: np.ndarray) -> np.ndarray:
    """F by the engine after every half-step."""
    bound_of = jax.jit(functools.partial(probem.elbo, program()))
    return np.array([float(bound_of(visit.params, visit.q, rows).elbo) for visit in made])


class Run(NamedTuple):
    """F by the engine and by NumPy after every half-step, and of EM by the engine after every iteration."""

    halves: np.ndarray
    judged: np.ndarray
    plain: np.ndarray
    whole: np.ndarray
    end: float


@functools.cache
def _run(name: str, rows: bytes, shape: tuple[int, ...], seed: int) -> Run:
    del name
    x = np.frombuffer(rows).reshape(shape)
    generator = np.random.default_rng(seed)
    start = {
        "weights": np.full(COMPONENTS, 1 / COMPONENTS),
        "loc": x[generator.choice(len(x), COMPONENTS, replace=False)],
        "covariance": np.tile(np.cov(x, rowvar=False), (COMPONENTS, 1, 1)),
    }
    # The order of the rows says nothing: sorted by cluster, a block would be of one.
    x = x[generator.permutation(len(x))]
    made = list(visits(x, start, ROUNDS))
    options: dict[str, Any] = {"init": probem.Parameters(start), "tolerance": 0, "throw": False}
    whole = probem.fit(program(), x, max_steps=ROUNDS + 2, **options)
    *_, last = visits(x, start, TO_THE_END)
    return Run(
        np.array([visit.half for visit in made]),
        bounds(made, x),
        np.array([plain_bound(visit, x) for visit in made]),
        whole.history.elbo[::2],
        still_moves(last, x),
    )


def still_moves(visit: Visit, rows: np.ndarray) -> float:
    """How far a whole iteration would still move the parameters, relative to the largest of its kind."""
    after = iterated(visit.params, rows, 1)
    return worst([np.abs(after[name] - value).max() / np.abs(value).max() for name, value in visit.params.items()])


def run_of(dataset: Dataset, seed: int) -> Run:
    """The run from a start by this seed."""
    return _run(dataset.name, np.ascontiguousarray(dataset.rows).tobytes(), dataset.rows.shape, seed)


def never_lower(dataset: Dataset, seed: int) -> Iterator[Check]:
    """G13."""
    run = run_of(dataset, seed)
    rises = np.diff(run.judged)
    yield Check(
        "G13",
        dataset.name,
        f"by how much F falls in {len(rises)} half-steps over blocks, as the engine has it, relative, and 0",
        excess(-rises / abs(run.judged[-1])),
        ROUNDING,
        {
            "first F": float(run.judged[0]),
            "last F": float(run.judged[-1]),
            "smallest rise of an E-step": float(rises[run.halves[1:] == "E"].min()),
            "smallest rise of an M-step": float(rises[run.halves[1:] == "M"].min()),
        },
    )
    yield Check(
        "G13",
        dataset.name,
        "F of every half-step by the engine, and in NumPy, relative",
        np.abs(run.judged / run.plain - 1),
        SAME,
    )
    yield Check(
        "G13",
        dataset.name,
        f"after {TO_THE_END} rounds: how far a whole iteration still moves the parameters, relative, and 0",
        run.end,
        # Where it stands still, EM does.
        1e-8,
        {
            f"F after {ROUNDS} rounds": float(run.judged[-1]),
            f"F of EM after {ROUNDS + 1} M-steps": float(run.whole[-1]),
        },
    )
