"""Deterministic annealing, beside plain loops and beside the families that it ends as."""

import numpy as np
import pytest
import scipy.special

import probem
from probem import InputError
from probem.families.numbers import lifted_family
from tests.programs import counted
from tests.programs.fits import KMEANS, START, X, soft

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

CENTRES = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 1.0]])
SCHEDULES = [
    probem.Annealed(),
    probem.Annealed(0.3, 2.5, 8),
    probem.Annealed(4.0, steps=5.5),
    probem.Annealed(2.0, 0.5),
]


def beta(family: probem.Annealed, number: int) -> float:
    """By the definition, in logarithms of base 2."""
    if number >= family.steps:
        return family.stop
    share = number / family.steps
    return float(2 ** ((1 - share) * np.log2(family.start) + share * np.log2(family.stop)))


def plain_loop(family: probem.Annealed, num_steps: int) -> tuple[np.ndarray, list[float]]:
    """k-means with a posterior that is raised to a power, and the gap of every E half-step, nats."""
    loc, gaps = CENTRES, []
    for number in range(num_steps):
        log_joint = -0.5 * ((X[:, None, :] - loc[None]) ** 2).sum(2)
        log_posterior = scipy.special.log_softmax(log_joint, axis=1)
        log_q = scipy.special.log_softmax(beta(family, number) * log_joint, axis=1)
        q, last = np.exp(log_q), loc
        gaps.append((q * (log_q - log_posterior)).sum())
        loc = q.T @ X / q.sum(0)[:, None]
    return last, gaps


def fitted(family: probem.families.AssignmentFamily, **options) -> probem.Fit:
    options = {"init": probem.Parameters({"loc": CENTRES}), "throw": False, **options}
    return probem.fit(KMEANS, X, families={"t": family}, **options)


@pytest.mark.parametrize("family", SCHEDULES, ids=repr)
@pytest.mark.parametrize("num_steps", [4, 12])
def test_a_fit_is_the_plain_loop(family: probem.Annealed, num_steps: int) -> None:
    fit = fitted(family, max_steps=num_steps, tolerance=0.0, record_gap=True)
    loc, gaps = plain_loop(family, num_steps)
    np.testing.assert_allclose(fit.params["loc"], loc, rtol=1e-10)
    # A family that ends as EM has a gap all the same, until it has ended.
    np.testing.assert_allclose(fit.history.gap[::2], gaps, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("family", SCHEDULES, ids=repr)
def test_it_ends_as_tempered(family: probem.Annealed) -> None:
    fit, direct = fitted(family), fitted(probem.Tempered(family.stop))
    assert fit.result is probem.Result.CONVERGED
    assert fit.num_steps >= family.steps
    np.testing.assert_allclose(fit.params["loc"], direct.params["loc"], atol=1e-4)
    np.testing.assert_allclose(fit.elbo, direct.elbo, atol=1e-6)
    np.testing.assert_allclose(fit.history.objective[-2:], direct.history.objective[-1], atol=1e-6)
    assert (family.entropy_weight, family.is_exact) == (1 / family.stop, family.stop == 1)


def test_a_gap_that_is_not_recorded_is_unknown_while_beta_changes() -> None:
    assert np.isnan(fitted(probem.Annealed(), max_steps=3).history.gap).all()


def test_a_fit_that_ended_as_em_has_standard_errors() -> None:
    program, direct = probem.Parameters(dict(soft().params)), soft().standard_errors(X)
    fit = probem.fit(soft().program, X, families={"t": probem.Annealed(0.8, steps=3)}, init=program)
    np.testing.assert_allclose(fit.standard_errors(X)["loc"], direct["loc"], rtol=1e-4)
    with pytest.raises(InputError, match="standard errors of a fit with assignments in Annealed"):
        probem.fit(soft().program, X, families={"t": probem.Annealed(stop=0.9)}, init=START).standard_errors(X)


def test_its_numbers_are_arguments_of_what_is_compiled() -> None:
    assert lifted_family(probem.Annealed(0.1, 1, 30), 3).names == ("start", "stop", "steps")
    fitted(probem.Annealed(0.5, 2.0, 10), max_steps=3)
    others = [probem.Annealed(0.1, 2.0, 10), probem.Annealed(0.7, 3, 11), probem.Annealed(9, 4.0, 0.5)]
    cost = counted.cost(lambda: [fitted(family, max_steps=3) for family in others])
    assert cost[1] == 0


def test_check_compares_what_holds_in_spite_of_a_schedule() -> None:
    start = probem.Parameters({"loc": CENTRES})
    report = probem.check(KMEANS, X, families={"t": probem.Annealed(0.5, 2.0, 4)}, init=start)
    assert report.holds
    names = [check.compared for check in report.rows]
    assert any("F of the fit + gap" in name and "end" in name for name in names)
    assert any("what q of the family maximises" in name for name in names)
    assert "follow a schedule" in str(report)
    assert "once a schedule has ended" in str(probem.explain(KMEANS, X, families={"t": probem.Annealed()}))


@pytest.mark.parametrize("name", ["start", "stop", "steps"])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), True])
def test_numbers_are_positive_and_finite(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"got Annealed\({name}=.*\); expected a positive, finite number; use"):
        probem.Annealed(**{name: value})
