"""Work in several processes: what each returns, and what becomes of those that die."""

import multiprocessing
import os
from concurrent.futures.process import BrokenProcessPool

import pytest

from probem.runs.processes import side_by_side


def nothing():
    pass


def dies():
    os._exit(1)


def halved(number):
    if number < 0:
        os._exit(1)
    return number // 2, os.getpid()


def results(*units, between=None):
    """By piece what it returned, or None where its process died."""
    ended = {}
    for piece, future in side_by_side(halved, units, 2, nothing, between):
        died = isinstance(future.exception(), BrokenProcessPool)
        ended[piece] = None if died else future.result()
    return ended


def test_pieces_of_a_unit_share_a_process():
    ended = results([2, 4], [6])
    assert {piece: half for piece, (half, _) in ended.items()} == {2: 1, 4: 2, 6: 3}
    assert ended[2][1] == ended[4][1] != ended[6][1]
    assert multiprocessing.active_children() == []


def test_the_rest_of_a_unit_goes_on_after_a_death():
    ended = results([2, -1, 4], [6])
    assert {piece: half and half[0] for piece, half in ended.items()} == {2: 1, -1: None, 4: 2, 6: 3}
    assert ended[4][1] != ended[2][1]


@pytest.mark.parametrize("units", [([2], [4], [6], [8]), ([2, 4], [6, 8], [10])])
def test_a_process_that_dies_with_nothing_in_hand(units):
    """It is seen when the next piece is submitted, or when that ends; neither may end the others."""
    ended = results(*units, between=dies)
    assert ended.keys() == {piece for unit in units for piece in unit}
    assert all(half is None or half[0] == piece // 2 for piece, half in ended.items())
    assert ended[units[0][0]] is not None
