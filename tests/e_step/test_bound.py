"""F, its terms and the gap against sums over every entry, and the exponential-family path against the generic one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpyro.distributions import constraints

import probem
from probem.e_step.bound import bound_from_table
from probem.e_step.evaluation import impossible, inner
from probem.form.building import exponential_form
from probem.program.reading import read
from tests.oracles import plain
from tests.oracles.plain import ROUNDING
from tests.programs.examples import EXAMPLES

_bound = jax.jit(bound_from_table)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_terms_of_any_q_are_sums_over_every_entry(seed: int, sharp: bool, impossible: bool) -> None:
    random = np.random.default_rng(seed)
    table = random.normal(scale=20, size=(7, 3))
    q = random.dirichlet(np.ones(3) * 0.5, size=7)
    if sharp:
        q = np.eye(3)[random.integers(0, 3, 7)]
    if impossible:
        q[:, 0], q[:, 2] = 0.0, 1.0 - q[:, 1]
        table[:, 0] = -np.inf
    found = _bound(table, q, 1.5)
    np.testing.assert_allclose(found.elbo, plain.bound(table, q) + 1.5, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(found.elbo, found.expected_log_joint + found.entropy + found.log_prior, rtol=ROUNDING)
    # Neal & Hinton: log p(X) = F + sum KL, here without the prior; the KL by its own definition.
    p = plain.posterior(table)
    kl = np.where(q > 0, q * (np.log(np.where(q > 0, q, 1)) - np.log(np.where(q > 0, p, 1))), 0).sum()
    np.testing.assert_allclose(found.gap, kl, rtol=1e-9, atol=1e-9)
    assert found.gap >= -1e-9


def test_the_bound_of_a_program_includes_its_prior_and_the_gap_vanishes_at_the_posterior() -> None:
    example = EXAMPLES["priors"]
    table = example.table()
    q = plain.posterior(table)
    elbo = jax.jit(functools.partial(probem.elbo, example.program))
    found = elbo(example.params, q, *example.data)
    expected = plain.log_likelihood(table) + example.log_prior(example.params)
    np.testing.assert_allclose(found.elbo, expected, rtol=ROUNDING)
    np.testing.assert_allclose(found.log_prior, example.log_prior(example.params), rtol=ROUNDING)
    np.testing.assert_allclose(found.gap, 0, atol=1e-10 * len(table))
    flat = elbo(example.params, np.full_like(q, 0.5), *example.data)
    np.testing.assert_allclose(flat.elbo, plain.bound(table, np.full_like(q, 0.5)) + found.log_prior, rtol=ROUNDING)
    assert flat.elbo < found.elbo


def test_a_sign_turned_in_the_entropy_is_seen() -> None:
    """A planted fault in the formula of F."""
    random = np.random.default_rng(0)
    table, q = random.normal(size=(5, 3)), random.dirichlet(np.ones(3), size=5)
    found = _bound(table, q)
    wrong = found.expected_log_joint - found.entropy
    assert abs(wrong - plain.bound(table, q)) > 0.1


# The exponential-family path: table, F and statistics.


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
        linear = sorted_form.linear(params, shifts)
        base = sorted_form.log_base_measure(data).sum(1)
        table = inner(phi, linear.weight) + linear.offset + linear.level + base[:, None]
        if sorted_form.generic:
            table = table + known.table(known.enumerated_trace(params, data), sorted_form.generic)
        sums = q.T @ phi
        bound = jnp.where(sums == 0, 0.0, linear.weight * sums).sum() + (linear.offset + linear.level) @ q.sum(0)
        table = jnp.where(table <= -impossible(table.dtype), -jnp.inf, table)
        return table, bound + sorted_form.log_base_measure(data).sum()

    return sorted_form, jax.jit(evaluate)(params, data, q)


# Which observed sites have an exponential-family form in each example.
WITH_FORM = {
    "masked and scaled": set(),
    "priors": {"x"},
    "regressions": set(),
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


def test_columns_that_components_share_are_not_formed() -> None:
    """Tied or fixed covariance: x alone varies; a covariance of each component needs the products too."""

    def varying(name: str, num_components: int) -> int:
        distribution, arguments, x = DISTRIBUTIONS[name]
        program = _fixed(distribution, tuple(map(jnp.asarray, arguments)), num_components)
        return int(exponential_form(read(program, (x,))).varying.sum())

    assert varying("tied", 3) == varying("normal, one scale", 3) == 2
    assert varying("covariance", 3) == 5
    assert varying("covariance", 1) == 0


def test_elbo_refuses_responsibilities_of_another_shape() -> None:
    example = EXAMPLES["penalised"]
    with pytest.raises(probem.InputError, match=r"got responsibilities of shape \(60, 3\); expected shape \(60, 2\);"):
        probem.elbo(example.program, example.params, np.ones((60, 3)) / 3, *example.data)
    with pytest.raises(probem.InputError, match="no value for the site 'loc'"):
        probem.log_joint(example.program, {}, *example.data)


def test_a_rate_of_zero_is_a_parameter_like_any_other() -> None:
    """The estimate from zeros alone lies on the edge of its constraint, and the table takes it."""

    def program(x):
        rate = numpyro.param("rate", jnp.ones(2), constraint=constraints.positive)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Bernoulli(0.5))
            numpyro.sample("x", dist.Poisson(rate[t]), obs=x)

    table = functools.partial(probem.log_joint, program)({"rate": np.array([0.0, 1.0])}, np.array([0, 1]))
    np.testing.assert_allclose(table, np.log(0.5) + np.array([[0.0, -1.0], [-np.inf, -1.0]]), rtol=1e-14)
    with pytest.raises(probem.InputError, match="off its constraint; expected a finite value that is positive"):
        probem.log_joint(program, {"rate": np.array([-1.0, 1.0])}, np.array([0, 1]))
