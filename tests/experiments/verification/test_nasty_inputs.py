"""The table of inputs that break a fit is what the experiment finds, and in it nothing of ours is wrong in silence."""

from pathlib import Path

import pytest

import probem.sklearn as ours
from probem.experiments.verification.nasty_inputs import cases, outcome

TABLE = Path(__file__).parents[3] / "experiments" / "verification" / "nasty_inputs.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TABLE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| estimator"))
]


def kind(cell: str) -> str:
    return cell.split("**")[1]


def test_the_table_has_every_case() -> None:
    assert [(row[0], row[1]) for row in ROWS] == [(case.estimator, case.name) for case in cases()]
    assert len(ROWS) >= 30


def test_no_outcome_of_ours_is_wrong_in_silence() -> None:
    assert {kind(row[3]) for row in ROWS} <= {"right", "warned", "refused"}
    # Theirs are, here and there, or there would be nothing to show.
    assert any(kind(row[2]) == "wrong" for row in ROWS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        ("KMeans", "more clusters than distinct rows"),
        ("GaussianMixture", "diag: 1e6 sds from the origin"),
        ("GaussianMixture", "diag: scale 1e-8"),
        ("GaussianMixture", "diag: 10 % missing"),
        ("GaussianMixture", "an outlier gets a component, reg_covar=0"),
        ("GaussianMixture", "an infinite value"),
    ],
)
def test_an_outcome_is_that_of_the_table(estimator: str, name: str) -> None:
    (case,) = (case for case in cases() if (case.estimator, case.name) == (estimator, name))
    (row,) = (row for row in ROWS if row[:2] == [estimator, name])
    assert outcome(ours, case).kind == kind(row[3])
