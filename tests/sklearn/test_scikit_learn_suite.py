"""scikit-learn's own tests, with the classes of probem in the place of theirs; ``scikit_learn_suite`` runs all."""

import pytest

from tests.sklearn.scikit_learn_suite import run, surprises

# Few fits, of behaviour that is named nowhere else, and of each reason for which a test is expected to fail.
TESTS = (
    "test_k_means::test_kmeans_results[float64-lloyd-dense]",
    "test_k_means::test_kmeans_results[float64-lloyd-sparse_array]",
    "test_k_means::test_kmeans_relocated_clusters[lloyd-dense]",
    "test_k_means::test_kmeans_verbose[0.01-lloyd]",
    "test_k_means::test_kmeans_verbose[0-lloyd]",
    "test_k_means::test_kmeans_warns_less_centers_than_unique_points",
    "test_k_means::test_warning_elkan_1_cluster",
    "test_k_means::test_wrong_params",
    "test_k_means::test_relocating_with_duplicates[lloyd-dense]",
    "test_k_means::test_sample_weight_init",
    "test_gaussian_mixture::test_check_weights",
    "test_gaussian_mixture::test_gaussian_mixture_setting_best_params",
    "test_gaussian_mixture::test_max_iter_zero",
    "test_bayesian_mixture::test_bayesian_mixture_check_is_fitted",
    "test_bayesian_mixture::test_bayesian_mixture_weights",
    "test_bayesian_mixture::test_compare_covar_type",
)


@pytest.mark.slow
def test_scikit_learns_own_tests_end_as_expected():
    outcomes = run(tests=TESTS)
    names = {name for full in outcomes for name in (full, full.partition("[")[0])}
    assert set(TESTS) <= names
    assert surprises(outcomes) == {"failed": [], "passed": []}


def test_an_end_that_was_not_expected_is_a_surprise():
    outcomes = {
        "test_k_means::test_n_init_auto[KMeans-10]": "failed",
        "test_k_means::test_n_init_auto[MiniBatchKMeans-3]": "passed",
        "test_gaussian_mixture::test_check_means": "passed",
        "test_gaussian_mixture::test_multiple_init": "failed",
        "test_gaussian_mixture::test_init": "failed",
    }
    assert surprises(outcomes) == {
        "failed": ["test_gaussian_mixture::test_init"],
        "passed": ["test_gaussian_mixture::test_check_means"],
    }
    assert surprises(outcomes | {"test_gaussian_mixture::test_multiple_init": "passed"})["passed"] == [
        "test_gaussian_mixture::test_check_means"
    ]
