"""What is formed of sparse rows, entry by entry beside NumPy."""

import functools

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

import probem
from probem.analysis.options import FitOptions
from probem.analysis.problem import parse
from probem.e_step.nonzeros import differ_from_means
from probem.e_step.passes import Pass
from probem.models import kmeans


def test_rows_that_are_the_mean_of_their_component_are_told_from_others():
    random = np.random.default_rng(0)
    x = np.where(random.random((40, 12)) < 0.4, random.normal(size=(40, 12)), 0.0)
    program = functools.partial(kmeans, num_components=3)
    problem = parse(program, (sp.csr_array(x),), FitOptions(families=probem.HARD_EM))
    (block,) = Pass.of(problem.plan, problem.rows).blocks
    # A row; a row but for an entry where the row is zero; and one but for a rounding.
    means = np.stack([x[4], x[5], x[6] * (1 + 1e-15)])
    means[1, np.flatnonzero(x[5] == 0)[0]] = 1e-3
    labels = random.integers(0, 3, 40)
    labels[[4, 5, 6]] = 0, 1, 2
    expected = (abs(x - means[labels]) > 1e-13 * (abs(x) + abs(means[labels]))).any(1)
    assert np.flatnonzero(~expected).tolist() == [4, 6]
    padded = jnp.zeros(block.size, jnp.int32).at[:40].set(labels.astype(np.int32))
    differ = differ_from_means(problem.plan, jnp.asarray(means), padded, block, 1e-13)
    np.testing.assert_array_equal(differ[:40], expected)
