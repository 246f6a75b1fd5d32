"""BayesianGaussianMixture and scikit-learn's from the same start."""

import numpy as np
import pytest
import sklearn.mixture

from probem.sklearn import BayesianGaussianMixture
from tests.sklearn.data import SETS, count_of, residual
from tests.sklearn.equality import TOLERANCE, centred, compare, fitted, responsibilities


class FromResponsibilities(sklearn.mixture.BayesianGaussianMixture):
    """scikit-learn's, from given responsibilities."""

    def _initialize_parameters(self, X, random_state, xp=None):
        self._initialize(X, self.init_params)


BAYESIAN = [pytest.param(name, marks=pytest.mark.slow) for name in SETS]


@pytest.mark.parametrize("name", BAYESIAN)
def test_variational_bayes_is_that_of_scikit_learn_where_it_is_exact(name, record_property, monkeypatch):
    # Its check would refuse an array as init_params.
    monkeypatch.setitem(sklearn.mixture.BayesianGaussianMixture._parameter_constraints, "init_params", "no_validation")
    rows, their_rows, origin = centred(name)
    settings = {
        "n_components": count_of(name),
        "weight_concentration_prior_type": "dirichlet_distribution",
        "init_params": responsibilities(name),
    }
    # scikit-learn counts reg_covar into its bound, which is no bound then, so the number of iterations is given.
    ours = fitted(BayesianGaussianMixture(tol=0.0, max_iter=30, **settings), rows)
    theirs = fitted(FromResponsibilities(tol=0.0, max_iter=30, **settings), their_rows)
    compare(ours, theirs, rows, their_rows, origin, record_property)
    for attribute in (
        "weight_concentration_",
        "mean_precision_",
        "degrees_of_freedom_",
        "mean_precision_prior_",
        "weight_concentration_prior_",
        "degrees_of_freedom_prior_",
        "covariance_prior_",
    ):
        assert residual(getattr(ours, attribute), getattr(theirs, attribute)) <= TOLERANCE, attribute
    assert residual(ours.mean_prior_ - origin, theirs.mean_prior_) <= TOLERANCE
    # Without it the two stop together; theirs leaves out what is the same in every iteration.
    ours = fitted(BayesianGaussianMixture(reg_covar=0.0, max_iter=200, **settings), rows)
    theirs = fitted(FromResponsibilities(reg_covar=0.0, max_iter=200, **settings), their_rows)
    compare(ours, theirs, rows, their_rows, origin, record_property)
    changes, others = np.diff(ours.lower_bounds_), np.diff(theirs.lower_bounds_)
    assert np.abs(changes - others).max(initial=0.0) <= TOLERANCE * abs(ours.elbo_)
    assert ours.elbo_ >= ours.lower_bound_ - 1e-9 * abs(ours.elbo_)
