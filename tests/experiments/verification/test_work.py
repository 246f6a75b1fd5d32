"""The work of a verification in several processes: what they find, and what becomes of those that die or hang."""

import multiprocessing
import os
import pickle
import time

import pytest

from probem.experiments.claims.claim import Check, Claim
from probem.experiments.outcomes.all_claims import CLAIMS
from probem.experiments.outcomes.record import Task, VerifySettings
from probem.experiments.verification import verify
from probem.experiments.verification.work import side_by_side

LOST = "the process that had it in hand ended before it did"


def claim(name, check, **rest):
    return Claim(name, f"Title of {name}", "In words.", "x = y", "lecture", check, **rest)


def settings(*claims, data=("blobs", "one_dimensional")):
    return VerifySettings(claims=list(claims), data=list(data), seed=7)


def numbered(dataset, seed):
    yield Check("A1", dataset.name, "the process", 0.0, 0.0, {"process": os.getpid()})


def dying(dataset, seed):
    if dataset.name == "blobs":
        os._exit(1)
    return numbered(dataset, seed)


def leaving(dataset, seed):
    raise SystemExit("enough")
    yield


def hanging(dataset, seed):
    time.sleep(600)
    yield


def test_claims_travel_between_processes():
    assert pickle.loads(pickle.dumps(CLAIMS)) == CLAIMS


@pytest.mark.slow
def test_several_processes_find_what_one_finds():
    def plain(found):
        return [(o.claim.id, o.dataset, o.error, [(c.compared, c.residual) for c in o.checks]) for o in found.outcomes]

    chosen = settings("B1", "B2")
    alone, together = (verify.run(CLAIMS, chosen, lambda step: None, number) for number in (1, 2))
    assert plain(together) == plain(alone)
    assert together.drawings.keys() == alone.drawings.keys()


@pytest.mark.slow
def test_a_process_that_dies_is_a_failure_by_name_and_the_others_go_on():
    # Of the data of two columns the second claim ends its process, and so does its figure.
    claims = [claim("A1", numbered), claim("A2", dying, figure=dying, figure_dataset="blobs"), claim("A3", numbered)]
    found = verify.run([*claims, claim("B1", leaving)], settings("A", "B1"), lambda step: None, 2)
    assert {(o.claim.id, o.dataset): o.error for o in found.outcomes} == {
        ("A1", "blobs"): None,
        ("A1", "one_dimensional"): None,
        ("A2", "blobs"): LOST,
        ("A2", "one_dimensional"): None,
        ("A3", "blobs"): None,
        ("A3", "one_dimensional"): None,
        ("B1", "blobs"): "SystemExit: enough",
        ("B1", "one_dimensional"): "SystemExit: enough",
    }
    assert found.remarks == (f"The figure of A2 could not be drawn: {LOST}.",)
    unit = [o.checks[0].numbers["process"] for o in found.outcomes if o.dataset == "one_dimensional" and o.checks]
    assert len(unit) == 3
    assert len(set(unit)) == 1


@pytest.mark.slow
def test_processes_end_when_nobody_waits_for_them():
    claims = {"A1": claim("A1", numbered), "A2": claim("A2", hanging)}
    tasks = [Task("A2", "blobs"), Task("A1", "blobs"), Task("A1", "one_dimensional")]
    results = side_by_side(claims, [tasks[:1], tasks[1:]], 7, 2)
    assert [next(results)[0], next(results)[0]] == tasks[1:]
    clock = time.monotonic()
    results.close()
    assert time.monotonic() - clock < 10
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_processes_that_are_done_end_by_themselves():
    """One that is ended from outside leaves semaphores behind, of which Python warns on the terminal."""
    tasks = [Task("A1", "blobs"), Task("A1", "one_dimensional")]
    results = side_by_side({"A1": claim("A1", numbered)}, [tasks[:1], tasks[1:]], 7, 2)
    earlier = set(multiprocessing.active_children())
    next(results)
    children = set(multiprocessing.active_children()) - earlier
    assert children
    list(results)
    assert {child.exitcode for child in children} == {0}
