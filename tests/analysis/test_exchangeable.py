"""Components are exchangeable where a permutation of parameters is one of components."""

import numpy as np
import pytest

from probem.analysis.exchangeable import is_exchangeable
from probem.data.checks import check_data
from probem.data.observations import split_gaps
from probem.program.reading import read
from tests.programs.fits import PROGRAM, X
from tests.programs.unequal import noise_and_signals, topics


@pytest.mark.slow
def test_components_are_exchangeable_where_a_permutation_of_parameters_is_one_of_components() -> None:
    plain = read(PROGRAM, split_gaps(check_data((X,))).data)
    assert is_exchangeable(plain)
    mask = np.array([[True, True], [False, False]])
    assert not is_exchangeable(plain, (("loc", mask.tobytes()),))
    assert not is_exchangeable(read(noise_and_signals, (np.zeros(3),)))
    # Weights with the components last, beside probabilities with the components first.
    assert is_exchangeable(read(topics, (np.zeros(3, int), np.zeros(3, int))))
