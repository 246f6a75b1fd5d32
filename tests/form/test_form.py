"""The exponential-family path makes the table and F that the generic one makes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import probem
from probem.e_step.evaluation import impossible, log_joints
from probem.form.building import exponential_form
from probem.program.reading import read
from tests.oracles import plain
from tests.programs.examples import EXAMPLES


def _fast(program, data, params, q):
    """Table, sums of the statistics and base measure by the exponential-family path, the rest by the generic one."""
    known = read(program, data)
    sorted_form = exponential_form(known)

    def evaluate(params, data, q):
        shifts = {
            term.site: jnp.full((term.copies, *term.event_shape), 0.3 if term.view.is_location else 0.0)
            for term in sorted_form.data_terms
        }
        phi = sorted_form.features(data, shifts)
        natural = sorted_form.natural(params, shifts)
        base = sorted_form.log_base_measure(data).sum(1)
        table = log_joints(phi, natural.weight, natural.offset) + natural.level + base[:, None]
        if sorted_form.generic:
            table = table + known.table(known.enumerated_trace(params, data), sorted_form.generic)
        sums = q.T @ phi
        bound = jnp.where(sums == 0, 0.0, natural.weight * sums).sum() + (natural.offset + natural.level) @ q.sum(0)
        table = jnp.where(table <= -impossible(table.dtype), -jnp.inf, table)
        return table, bound + sorted_form.log_base_measure(data).sum()

    return sorted_form, jax.jit(evaluate)(params, data, q)


# Which observed sites have an exponential-family form in each example.
WITH_FORM = {
    "masked and scaled": set(),
    "priors": {"x"},
    "regressions": {"y"},
    "nested": {"x"},
    "feature plate": {"x"},
    "categories and Gaussian": {"colour", "place"},
    "boxed": {"x"},
    "zero-inflated": {"x"},
    "directions": {"length"},
    "factor analysers": {"x"},
    "Student-t": set(),
    "experts": {"x"},
    "penalised": {"x"},
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_both_paths_make_the_same_table(name: str) -> None:
    example = EXAMPLES[name]
    expected = example.table()
    q = plain.posterior(expected)
    sorted_form, (table, bound) = _fast(example.program, example.data, example.params, q)
    assert {term.site for term in sorted_form.data_terms} == WITH_FORM[name]
    np.testing.assert_allclose(table, expected, rtol=1e-10, atol=1e-10)
    if not sorted_form.generic:
        np.testing.assert_allclose(bound, (q * np.where(q > 0, expected, 0)).sum(), rtol=1e-10)


def _fixed(distribution, assigned, num_components):
    """A program without parameters: the arguments of every component are constants."""

    def program(x):
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.full(num_components, 1 / num_components)))
            numpyro.sample("x", distribution(*(value[t] for value in assigned)), obs=x)

    return program


_random = np.random.default_rng(3)
_loc = _random.normal(size=(3, 2))
_factor = np.tril(_random.normal(size=(3, 2, 2)), -1) + np.eye(2) * _random.gamma(3.0, size=(3, 1, 2))
_covariance = _factor @ _factor.swapaxes(1, 2)
_positive = _random.gamma(3.0, size=(3, 2))
_probs = _random.dirichlet(np.ones(4), size=3)
_real = _random.normal(size=(40, 2))
_amounts = _random.gamma(2.0, size=(40, 2))
_counts = _random.poisson(3.0, size=(40, 2))
_bits = _random.integers(0, 2, size=(40, 2))
_letters = _random.integers(0, 4, size=40)

DISTRIBUTIONS = {
    "normal": (lambda m, s: dist.Normal(m, s).to_event(1), (_loc, _positive), _real),
    "normal, one scale": (lambda m: dist.Normal(m, 1.3).to_event(1), (_loc,), _real),
    "covariance": (lambda m, s: dist.MultivariateNormal(m, covariance_matrix=s), (_loc, _covariance), _real),
    "precision": (lambda m, s: dist.MultivariateNormal(m, precision_matrix=s), (_loc, _covariance), _real),
    "tril": (lambda m, s: dist.MultivariateNormal(m, scale_tril=s), (_loc, _factor), _real),
    "tied": (lambda m: dist.MultivariateNormal(m, covariance_matrix=jnp.asarray(_covariance[0])), (_loc,), _real),
    "shared mean": (lambda s: dist.MultivariateNormal(jnp.zeros(2), covariance_matrix=s), (_covariance,), _real),
    "categorical probs": (lambda p: dist.Categorical(probs=p), (_probs,), _letters),
    "categorical logits": (lambda p: dist.Categorical(logits=p), (np.log(_probs) + 1.0,), _letters),
    "bernoulli probs": (lambda p: dist.Bernoulli(probs=p).to_event(1), (_probs[:, :2],), _bits),
    "bernoulli logits": (lambda p: dist.Bernoulli(logits=p).to_event(1), (_loc,), _bits),
    "poisson": (lambda r: dist.Poisson(r).to_event(1), (_positive,), _counts),
    "poisson with a rate of zero": (lambda r: dist.Poisson(r).to_event(1), (_positive * [[1], [0], [1]],), _counts),
    "exponential": (lambda r: dist.Exponential(r).to_event(1), (_positive,), _amounts),
    "gamma": (lambda a, b: dist.Gamma(a, b).to_event(1), (_positive, _positive[::-1]), _amounts),
    "expanded": (lambda m: dist.Normal(m[..., None], 1.0).expand((*m.shape, 2)).to_event(1), (_loc[:, 0],), _real),
}


# Every view is held to its own conformance suite; here are those that differ in how they meet a program.
_IN_SHORT = {"tied", "poisson with a rate of zero", "expanded"}


@pytest.mark.parametrize("num_components", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [name if name in _IN_SHORT else pytest.param(name, marks=pytest.mark.slow) for name in DISTRIBUTIONS]
)
def test_every_view_makes_the_table_of_its_distribution(name: str, num_components: int) -> None:
    """The oracle is NumPyro's own log_prob of each component, one at a time."""
    distribution, arguments, x = DISTRIBUTIONS[name]
    arguments = tuple(jnp.asarray(value[:num_components]) for value in arguments)
    program = _fixed(distribution, arguments, num_components)
    q = _random.dirichlet(np.ones(num_components), size=40)

    @jax.jit
    def by_hand(x):
        own = [distribution(*(value[k] for value in arguments)).log_prob(x) for k in range(num_components)]
        return jnp.stack(own, 1) - np.log(num_components)

    sorted_form, (table, bound) = _fast(program, (x,), {}, q)
    assert not sorted_form.generic
    expected = np.asarray(by_hand(x))
    np.testing.assert_allclose(table, expected, rtol=1e-10, atol=1e-10)
    if np.isfinite(expected).all():
        np.testing.assert_allclose(bound, (q * expected).sum(), rtol=1e-10)


