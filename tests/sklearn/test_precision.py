"""float64 rows in float64, float32 rows in float32, and the process as it was: in a process where x64 is off."""

import subprocess
import sys

import pytest

SCRIPT = """
import functools, pickle, warnings
import jax
import numpy as np
from probem import models
from probem.sklearn import BayesianGaussianMixture, GaussianMixture, KMeans, Mixture

warnings.simplefilter("error")
assert not jax.config.jax_enable_x64
generator = np.random.default_rng(0)
rows = generator.standard_normal((60, 2)) + 4 * generator.integers(0, 2, (60, 1))
rows += 1e6  # float32 would have a sixteenth left of it
for estimator in ESTIMATORS:
    found = estimator.fit(rows)
    centred = type(estimator)(**{**estimator.get_params()}).fit(rows - 1e6)
    np.testing.assert_array_equal(found.predict(rows), centred.predict(rows - 1e6))
    assert abs(found.score(rows) - centred.score(rows - 1e6)) < 1e-7 * abs(centred.score(rows - 1e6))
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict(rows), found.predict(rows))
    found.partial_fit(rows[:20])
    again.partial_fit(rows[:20])
    assert found.elbo_ == again.elbo_
    # Narrow rows are answered as precisely as the fit was.
    narrow = (rows - 1e6).astype(np.float32)
    np.testing.assert_array_equal(centred.predict(narrow), centred.predict(narrow.astype(float)))
    assert not jax.config.jax_enable_x64
    single = type(estimator)(**estimator.get_params()).fit(narrow)
    for fitted, dtype in ((centred, np.float64), (single, np.float32)):
        arrays = {
            name: value
            for name, value in vars(fitted).items()
            if name.endswith("_") and isinstance(value, np.ndarray) and value.dtype.kind == "f"
        } | getattr(fitted, "params_", {})
        assert arrays
        for name, value in arrays.items():
            assert value.dtype == dtype, (type(fitted).__name__, name, value.dtype)
        assert type(fitted)(**fitted.get_params()).fit(np.round(rows).astype(int)).score(rows) is not None
    for method in ("transform", "score_samples", "predict_proba"):
        if hasattr(single, method):
            assert getattr(single, method)(narrow).dtype == np.float32
    assert not jax.config.jax_enable_x64
print("done")
"""

GROUPS = {
    "k-means": "[KMeans(2, random_state=0)]",
    "EM": "[GaussianMixture(2, covariance_type=kind, random_state=0) for kind in ('full',)]",
    "variational Bayes": "[BayesianGaussianMixture(n_components=2, covariance_type=kind, random_state=0, max_iter=500)"
    " for kind in ('full',)]",
    "programs": "[Mixture(functools.partial(models.gmm, num_components=2, covariance=models.diagonal), random_state=0,"
    " tol=1e-5)]",
}


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_rows_are_fitted_in_their_own_precision(group):
    script = SCRIPT.replace("ESTIMATORS", GROUPS[group])
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "done", found.stderr[-3000:]
