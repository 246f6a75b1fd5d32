"""Claims G4, G6 to G8, G10, G11 and G15: each holds, and a planted fault makes the same check fail."""

import functools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import probem
from probem.experiments.asymptotics import (
    bad_maxima,
    complexity,
    far_modes,
    from_any_start,
    overfitted,
    overlap,
    population,
)
from probem.experiments.claims.datasets import load
from probem.experiments.claims.drawing import draw
from probem.experiments.report.report import formula, prose

SEED = 20220725
MODULES = (from_any_start, overlap, bad_maxima, overfitted, complexity, far_modes)
BY_ID = {claim.id: claim for module in MODULES for claim in module.CLAIMS}
REMEMBERED = (
    from_any_start.paths,
    overlap.rates,
    bad_maxima.maxima,
    overfitted.rung,
    complexity.in_one_dimension,
    complexity.beside_bic,
    far_modes.gaps,
)


def failing(claim, seed=SEED):
    return [check.compared for check in BY_ID[claim].by_itself(seed) if not check.holds]


@pytest.fixture
def forget():
    """Nothing computed without the fault is taken for what it gives, or the other way round."""

    def clear():
        for function in REMEMBERED:
            function.cache_clear()

    clear()
    yield
    clear()


# --- the other sides ---


def test_words_and_formulas_can_be_shown():
    for claim in BY_ID.values():
        assert "merror" not in formula(claim.formula)
        assert "$" not in prose(claim.statement) + prose(claim.figure_caption)


def test_nodes_integrate_a_mixture_and_what_em_asks_of_it():
    shares = population.shares(-1.5, 1.5)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert shares @ population.NODES**2 == pytest.approx(1 + 1.5**2, abs=1e-12)
    assert shares @ (population.NODES * np.tanh(3 * population.NODES)) == pytest.approx(
        population.expected(lambda x: x * math.tanh(3 * x), 1.5), abs=1e-12
    )


def test_the_even_integral_is_that_of_the_whole_line():
    value, _ = quad(lambda x: x**2 / math.cosh(x) * norm.pdf(x, 1.2), -20, 20, epsabs=1e-13)
    assert population.expected(lambda x: x**2 / math.cosh(x), 1.2) == pytest.approx(value, abs=1e-11)


def test_the_eigenvalues_are_those_of_a_map_differenced_by_hand():
    """The Jacobian of both centres in NumPy, at a distance where neither eigenvalue is small."""
    distance, step = 1.3, 1e-5
    x, shares = population.NODES, population.shares(-distance, distance)

    def em(centres):
        r = 1 / (1 + np.exp(((x - centres[0]) ** 2 - (x - centres[1]) ** 2) / 2))
        return np.array([(shares * r) @ x / (shares @ r), (shares * (1 - r)) @ x / (shares @ (1 - r))])

    truth = np.array([-distance, distance])
    jacobian = np.stack([(em(truth + step * e) - em(truth - step * e)) / (2 * step) for e in np.eye(2)], axis=1)
    expected = sorted(np.linalg.eigvals(jacobian).real)
    np.testing.assert_allclose(sorted(overlap.plain_rates(distance)), expected, rtol=1e-8)


def test_rounded_rows_have_the_variance_of_those_they_stand_for():
    counts = overfitted.draws(np.random.default_rng(0), 10**7, 0.0)
    second = (counts @ overfitted.VALUES**2) / 10**7
    # The standard error of a second moment of ten million rows, and of the mean of so many of them.
    assert abs(second.mean() - 1) < 4 * math.sqrt(2 / (10**7 * len(second)))


def test_the_formula_changes_at_its_threshold():
    for dim, threshold in ((1, 1.0), (2, 1.5), (5, 3.0)):
        every = [complexity.cost(number, threshold, dim) for number in (1, 2, 3)]
        assert every == pytest.approx([every[0]] * 3)
        assert complexity.coefficient(threshold - 0.1, dim) == complexity.cost(1, threshold - 0.1, dim)
        assert complexity.coefficient(threshold + 0.1, dim) == complexity.cost(3, threshold + 0.1, dim)


