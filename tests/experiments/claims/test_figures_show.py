"""A number drawn in a figure is the number that the claim compares."""

import numpy as np
import pytest

from probem.experiments.claims.claim import NO_DATASET
from probem.experiments.claims.datasets import load
from probem.experiments.outcomes.all_claims import CLAIMS

# All of them check a claim first.
pytestmark = pytest.mark.slow

SEED = 20220725
BY_ID = {claim.id: claim for claim in CLAIMS}


def drawn(claim):
    """The figure as a run draws it, after the checks; and the checks."""
    of = BY_ID[claim]
    dataset = load(of.figure_dataset or "old_faithful")
    checks = list(of.check(dataset, SEED) if of.check else of.by_itself(SEED))
    assert {check.dataset for check in checks} == {dataset.name if of.check else NO_DATASET}
    return of.figure(dataset, SEED), checks


def named(checks, words):
    (check,) = (check for check in checks if check.compared.startswith(words))
    return check.numbers


def panel(figure, name):
    return next(axes for axes in figure.axes if axes.get_label() == name)


def x(axes, *lines):
    return np.concatenate([np.asarray(axes.lines[line].get_xdata(), float) for line in lines])


def y(axes, *lines):
    return np.concatenate([np.asarray(axes.lines[line].get_ydata(), float) for line in lines])


def test_a2_draws_the_nearest_and_the_farthest_q():
    figure, checks = drawn("A2")
    changes, numbers = y(figure.axes[0], 1, 2, 3, 4), named(checks, "the most by which")
    assert changes.max() == numbers["nearest change of F (nats)"]
    assert changes.min() == numbers["farthest"]
    # Pinsker's inequality holds whatever F is: the line is above every marker.
    assert np.all(changes <= -2 * len(load("overlapping").rows) * x(figure.axes[0], 1, 2, 3, 4) ** 2)


def test_a5_draws_every_slope():
    figure, checks = drawn("A5")
    assert np.abs(y(panel(figure, "slopes"), 1)).max() == checks[0].numbers["largest entry"]
    assert len(y(panel(figure, "slopes"), 2)) == checks[0].numbers["parameters"]
    numbers = named(checks, "gradient of log p(X) where EM stops")
    size = numbers["largest entry at the start"]
    assert y(panel(figure, "way"), 0)[-1] == pytest.approx(numbers["where EM stops"] / size, rel=0.05)


def test_a6_draws_every_guide():
    figure, checks = drawn("A6")
    assert y(panel(figure, "F"), 0).tolist() == [check.numbers["probem"] for check in checks[:4]]
    assert y(panel(figure, "F"), 1).tolist() == [check.numbers["NumPyro"] for check in checks[:4]]


def test_b2_fills_the_same_entries_in_both_panels():
    above, below = drawn("B2")[0].axes
    assert x(above, 1, 3, 5).tolist() == x(below, 1, 3, 5).tolist()
    assert sorted(x(above, 1, 3, 5)) == sorted(x(above, 0))


def test_b3_draws_every_row_on_the_line_of_equality():
    figure, checks = drawn("B3")
    lead, odds = x(figure.axes[1], 0, 1, 2), y(figure.axes[1], 0, 1, 2)
    assert len(lead) == checks[0].numbers["rows"]
    assert np.all(lead >= 0)
    np.testing.assert_allclose(odds, lead, atol=1e-12)


def test_b4_draws_slopes_of_as_many_rows():
    figure, checks = drawn("B4")
    counts = [y(figure.axes[1], line)[0] for line in (1, 3, 5)]
    assert min(counts) == pytest.approx(named(checks, "the Hessian")["smallest cluster"], rel=1e-12)


def test_b7_draws_the_longest_run_until_no_label_changes():
    figure, checks = drawn("B7")
    falling, moving = figure.axes
    runs = range(checks[0].numbers["starts"])
    assert max(len(y(falling, run)) for run in runs) == checks[0].numbers["longest"]
    assert [y(moving, run)[-1] for run in runs] == [0.0] * len(runs)


