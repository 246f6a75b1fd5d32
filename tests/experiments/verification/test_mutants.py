"""The faults of the mutation run: each can still be planted, and what catches it is there; verdicts of the runner."""

import ast
from pathlib import Path

import pytest

from probem.experiments.claims.datasets import DATASETS
from probem.experiments.outcomes.all_claims import CLAIMS
from probem.experiments.verification import mutants
from probem.experiments.verification.faults import FAULTS, Fault
from probem.experiments.verification.mutants import Caught, Found, Verdict, of_report, planted

ROOT = Path(__file__).parents[3]
BY_ID = {claim.id: claim for claim in CLAIMS}


def test_there_are_enough_faults_by_different_names() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted_and_caught(fault: Fault) -> None:
    source = (ROOT / fault.file).read_text(encoding="utf-8")
    wrong = planted(fault, source)
    assert wrong != source
    ast.parse(wrong)
    path, _, function = fault.test.partition("::")
    assert f"\ndef {function.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8")
    # A claim, or the reason why there is none.
    assert (fault.claim is None) == bool(fault.unclaimed)
    if fault.claim is not None:
        claim = BY_ID[fault.claim[0]]
        assert fault.claim[1] in DATASETS
        assert claim.by_itself or claim.datasets is None or fault.claim[1] in claim.datasets


def test_what_stands_there_twice_or_not_at_all_is_refused() -> None:
    fault = Fault("a fault", "some.py", "x + 1", "x - 1", "tests/test_some.py::test_some")
    assert planted(fault, "y = x + 1\n") == "y = x - 1\n"
    for source in ("y = x + 2\n", "y = x + 1\nz = x + 1\n"):
        with pytest.raises(ValueError, match=r"'a fault': 'x \+ 1' occurs [02] times in some.py"):
            planted(fault, source)


def report(inside: str) -> str:
    return f'<testsuites><testsuite><testcase name="test_some">{inside}</testcase></testsuite></testsuites>'


@pytest.mark.parametrize(
    ("inside", "verdict"),
    [
        ("", Verdict.PASSES),
        ('<failure message="AssertionError: Not equal">E   AssertionError: Not equal</failure>', Verdict.FAILS),
        ('<failure message="assert 1 == 2">def test_some():\nE       assert 1 == 2</failure>', Verdict.FAILS),
        ('<failure message="probem.errors.FitError: no">E   probem.errors.FitError: no</failure>', Verdict.FAILS),
        ('<failure message="Failed: DID NOT RAISE">E   Failed: DID NOT RAISE</failure>', Verdict.FAILS),
        ('<failure message="NameError: name">E   NameError: name</failure>', Verdict.BROKEN),
        ('<failure message="IndexError: out">E   IndexError: out\nassert 1</failure>', Verdict.BROKEN),
        ('<error message="failed on setup">E   AssertionError</error>', Verdict.BROKEN),
        ('<skipped message="not today"/>', Verdict.BROKEN),
    ],
)
def test_a_test_fails_by_what_it_asserts(inside: str, verdict: Verdict) -> None:
    assert of_report(report(inside)).verdict is verdict


def test_no_test_is_no_verdict() -> None:
    assert of_report("<testsuites/>") == Found(Verdict.BROKEN, "no test was run")


def test_a_fault_survives_that_one_side_does_not_see(monkeypatch, capsys) -> None:
    seen, passed, not_run = Found(Verdict.FAILS), Found(Verdict.PASSES), Found(Verdict.NOT_RUN)
    fault = FAULTS[0]
    assert not Caught(fault, seen, seen).survives
    assert not Caught(fault, not_run, seen).survives
    assert Caught(fault, passed, seen).survives
    assert Caught(fault, not_run, Found(Verdict.BROKEN)).survives
    for caught, code in ((Caught(fault, seen, seen), 0), (Caught(fault, seen, passed), 1), ("without a fault, A1", 1)):
        monkeypatch.setattr(mutants, "run", lambda *given, caught=caught: iter([caught]))
        with pytest.raises(SystemExit) as end:
            mutants.main(["--only", fault.name])
        assert end.value.code == code
    assert f"{fault.name} | A1 on iris | yes" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no fault is named 'nothing of the kind'"):
        mutants.main(["--only", "nothing of the kind"])
