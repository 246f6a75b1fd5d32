"""The data sets of the claims."""

import numpy as np
import pytest

from probem.errors import InputError
from probem.experiments.claims.datasets import DATASETS, load

SHAPES = {
    "iris": (150, 4),
    "wine": (178, 13),
    "digits": (1797, 64),
    "old_faithful": (272, 2),
    "blobs": (400, 2),
    "overlapping": (600, 2),
    "one_dimensional": (300, 1),
}


def test_every_data_set_has_a_shape_here():
    assert set(SHAPES) == set(DATASETS)


@pytest.mark.parametrize("name", SHAPES)
def test_loads(name):
    dataset = load(name)
    assert dataset.name == name
    assert dataset.rows.shape == SHAPES[name]
    assert dataset.rows.dtype == np.float64
    assert np.isfinite(dataset.rows).all()
    assert len(dataset.columns) == dataset.rows.shape[1]
    np.testing.assert_array_equal(load(name).rows, dataset.rows)


def test_wine_is_standardised_and_digits_are_not():
    wine = load("wine").rows
    np.testing.assert_allclose(wine.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(wine.std(axis=0), 1, rtol=1e-12)
    assert set(np.unique(load("digits").rows)) == set(range(17))


def test_old_faithful_holds_the_published_means():
    # As `summary(faithful)` in R prints them: 3.488 minutes on average, 70.90 minutes apart.
    np.testing.assert_allclose(load("old_faithful").rows.mean(axis=0), [3.488, 70.90], atol=5e-3)


def test_unknown_data_set():
    with pytest.raises(InputError, match=r"got the data set 'irs'; expected one of iris, .*; did you mean 'iris'"):
        load("irs")
