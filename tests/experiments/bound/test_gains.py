"""Claim G1, and a fault that it sees."""

import functools

import pytest

from probem.experiments.bound import gains
from probem.experiments.claims.datasets import load
from probem.jit import compilation


@functools.cache
def checks(seed):
    return tuple(gains.gains(load("overlapping"), seed))


@pytest.mark.slow
def test_it_holds_for_every_family():
    found = checks(3)
    assert len(found) == 8
    assert [check.compared for check in found if not check.holds] == []


@pytest.mark.slow
def test_an_m_step_that_falls_short_gains_something_else(monkeypatch):
    from probem.m_step import maximise

    def short(mean_field, links, statistics, params, fixed):
        new = original(mean_field, links, statistics, params, fixed)
        return {**new, "loc": new["loc"] + 0.01 * (params["loc"] - new["loc"])} if "loc" in new else new

    original = maximise.closed_updates
    gains.compared.cache_clear()
    compilation._of_plans.clear()
    monkeypatch.setattr(maximise, "closed_updates", short)
    failing = next(check for check in gains.gains(load("overlapping"), 3) if "every M half-step" in check.compared)
    assert not failing.holds
    gains.compared.cache_clear()
    compilation._of_plans.clear()
