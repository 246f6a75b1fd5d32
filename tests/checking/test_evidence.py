"""The exact evidence by enumeration, against closed forms, and what it refuses."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.checking import evidence
from probem.experiments.oracles import evidence as closed_forms
from probem.models import GaussianPrior, bayesian_gmm, kmeans
from tests.programs.bayesian import EXAMPLES, MIXED, NORMAL, log_prior_of_labels, mixture, sticks, write
from tests.programs.counted import COMPILATIONS

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

FEW = 6


def exact(name, weights, num_components):
    example = EXAMPLES[name]
    rows = example.rows[:FEW]
    return closed_forms.log_evidence(
        rows,
        num_components,
        lambda labels: log_prior_of_labels(labels, num_components, weights),
        lambda rows, labels: example.log_marginal(rows, labels, num_components),
    )


#: All but that of the test in which the process is set to float32.
NAMES = [name for name, example in EXAMPLES.items() if example.log_marginal and name != "full"]


@pytest.mark.parametrize(
    "name", [name if name == "diagonal" else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_the_evidence_of_every_conjugate_example(name):
    """Closed-form marginal likelihoods of SciPy, labelling by labelling."""
    value = probem.evidence(mixture(name), EXAMPLES[name].rows[:FEW])
    # Some hundred special functions, each of sixteen digits.
    assert value == pytest.approx(exact(name, None, 2), rel=1e-11)


def test_labellings_in_batches_that_are_not_all_full(monkeypatch):
    """64 of them in tens: six places of seven times ten are none."""
    monkeypatch.setattr(evidence, "_AT_ONCE", 10)
    value = probem.evidence(mixture("diagonal"), EXAMPLES["diagonal"].rows[:FEW])
    assert value == pytest.approx(exact("diagonal", None, 2), rel=1e-11)


def test_sticks_are_not_exchangeable():
    rows = EXAMPLES["diagonal"].rows[:5]
    value = probem.evidence(mixture("diagonal", 3, sticks), rows)
    expected = closed_forms.log_evidence(
        rows,
        3,
        lambda labels: log_prior_of_labels(labels, 3, sticks),
        lambda rows, labels: EXAMPLES["diagonal"].log_marginal(rows, labels, 3),
    )
    assert value == pytest.approx(expected, rel=1e-11)


def test_several_assignments_are_enumerated_jointly():
    def crossed(x):
        a = numpyro.sample("a", dist.Dirichlet(jnp.full(2, 2.0)))
        b = numpyro.sample("b", dist.Dirichlet(jnp.full(2, 3.0)))
        loc = numpyro.sample("loc", dist.Normal(0.0, 2.0).expand([2, 2]).to_event(2))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(a))
            z = numpyro.sample("z", dist.Categorical(b))
            numpyro.sample("x", dist.Normal(loc[t, z], 0.7), obs=x)

    x = np.array([-1.0, 0.3, 1.2, 0.1])
    prior = closed_forms.NormalKnownVariance(np.zeros(1), 2.0, 0.7)
    total = -np.inf
    for joint in np.ndindex(*(4,) * len(x)):
        t, z = np.divmod(joint, 2)
        of_labels = closed_forms.dirichlet_log_prob(t, np.full(2, 2.0))
        of_labels += closed_forms.dirichlet_log_prob(z, np.full(2, 3.0))
        parts = [prior.log_marginal(x[np.equal(joint, k)][:, None]) for k in set(joint)]
        total = np.logaddexp(total, of_labels + sum(parts))
    assert probem.evidence(crossed, x) == pytest.approx(total, rel=1e-11)


def test_in_float64_whatever_the_process_is_set_to():
    numpyro.enable_x64(False)
    try:
        value = probem.evidence(mixture("full"), EXAMPLES["full"].rows[:FEW])
    finally:
        numpyro.enable_x64(True)
    assert value == pytest.approx(exact("full", None, 2), rel=1e-11)


def test_other_numbers_of_a_prior_compile_nothing():
    def value(strength):
        prior = GaussianPrior(np.zeros(2), strength, 4.0, np.eye(2))
        return probem.evidence(functools.partial(bayesian_gmm, num_components=2, prior=prior), NORMAL[:4])

    value(0.5)
    COMPILATIONS.clear()
    assert value(0.6) != value(0.7)
    assert len(COMPILATIONS) == 0


def test_more_labellings_than_can_be_enumerated_are_refused_with_their_number():
    program = functools.partial(bayesian_gmm, num_components=3, prior=GaussianPrior(np.zeros(2), 1.0, 4.0, np.eye(2)))
    with pytest.raises(
        probem.InputError, match=r"272 rows with 3 components, which have 3\^272, some 10\^130, lab.*12 row"
    ):
        probem.evidence(program, np.resize(NORMAL, (272, 2)))


def test_what_has_no_closed_form_is_refused():
    with pytest.raises(probem.InputError, match="no site outside the data plate has a prior"):
        probem.evidence(functools.partial(kmeans, num_components=2), NORMAL[:4])
    half, _ = MIXED["param covariance"]
    with pytest.raises(probem.InputError, match="parameter 'covariance' without a prior"):
        probem.evidence(half, NORMAL[:4])
    hierarchical, _ = MIXED["hierarchical"]
    with pytest.raises(probem.InputError, match=r"'rate' .*whose posterior given the assignments is not the product"):
        probem.evidence(hierarchical, NORMAL[:4])


def test_a_location_that_depends_on_another_is_refused():
    """Its posterior given the assignments is no product, although every update has a closed form."""

    def offsets(num_components):
        shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
        loc = numpyro.sample("loc", dist.Normal(shift, 1.0).expand([num_components, 2]).to_event(2))
        return lambda t: dist.Normal(loc[t], 0.5).to_event(1)

    with pytest.raises(probem.InputError, match="posterior given the assignments is not the product"):
        probem.evidence(write(offsets, lambda k: jnp.full(k, 1 / k), 2), NORMAL[:4])


def test_missing_values_are_refused():
    rows = NORMAL[:4].copy()
    rows[0, 0] = np.nan
    with pytest.raises(probem.InputError, match="got missing values"):
        probem.evidence(mixture("full"), rows)


def test_categories_in_floats_and_a_component_for_every_row():
    def answers(y):
        with numpyro.plate("components", 2):
            p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.array([0.3, 0.7])))
            numpyro.sample("y", dist.Categorical(p[t]), obs=y)

    # Together: 1/3 and 1/4 for two different categories in turn; apart: 1/3 each.
    together, apart = 0.3**2 + 0.7**2, 2 * 0.3 * 0.7
    expected = np.log(together / 12 + apart / 9)
    assert probem.evidence(answers, np.array([0.0, 2.0])) == pytest.approx(expected, rel=1e-12)