def test_the_plain_loop_of_em_climbs_to_where_the_centres_are():
    counts = overfitted.draws(np.random.default_rng(1), 10**6, *complexity.NEEDED)[:2]
    truth = np.array(complexity.NEEDED)
    start = complexity.parted(overfitted.VALUES[:, None], truth[:, None] + 0.5)
    at_truth = counts @ np.log(norm.pdf(overfitted.VALUES[:, None], truth).mean(axis=1))
    gained = complexity.highest(counts, start) - at_truth
    # Twice the gain is chi-squared with five degrees of freedom.
    assert np.all((gained > 0) & (gained < 15))


# --- the claims hold ---


@pytest.mark.slow
@pytest.mark.parametrize("claim", BY_ID)
def test_holds(claim):
    assert failing(claim) == []
    drawing = draw(lambda: BY_ID[claim].figure(load(BY_ID[claim].figure_dataset), SEED), prefix=claim)
    assert len(drawing.png) > 10_000


# --- planted faults ---


def replacing(monkeypatch, module, name, make):
    monkeypatch.setattr(module, name, make(getattr(module, name)))


@pytest.mark.slow
def test_g4_and_g6_see_a_step_that_falls_short(monkeypatch, forget):
    def damped(real):
        def after(num_steps, starts, *rows):
            ends, bounds = real(num_steps, starts, *rows)
            before, _ = real(max(num_steps - 1, 0), starts, *rows)
            return ends - 0.01 * (ends - before), bounds

        return after

    replacing(monkeypatch, population, "after", damped)
    assert any("eigenvalues" in words for words in failing("G4"))
    assert any("quadrature" in words for words in failing("G6"))


@pytest.mark.slow
def test_g6_sees_too_few_steps_by_their_error(monkeypatch, forget):
    replacing(monkeypatch, population, "after", lambda real: lambda num_steps, *rest: real(num_steps // 4, *rest))
    failed = [check.compared for check in from_any_start.any_start(SEED, (1.0,)) if not check.holds]
    assert any("above 1 %" in words for words in failed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "words"),
    [(lambda radius: bad_maxima.centres_of(radius), "loss"), (lambda radius: np.full(3, radius), "Hessian")],
    ids=["the true centres", "all in one place"],
)
def test_g7_sees_what_is_no_bad_maximum(monkeypatch, forget, start, words):
    monkeypatch.setattr(bad_maxima, "bad_start", start)
    assert any(words in compared for compared in failing("G7"))


@pytest.mark.slow
def test_g7_sees_em_that_has_not_ended(monkeypatch, forget):
    monkeypatch.setattr(bad_maxima, "SETTLED", 2)
    assert any("gradient" in compared for compared in failing("G7"))


@pytest.mark.slow
def test_g8_sees_components_that_are_kept_apart(monkeypatch, forget):
    """EM that stops after as few steps as two clusters ask for has an error of its own."""
    replacing(monkeypatch, overfitted, "fitted", lambda real: lambda counts, start, _: real(counts, start, 15))
    failed = failing("G8")
    assert any("SciPy finds above" in words for words in failed)
    assert any("slope" in words and "one cluster" in words for words in failed)


@pytest.mark.slow
def test_g10_and_g15_see_a_bound_that_forgets_what_weights_cost(monkeypatch, forget):
    def cheap(real):
        return lambda rows, alpha, q, sizes, *steps: (
            real(rows, alpha, q, sizes, *steps) + 0.5 * np.log(np.sum(sizes, axis=1))
        )

    replacing(monkeypatch, complexity, "bounds", cheap)
    assert len(failing("G10")) == 2
    assert len(failing("G15")) == 2


@pytest.mark.slow
def test_g10_sees_another_concentration(monkeypatch, forget):
    real = complexity.bounds
    monkeypatch.setattr(complexity, "bounds", lambda rows, alpha, *rest: real(rows, 0.5, *rest))
    assert len(failing("G10")) == 3


@pytest.mark.slow
def test_g11_sees_another_prior(monkeypatch, forget):
    def pulled(num_components):
        weights = functools.partial(far_modes_dirichlet, concentration=1.01)
        return functools.partial(complexity.known_variance, num_components=num_components, weights=weights)

    far_modes_dirichlet = complexity.dirichlet
    monkeypatch.setattr(far_modes, "of", pulled)
    assert any("largest distance" in words for words in failing("G11"))


@pytest.mark.slow
def test_g11_sees_a_bound_above_the_evidence(monkeypatch, forget):
    real = probem.fit_many

    def points(*data, **options):
        return real(*data, **options | {"families": probem.EM})

    monkeypatch.setattr(probem, "fit_many", points)
    assert len(failing("G11")) >= 2
