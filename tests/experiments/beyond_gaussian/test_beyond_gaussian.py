"""Claims F1 to F3: each holds, and a planted fault makes the same check fail."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import iv

import probem
from probem.experiments import beyond_gaussian as subject
from probem.experiments.beyond_gaussian import bregman, closed_forms, divergences, relatives
from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.datasets import load
from probem.experiments.outcomes.all_claims import claims_of
from probem.experiments.report.report import formula, prose

SEED = 5
CLAIMS = tuple(claims_of(subject))
BY_ID = {claim.id: claim for claim in CLAIMS}


@functools.cache
def dataset():
    every = load("iris")
    return Dataset(every.name, every.rows[::2], every.description, every.columns)


def words_of(checks):
    return [check.compared for check in checks if not check.holds]


def failing(claim):
    return words_of(BY_ID[claim].check(dataset(), SEED) if BY_ID[claim].check else BY_ID[claim].by_itself(SEED))


# --- the plain sides ---


def test_words_and_formulas_can_be_shown():
    for claim in CLAIMS:
        assert "merror" not in formula(claim.formula)
        assert "$" not in prose(claim.statement) + prose(claim.figure_caption)


@pytest.mark.parametrize("kind", divergences.DIVERGENCES)
def test_a_divergence_with_its_rest_is_the_density(kind):
    from scipy.stats import bernoulli, expon, poisson

    generator = np.random.default_rng(SEED)
    x, mean = {
        "Poisson": (generator.poisson(3.0, 50).astype(float), 2.5),
        "Bernoulli": (generator.integers(2, size=50).astype(float), 0.3),
        "exponential": (generator.exponential(2.0, 50), 1.7),
    }[kind]
    density = {"Poisson": poisson.logpmf, "Bernoulli": bernoulli.logpmf}.get(
        kind, lambda x, m: expon.logpdf(x, scale=m)
    )
    divergence = divergences.DIVERGENCES[kind]
    ours = divergence.log_rest(x) - divergence.of(x, np.full_like(x, mean))
    np.testing.assert_allclose(ours, density(x, mean), rtol=1e-12)


@pytest.mark.parametrize("kind", divergences.DIVERGENCES)
def test_the_mean_has_the_least_divergence(kind):
    """Banerjee et al. (2005), proposition 1: d to any other centre is more by N d(mean, centre)."""
    rows = bregman.rows_of(dataset(), kind)
    divergence, mean = divergences.DIVERGENCES[kind], rows.mean(axis=0)
    other = 0.8 * mean + 0.1
    excess = divergence.of(rows, other).sum() - divergence.of(rows, mean).sum()
    if kind == "Bernoulli":
        # phi of a mean is minus its entropy, which is zero for a bit.
        expected = (mean * np.log(mean / other) + (1 - mean) * np.log((1 - mean) / (1 - other))).sum()
    else:
        expected = divergence.of(mean, other).sum()
    np.testing.assert_allclose(excess, len(rows) * expected, rtol=1e-10)


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_von_mises_fisher_is_normalised(dim):
    """In three dimensions the constant is elementary, on the circle it is NumPyro's, elsewhere SciPy's."""
    ours = relatives.log_normaliser(dim, relatives.CONCENTRATION)
    kappa, order = relatives.CONCENTRATION, dim / 2 - 1
    np.testing.assert_allclose(ours, np.log((2 * np.pi) ** (dim / 2) * iv(order, kappa) / kappa**order), rtol=1e-12)
    if dim == 3:
        np.testing.assert_allclose(ours, np.log(4 * np.pi * np.sinh(kappa) / kappa), rtol=1e-12)
    if dim == 2:
        angle, centre = np.array([0.3, 2.0]), np.array([np.cos(0.5), np.sin(0.5)])
        rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        density = relatives.VonMisesFisher(jnp.asarray(centre), kappa).log_prob(jnp.asarray(rows))
        np.testing.assert_allclose(density, dist.VonMises(0.5, kappa).log_prob(jnp.asarray(angle)), rtol=1e-6)


# --- the claims hold ---


@pytest.mark.slow
@pytest.mark.parametrize("claim", [name for name in BY_ID if name != "G18"])  # which test_published.py has
def test_holds(claim):
    assert failing(claim) == []


# --- planted faults ---


@pytest.mark.slow
def test_f1_sees_a_divergence_the_other_way_round(monkeypatch):
    poisson = divergences.DIVERGENCES["Poisson"]
    turned = dataclasses.replace(poisson, of=lambda x, mean: poisson.of(np.broadcast_to(mean, x.shape), x + 1e-9))
    monkeypatch.setitem(divergences.DIVERGENCES, "Poisson", turned)
    assert {words.partition(",")[0] for words in failing("F1")} == {"Poisson"}
    assert any("F after every E-step" in words for words in failing("F1"))


@pytest.mark.slow
def test_f1_sees_a_soft_q(monkeypatch):
    monkeypatch.setattr(probem, "HARD_EM", probem.EM)
    monkeypatch.setattr(bregman, "DIVERGENCES", {"Poisson": divergences.DIVERGENCES["Poisson"]})
    assert any("means of every iteration" in words for words in failing("F1"))


@pytest.mark.slow
def test_f2_sees_an_m_step_over_other_rows(monkeypatch):
    real, written = probem.iterate, closed_forms.ONCE[3:6]

    def of_some(program, rows, **options):
        return real(program, rows, row_weights=np.arange(closed_forms.ROWS) % 3, **options)

    monkeypatch.setattr(probem, "iterate", of_some)
    assert len(words_of(closed_forms.closed_forms(SEED, written))) == 3


@pytest.mark.slow
def test_f2_sees_what_has_no_closed_form():
    """A rate that must lie below 1."""
    limited = dataclasses.replace(
        closed_forms.ONCE[5], arguments={"rate": (dist.constraints.unit_interval, ())}, name="limited"
    )
    assert words_of(closed_forms.closed_forms(SEED, (limited,)))[0].endswith("not updated in closed form")


@pytest.mark.slow
def test_f3_sees_sums_that_are_no_directions(monkeypatch):
    wrong = dataclasses.replace(relatives.SPHERICAL, centre=lambda part: part.mean(axis=0))
    monkeypatch.setattr(relatives, "SPHERICAL", wrong)
    assert failing("F3") == ["spherical k-means: centres after every M-step, and of a plain loop"]


@pytest.mark.slow
def test_f3_sees_another_noise(monkeypatch):
    wrong = dataclasses.replace(relatives.MODES, families=probem.HARD_EM | {"probs": relatives.Modes(noise=0.3)})
    monkeypatch.setattr(relatives, "MODES", wrong)
    assert failing("F3") == ["k-modes: F after every E-step, and from distances alone, relative"]


@pytest.mark.slow
def test_f3_sees_frequencies_in_place_of_modes(monkeypatch):
    """Without the restriction it is no k-modes."""
    monkeypatch.setattr(relatives, "MODES", dataclasses.replace(relatives.MODES, families=probem.HARD_EM))
    assert any("k-modes: F after" in words for words in failing("F3"))


@pytest.mark.slow
def test_f3_sees_squares_in_place_of_absolute_values(monkeypatch):
    wrong = dataclasses.replace(relatives.MEDIANS, distance=lambda rows, centre: ((rows - centre) ** 2).sum(axis=1))
    monkeypatch.setattr(relatives, "MEDIANS", wrong)
    assert any("k-medians" in words and "F of the engine, and" in words for words in failing("F3"))
