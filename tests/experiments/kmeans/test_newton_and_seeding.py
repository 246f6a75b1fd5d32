"""Claims G5 and G12: each holds, and a planted fault makes the same check fail."""

import dataclasses
import itertools

import numpy as np
import pytest

import probem
from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.datasets import load
from probem.experiments.kmeans import newton, seeding
from probem.experiments.oracles.lloyd import Iteration
from probem.experiments.report.report import formula, prose

SEED = 5
CLAIMS = (*newton.CLAIMS, *seeding.CLAIMS)
BY_ID = {claim.id: claim for claim in CLAIMS}


def dataset():
    every = load("old_faithful")
    return Dataset(every.name, every.rows[::4], every.description, every.columns)


def failing(claim):
    itself = BY_ID[claim].by_itself(SEED) if BY_ID[claim].by_itself else ()
    return [check.compared for check in (*BY_ID[claim].check(dataset(), SEED), *itself) if not check.holds]


def test_words_and_formulas_can_be_shown():
    for claim in CLAIMS:
        assert "merror" not in formula(claim.formula)
        assert "$" not in prose(claim.statement) + prose(claim.figure_caption)


def test_the_probabilities_of_sequences_are_those_of_draws_in_turn():
    """A plain loop that draws one seed after the other, many times."""
    rows = seeding.few_rows(dataset(), SEED)
    sequences, probabilities = seeding.by_squares(rows)
    assert probabilities.sum() == pytest.approx(1.0)
    generator, squares = np.random.default_rng(SEED), ((rows[:, None] - rows) ** 2).sum(2)
    counts = dict.fromkeys(map(tuple, sequences), 0)
    for _ in range(4000):
        chosen = [int(generator.integers(len(rows)))]
        while len(chosen) < seeding.COMPONENTS:
            nearest = squares[:, chosen].min(axis=1)
            chosen.append(int(generator.choice(len(rows), p=nearest / nearest.sum())))
        counts[tuple(chosen)] += 1
    statistic, _ = seeding.chi_squared(np.array(list(counts.values())), 4000 * probabilities)
    assert statistic < 1


@pytest.mark.slow
@pytest.mark.parametrize("claim", BY_ID)
def test_holds(claim):
    assert failing(claim) == []


@pytest.mark.slow
def test_g5_sees_half_a_step(monkeypatch):
    real = newton.k_means

    def slower(rows, start):
        run = real(rows, start)
        pairs = itertools.pairwise(run.iterations)
        halves = [Iteration((now.centres + after.centres) / 2, after.labels) for now, after in pairs]
        return dataclasses.replace(run, iterations=(run.iterations[0], *halves))

    monkeypatch.setattr(newton, "k_means", slower)
    assert len(failing("G5")) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(("instead", "number"), [(probem.RandomRows(), 2), (probem.Lloyd(max_steps=1), 1)])
def test_g12_sees_other_seeds(monkeypatch, instead, number):
    real = seeding.drawn
    monkeypatch.setattr(seeding, "drawn", lambda rows, seed, asked: real(rows, seed, instead))
    assert len(failing("G12")) >= number
