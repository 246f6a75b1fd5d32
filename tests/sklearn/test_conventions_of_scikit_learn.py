"""scikit-learn's own conformance suite, which every estimator passes with no expected failure."""

import functools

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from probem import models
from probem.sklearn import BayesianGaussianMixture, GaussianMixture, Imputer, KMeans, Mixture

PROGRAM = functools.partial(models.gmm, num_components=2, covariance=models.diagonal)
# The settings with which scikit-learn checks its own, but for n_init: more starts compile loops of their own.
ESTIMATORS = [
    KMeans(n_init=2, n_clusters=2, max_iter=5),
    GaussianMixture(max_iter=5),
    BayesianGaussianMixture(max_iter=5),
    Mixture(PROGRAM, added_variance=1e-6, max_iter=50),
    Imputer(Mixture(PROGRAM, added_variance=1e-6, max_iter=50)),
]


def name_of(check):
    """Of a check of scikit-learn, which may be bound to arguments."""
    return getattr(check, "func", check).__name__


# Named by hand: scikit-learn names a check by its estimator, and a program by where it lies in memory.
CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{number}-{name_of(check)}")
    for own in ESTIMATORS
    for number, (estimator, check) in enumerate(estimator_checks_generator(own))
]


QUICK = ("check_estimator_cloneable", "check_do_not_raise_errors_in_init_or_set_params", "check_estimators_unfitted")


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_the_checks_that_fit_nothing_pass(estimator):
    made = [check for _, check in estimator_checks_generator(estimator) if name_of(check) in QUICK]
    assert len(made) == len(QUICK)
    for check in made:
        check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_the_check_of_scikit_learn_passes(estimator, check):
    check(estimator)
