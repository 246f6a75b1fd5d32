"""Which programs are tried, and grids that are none."""

import functools

import numpy as np
import pytest

import probem
from probem.models import full, gmm
from probem.selection.candidates import programs_of, shown
from tests.programs.fits import X


@pytest.mark.parametrize(
    ("over", "match"),
    [
        (None, r"nothing to choose over; expected keyword arguments .*range\(1, 7\)"),
        ({}, "nothing to choose over"),
        ([1, 2], "over of type list"),
        ({"num_component": [1]}, r"over\['num_component'\]; .* did you mean 'num_components'"),
        ({"x": [1]}, r"over\['x'\], a data argument of the program"),
        ({"num_components": []}, r"over\['num_components'\] without a value"),
        ({"num_components": 3}, r"over\['num_components'\]=3; expected a list of the values to try; write \[3\]"),
        ({"covariance": full}, r"over\['covariance'\]=full; expected a list"),
        ({"weights": "free"}, r"over\['weights'\]=free; expected a list"),
        ({"num_components": [1, 2, 1]}, r"1 twice in over\['num_components'\]; expected every candidate once"),
        ({"covariance": [full, full]}, r"full twice in over\['covariance'\]"),
    ],
)
def test_what_is_no_grid(over, match) -> None:
    with pytest.raises(probem.InputError, match=match):
        probem.select(gmm, X, over=over)


def test_the_grid_takes_what_python_takes() -> None:
    def any_keyword(x, **options):
        return options

    found = programs_of(any_keyword, {"a": np.array([1, 2]), "b": iter("xy")}, 1)
    assert [settings for settings, _ in found] == [{"a": a, "b": b} for a in (1, 2) for b in "xy"]
    assert found[2][1](None) == {"a": 2, "b": "x"}
    # What partial has bound may be tried otherwise.
    ((_, rebound),) = programs_of(functools.partial(gmm, num_components=2), {"num_components": [3]}, 1)
    assert rebound.keywords["num_components"] == 3
    assert shown(functools.partial(gmm, num_components=2)) == "gmm(num_components=2)"
    assert shown(np.zeros((2, 3))) == "array[2, 3]"
    assert shown("a" * 60) == "a" * 60
    assert len(shown(list(range(100)))) == 40
