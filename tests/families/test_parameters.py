"""Families of sites with a prior: what they may be made of."""

from typing import Any

import pytest

import probem


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 1}, r"Gaussian\(nodes=1\); expected a whole number from 2 to 128"),
        ({"nodes": 200}, r"Gaussian\(nodes=200\); expected"),
        ({"nodes": True}, r"Gaussian\(nodes=True\); expected"),
        ({"draws": 100}, r"Gaussian\(draws=100\); expected a power of two from 64"),
        ({"draws": 32}, r"Gaussian\(draws=32\); expected a power of two from 64"),
    ],
)
def test_nodes_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(probem.InputError, match=message):
        probem.Gaussian(**options)


def test_a_family_says_what_differs_from_the_default() -> None:
    assert repr(probem.Gaussian()) == "Gaussian()"
    assert repr(probem.Gaussian(draws=1024)) == "Gaussian(draws=1024)"
    assert probem.Gaussian(32) == probem.Gaussian()
