"""The work of a verification in several processes."""

import pickle

import pytest

from probem.experiments.claims.claim import Check, Claim
from probem.experiments.verification import verify
from probem.experiments.verification.all_claims import CLAIMS
from probem.experiments.verification.record import VerifySettings


def good(dataset, seed):
    yield Check("Z1", dataset.name, "counts", 0.0, 0.0)


def test_claims_travel_between_processes():
    assert pickle.loads(pickle.dumps(CLAIMS)) == CLAIMS


@pytest.mark.slow
def test_several_processes_find_what_one_finds():
    def plain(found):
        return [(o.claim.id, o.dataset, o.error, [(c.compared, c.residual) for c in o.checks]) for o in found.outcomes]

    chosen = VerifySettings(claims=["B1", "B2"], data=["blobs", "one_dimensional"], seed=7)
    alone, together = (verify.run(CLAIMS, chosen, lambda step: None, number) for number in (1, 2))
    assert plain(together) == plain(alone)
    assert together.drawings.keys() == alone.drawings.keys()


@pytest.mark.slow
def test_a_process_that_dies_is_a_failure_by_name():
    # No such claim in the other processes: they end on the first task.
    unknown = VerifySettings(claims=["A"], data=["blobs", "one_dimensional"], seed=7).model_copy(
        update={"claims": ["Z"]}
    )
    found = verify.run([Claim("Z1", "Title", "In words.", "x = y", "lecture", good)], unknown, lambda step: None, 2)
    assert [o.error for o in found.outcomes] == ["the process that had it in hand ended before it did"] * 2