@pytest.mark.slow
def test_columns_that_components_share_are_not_formed() -> None:
    """Tied or fixed covariance: x alone varies; a covariance of each component needs the products too."""

    def varying(name: str, num_components: int) -> int:
        distribution, arguments, x = DISTRIBUTIONS[name]
        program = _fixed(distribution, tuple(map(jnp.asarray, arguments)), num_components)
        return int(exponential_form(read(program, (x,))).varying.sum())

    assert varying("tied", 3) == varying("normal, one scale", 3) == 2
    assert varying("covariance", 3) == 5
    assert varying("covariance", 1) == 0


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_what_is_impossible_under_one_component_differs_between_them(first):
    """A rate of zero has an infinite natural parameter: a column was left out where it was that of the last component,
    and every row had the shares for its responsibilities.
    """

    def inflated(x):
        rate = numpyro.param("rate", 2.0, constraint=dist.constraints.positive)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("x", dist.Poisson(jnp.array([0.0, rate] if first else [rate, 0.0])[t]), obs=x)

    counts = np.array([0, 0, 3, 1, 0, 4])
    fit = probem.fit(inflated, counts)
    rate = float(fit.params["rate"])
    poisson = stats.poisson.pmf(counts, rate)
    assert fit.elbo == pytest.approx(np.log(0.5 * (counts == 0) + 0.5 * poisson).sum(), rel=1e-12)
    q = np.asarray(fit.responsibilities(counts))[:, int(first)]
    np.testing.assert_allclose(q, poisson / (poisson + (counts == 0)), rtol=1e-10)
