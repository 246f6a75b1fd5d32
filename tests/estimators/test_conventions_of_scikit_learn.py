"""scikit-learn's own conformance suite, which every estimator passes with no expected failure."""

import functools

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from probem import models
from probem.sklearn import BayesianGaussianMixture, GaussianMixture, KMeans, Mixture

# The settings with which scikit-learn checks its own.
ESTIMATORS = [
    KMeans(n_init=2, n_clusters=2, max_iter=5),
    GaussianMixture(n_init=2, max_iter=5),
    BayesianGaussianMixture(n_init=2, max_iter=5),
    Mixture(
        functools.partial(models.gmm, num_components=2, covariance=models.diagonal),
        added_variance=1e-6,
        max_iter=50,
    ),
]


QUICK = ("check_estimator_cloneable", "check_do_not_raise_errors_in_init_or_set_params", "check_estimators_unfitted")


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_the_checks_that_fit_nothing_pass(estimator):
    made = [
        check for _, check in estimator_checks_generator(estimator) if getattr(check, "func", check).__name__ in QUICK
    ]
    assert len(made) == len(QUICK)
    for check in made:
        check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(ESTIMATORS)
def test_the_check_of_scikit_learn_passes(estimator, check):
    check(estimator)
