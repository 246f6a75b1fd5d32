"""Plans of the Bayesian examples, each made once."""

import functools
from typing import Any

import pytest

import probem
from probem.analysis.routes import make_plan
from probem.families.choice import choose_families
from probem.plan.plan import Plan
from probem.program.reading import read
from tests.programs.bayesian import (
    EXAMPLES,
    MIXED,
    NORMAL,
    mixture,
)

VB = probem.VARIATIONAL_BAYES
slow = pytest.mark.slow


def some_slow(names: Any, quick: tuple[str, ...] = ()) -> Any:
    return pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in quick else slow) for name in names])


@functools.cache
def plan_of(name: str) -> Plan:
    program, families = MIXED[name] if name in MIXED else (mixture(name), VB)
    known = read(program, (NORMAL if name in MIXED else EXAMPLES[name].rows,))
    return make_plan(known, choose_families(known, families))