def test_d2_draws_f_below_its_supremum():
    figure, checks = drawn("D2")
    for line, check in enumerate(check for check in checks if "exceeds the computed supremum" in check.compared):
        numbers = check.numbers
        assert y(figure.axes[0], line)[[0, -1]] == pytest.approx(
            [numbers[which] - numbers["supremum"] for which in ("first F", "last F")], abs=1e-9
        )


def test_e2_draws_both_sides():
    figure, checks = drawn("E2")
    kinds = [check.numbers for check in checks if "together" not in check.compared][:-1]
    assert x(figure.axes[0], 0).tolist() == [numbers["F"] for numbers in kinds]
    assert x(figure.axes[0], 1).tolist() == [numbers["log p(X)"] for numbers in kinds]
    assert x(figure.axes[0], 2).tolist() == [checks[-1].numbers["lower_bound_"]]


def test_e3_draws_every_iteration():
    figure, checks = drawn("E3")
    of_bound = [check for check in checks if ": F of every iteration" in check.compared]
    for number, check in enumerate(of_bound):
        assert y(figure.axes[0], 2 * number)[[0, -1]].tolist() == [check.numbers["first F"], check.numbers["last F"]]


def test_e4_draws_the_errors():
    figure, checks = drawn("E4")
    errors = np.stack([y(figure.axes[0], sample) for sample in range(4)])
    numbers = [value for name, value in checks[0].numbers.items() if name.startswith("error at N")]
    assert np.exp(np.log(errors).mean(axis=0)) == pytest.approx(numbers)


def test_e6_draws_the_objective():
    figure, checks = drawn("E6")
    numbers = named(checks, "−2σ²F")
    assert y(figure.axes[1], 0)[-1] == pytest.approx(numbers["DP-means’ objective"])
    gap = y(figure.axes[1], 3)[-1] - y(figure.axes[1], 4)[-1]
    assert gap == pytest.approx(numbers["difference at σ² = 0.0052"])


def test_e8_draws_the_half_steps():
    figure, checks = drawn("E8")
    assert y(figure.axes[0], 0)[[0, -1]].tolist() == [checks[0].numbers["first"], checks[0].numbers["last"]]
    assert y(figure.axes[1], 0).min() == pytest.approx(checks[2].numbers["smallest eigenvalue"] ** 0.5)


def test_e9_draws_every_set():
    figure, checks = drawn("E9")
    sets = [y(figure.axes[0], line) for line in range(len(figure.axes[0].lines))]
    gaps = np.stack([values for values in sets if len(values) > 1])
    assert gaps[1:].mean() == pytest.approx(named(checks, "40 sets of seven rows: by how much")["F"])


@pytest.mark.parametrize("claim", ["H1", "H2"])
def test_h1_and_h2_draw_f_in_every_unit(claim):
    figure, checks = drawn(claim)
    ends = [y(figure.axes[2], line)[-1] for line in range(3)]
    assert ends == pytest.approx([checks[3].numbers["F"]] * 3, abs=1e-6)


@pytest.mark.parametrize("claim", ["H3", "H4", "H5"])
def test_h3_to_h5_draw_f_of_every_iteration(claim):
    figure, checks = drawn(claim)
    numbers = checks[0].numbers
    assert y(panel(figure, "F"), 0)[[0, -1]].tolist() == [numbers["first F"], numbers["last F"]]
    assert len(y(panel(figure, "F"), 1)) == numbers["iterations"]


def test_h6_draws_the_largest_difference():
    figure, checks = drawn("H6")
    for line, check in enumerate(checks):
        assert y(panel(figure, "differences"), line)[1:].max() == check.residual


def test_h7_draws_every_start():
    figure, checks = drawn("H7")
    *lines, returned = figure.axes[0].lines
    ends, markers = ([line.get_ydata()[-1] for line in lines[which::2]] for which in (0, 1))
    assert ends == list(checks[0].numbers.values())
    assert markers == pytest.approx(ends, rel=1e-10)
    assert returned.get_ydata()[0] == max(markers)
