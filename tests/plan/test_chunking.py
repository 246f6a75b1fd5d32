"""How rows are cut into blocks and chunks."""

import functools
import math

import numpy as np
import pytest

import probem
from probem import models
from probem.analysis.routes import make_plan
from probem.data.observations import Observations
from probem.e_step.passes import Pass
from probem.families.choice import choose_families
from probem.plan.plan import Plan
from probem.program.reading import read


@functools.cache
def _plan(num_components: int, dim: int) -> Plan:
    rows = np.random.default_rng(0).normal(size=(4, dim))
    reading = read(functools.partial(models.kmeans, num_components=num_components), (rows,))
    return make_plan(reading, choose_families(reading, probem.HARD_EM))


@pytest.mark.parametrize("num_components", [8, 16])
def test_blocks_in_place_have_little_padding_and_few_sizes(num_components: int) -> None:
    """Up to as many blocks as are taken at once, of any number of rows; four sizes an octave.

    A table of eight components in float64 has 2 MiB for 32768 rows.
    """
    plan = _plan(num_components, 2)
    most = plan.cut(10**9)
    assert most == (2**18 // num_components, 2**18 // num_components, 8)
    sizes = set()
    for num_rows in np.random.default_rng(1).integers(8193, 8 * most.block_rows, 500).tolist():
        size = plan.pass_block_rows(num_rows)
        sizes.add(size)
        padding = size * math.ceil(num_rows / size) - num_rows
        assert 0 <= padding <= num_rows / 4
        assert plan.cut(size) == most
        assert plan.chunk_rows(size) == size <= most.block_rows
    octaves = math.log2(most.block_rows / 8192)
    assert len(sizes) <= 4 * octaves + 1


def test_a_batch_that_is_gone_through_once_compiles_nothing_for_a_quarter_more_rows() -> None:
    plan = _plan(8, 2)
    rows = [Observations((np.zeros((num_rows, 2)),)) for num_rows in (9000, 11000, 31000)]
    assert {Pass.of(plan, batch, is_once=True).block_rows for batch in rows} == {32768}
    assert [Pass.of(plan, batch).block_rows for batch in rows] == [10240, 12288, 32768]


def test_other_blocks_have_one_size() -> None:
    """Few rows, whose chunks of padding are not gone through; many, in which padding is little; and a table that would
    not fit the cache, in chunks.
    """
    few, many, large = _plan(8, 2), _plan(8, 2), _plan(512, 2)
    assert {few.pass_block_rows(num_rows) for num_rows in (1, 5000, 8192)} == {8192}
    assert {many.pass_block_rows(num_rows) for num_rows in (8 * 32768 + 1, 10**7)} == {32768}
    assert {large.pass_block_rows(num_rows) for num_rows in (9000, 10**6)} == {large.cut(9000).block_rows}
