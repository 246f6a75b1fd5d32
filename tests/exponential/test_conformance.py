"""What every exponential-family view must satisfy. Oracles: NumPyro's densities and textbook moments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro.distributions import biject_to

from probem.exponential import VIEWS
from probem.form.centring import argument_moment, centred_arguments, centred_events
from probem.form.sites import ExponentialSite
from tests.exponential.exponential_cases import CASES, LOCATION_CASES, Case

N, K = 50, 3

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_location_case = pytest.mark.parametrize("case", LOCATION_CASES, ids=lambda case: case.name)
any_seed = given(seed=st.integers(0, 2**32 - 1))
few = settings(max_examples=5, deadline=None, derandomize=True)

ARGUMENTS_OF_CASES = [(case, name) for case in CASES for name in case.draw_arguments(np.random.default_rng(0), ())]
each_argument = pytest.mark.parametrize(
    ("case", "name"), ARGUMENTS_OF_CASES, ids=[f"{case.name}-{name}" for case, name in ARGUMENTS_OF_CASES]
)


def to_jax(arrays):
    return jax.tree.map(jnp.asarray, arrays)


@functools.partial(jax.jit, static_argnums=0)
def table_and_magnitude(view, x, arguments):
    """<T, eta> - A + h, [N, *batch], and the sum of the sizes of the terms that cancel in it."""
    with jax.numpy_rank_promotion("raise"):
        statistics, natural = view.statistics(x), view.natural(arguments)
        normaliser, base = view.log_normaliser(arguments), view.log_base_measure(x)
    base = base.reshape(base.shape + (1,) * normaliser.ndim)
    products = jnp.einsum("ns,...s->n...", statistics, natural)
    magnitude = jnp.einsum("ns,...s->n...", jnp.abs(statistics), jnp.abs(natural))
    return products - normaliser[None] + base, magnitude + jnp.abs(normaliser)[None] + jnp.abs(base)


@functools.partial(jax.jit, static_argnums=0)
def numpyro_table(case, x, arguments):
    distribution = case.build(arguments)
    lifted = x.reshape(x.shape[:1] + (1,) * len(distribution.batch_shape) + case.event_shape)
    return distribution.log_prob(lifted)


@functools.partial(jax.jit, static_argnums=0)
def update(view, mean_statistics, arguments):
    """Every argument from the mean statistics, in order."""
    with jax.numpy_rank_promotion("raise"):
        for name in view.argument_names:
            moment = view.moment(name, mean_statistics, arguments)
            arguments = {**arguments, name: view.from_moment(name, moment, arguments)}
    return arguments


def weighted_log_likelihood(case, unconstrained, x, weights):
    """NumPyro's log likelihood, nats, of rows [N] with weights [N, K] under arguments in unconstrained coordinates."""
    return jnp.sum(weights * numpyro_table(case, x, constrain(case, unconstrained)))


def bijection(case, name):
    return biject_to(case.distribution.arg_constraints[name])


@functools.cache
def derivatives(case):
    """Gradient and Hessian of the weighted log likelihood in unconstrained coordinates, compiled once a case."""
    function = functools.partial(weighted_log_likelihood, case)
    return jax.jit(jax.grad(function)), jax.jit(jax.hessian(function))


def constrain(case, unconstrained):
    return {name: bijection(case, name)(value) for name, value in unconstrained.items()}


def unconstrain(case, arguments):
    return {name: bijection(case, name).inv(value) for name, value in arguments.items()}


def weighted_rows(case, seed, view):
    """Rows [N], weights [N, K] with very unequal columns, and the mean statistics [K, S]."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(case.draw_rows(rng, N))
    weights = jnp.asarray(rng.uniform(size=(N, K)) ** 2 * [1.0, 0.1, 7.0])
    mean_statistics = weights.T @ view.statistics(x) / jnp.sum(weights, axis=0)[:, None]
    return x, weights, mean_statistics


def draw(case, seed, batch=(K,)):
    arguments = case.draw_arguments(np.random.default_rng(seed), batch)
    return case.view(arguments), to_jax(arguments)


def term(case, view):
    """A site of the name "x" with this view."""
    return ExponentialSite("x", view, 1, case.event_shape, 0, False, None)


def test_every_view_has_a_case():
    assert {type(draw(case, 0)[0]) for case in CASES} == set(VIEWS)
    assert {case.distribution for case in CASES} == {each for view in VIEWS for each in view.distributions}


@each_case
@pytest.mark.parametrize("batch", [(), (2, K)], ids=str)
@few
@any_seed
def test_table_equals_numpyro(case: Case, batch, seed):
    view, arguments = draw(case, seed, batch)
    x = jnp.asarray(case.draw_rows(np.random.default_rng(seed), N))
    table, magnitude = table_and_magnitude(view, x, arguments)
    expected = numpyro_table(case, x, arguments)
    assert table.shape == expected.shape == (N, *batch)
    # Relative to the terms that cancel: S of them, and the condition number of the matrices drawn, leave six digits.
    assert np.max(np.abs(table - expected) / (1.0 + magnitude)) < 1e-10


@each_case
def test_arguments_of_different_batches_broadcast(case: Case):
    """One argument shared by all components, the others not: what a tied covariance looks like to a view."""
    view, arguments = draw(case, 1)
    x = jnp.asarray(case.draw_rows(np.random.default_rng(1), N))
    for name in view.argument_names[1:]:
        mixed = {**arguments, name: arguments[name][0]}
        full = {**arguments, name: jnp.broadcast_to(arguments[name][:1], arguments[name].shape)}
        table, _ = table_and_magnitude(view, x, mixed)
        # The same arithmetic on the same numbers; batched and single kernels may differ in the last bits.
        np.testing.assert_allclose(table, table_and_magnitude(view, x, full)[0], rtol=1e-12, atol=1e-12)


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradients_of_normaliser_and_product(case, view, unconstrained, mean_statistics):
    def normaliser(unconstrained):
        return view.log_normaliser(constrain(case, unconstrained))

    def product(unconstrained):
        return jnp.dot(view.natural(constrain(case, unconstrained)), mean_statistics)

    return jax.grad(normaliser)(unconstrained), jax.grad(product)(unconstrained)


@pytest.mark.slow
@each_case
@few
@any_seed
def test_gradient_of_log_normaliser_is_mean_statistics(case: Case, seed):
    """grad_eta A = E[T] (Wainwright and Jordan 2008, proposition 3.1), pulled back to unconstrained arguments."""
    view, arguments = draw(case, seed, ())
    mean = case.mean_statistics(jax.tree.map(np.asarray, arguments))
    gradient, pulled_back = gradients_of_normaliser_and_product(case, view, unconstrain(case, arguments), mean)
    size = 1.0 + max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient))
    for name in view.argument_names:
        # Rounding, times the condition number of the matrices drawn (below 1e4).
        np.testing.assert_allclose(gradient[name], pulled_back[name], atol=1e-10 * size)


@each_case
@few
@any_seed
def test_update_inverts_the_mean_statistics(case: Case, seed):
    view, arguments = draw(case, seed)
    mean = jnp.asarray(case.mean_statistics(jax.tree.map(np.asarray, arguments)))
    _, elsewhere = draw(case, seed + 1)
    found = update(view, mean, elsewhere)
    for name in view.argument_names:
        assert found[name].shape == arguments[name].shape
        # Rounding, times the condition number of the matrices or of log c - psi(c) (both below 1e4).
        np.testing.assert_allclose(found[name], arguments[name], rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@each_case
@few
@any_seed
def test_update_is_the_maximum_of_the_weighted_likelihood(case: Case, seed):
    view, elsewhere = draw(case, seed)
    x, weights, mean_statistics = weighted_rows(case, seed, view)
    found = unconstrain(case, update(view, mean_statistics, elsewhere))
    gradient, hessian = derivatives(case)
    total = float(jnp.sum(weights))
    for leaf in jax.tree.leaves(gradient(found, x, weights)):
        # Rounding of N summands that cancel, times the slope of the coordinates.
        assert np.max(np.abs(leaf)) < 1e-9 * total
    blocks = hessian(found, x, weights)
    sizes = {name: found[name].size for name in found}
    matrix = np.block([[np.reshape(blocks[a][b], (sizes[a], sizes[b])) for b in found] for a in found])
    curvature = np.linalg.eigvalsh(matrix)
    # Logits of a categorical are determined up to a constant: one flat direction a component, flat to rounding.
    flat = K if case.name == "categorical_logits" else 0
    assert np.all(np.abs(curvature[len(curvature) - flat :]) < 1e-9 * total)
    assert np.all(curvature[: len(curvature) - flat] < -1e-4)


def gradient_where_shared(case, name, arguments, view, seed):
    """Largest gradient in ``name``, shared by all components and updated from its pooled moment."""
    x, weights, mean_statistics = weighted_rows(case, seed, view)
    counts = jnp.sum(weights, axis=0)
    moment = jnp.einsum("k,k...->...", counts / jnp.sum(counts), view.moment(name, mean_statistics, arguments))
    shared = view.from_moment(name, moment, {other: value[0] for other, value in arguments.items()})
    arguments = {**arguments, name: jnp.broadcast_to(shared, arguments[name].shape)}
    if name in case.together_with:
        other = case.together_with[name]
        moment = view.moment(other, mean_statistics, arguments)
        arguments = {**arguments, other: view.from_moment(other, moment, arguments)}
    gradient, _ = derivatives(case)
    return float(jnp.max(jnp.abs(jnp.sum(gradient(unconstrain(case, arguments), x, weights)[name], axis=0))))


@each_argument
def test_pooled_moment_is_the_maximum_of_the_shared_likelihood(case: Case, name):
    """Under the conditions that the views state; and where one is stated, the maximum is elsewhere without it."""
    view, arguments = draw(case, 3)
    equal = dict(arguments)
    if name in case.pooled_over_equal:
        other = case.pooled_over_equal[name]
        equal[other] = jnp.broadcast_to(arguments[other][:1], arguments[other].shape)
        assert gradient_where_shared(case, name, arguments, view, seed=3) > 1e-2
    # Rounding of N K summands of order ten that cancel.
    assert gradient_where_shared(case, name, equal, view, seed=3) < 1e-9 * N * K


@each_case
def test_methods_under_jit_and_vmap(case: Case):
    view, arguments = draw(case, 4)
    x, _, mean_statistics = weighted_rows(case, 4, view)

    def everything(arguments, mean_statistics):
        found = update(view, mean_statistics, arguments)
        terms = view.natural(arguments), view.log_normaliser(arguments)
        return found, terms, view.degenerate(mean_statistics, found)

    eager = everything(arguments, mean_statistics)
    mapped = jax.jit(jax.vmap(everything))(arguments, mean_statistics)
    # Fused arithmetic may differ in the last bits, times the condition number.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), eager, mapped)
    rows = jax.jit(jax.vmap(lambda row: (view.statistics(row), view.log_base_measure(row))))(x)
    np.testing.assert_allclose(rows[0], view.statistics(x), rtol=1e-14)
    np.testing.assert_allclose(rows[1], view.log_base_measure(x), rtol=1e-14)


@each_case
def test_views_are_static(case: Case):
    """Equal, and equal in hash, however the arguments' values or batch: a jitted function may take one as static."""
    first, second = draw(case, 0)[0], draw(case, 1, (2, K))[0]
    assert first == second
    assert hash(first) == hash(second)


@each_case
def test_argument_event_ndims_are_numpyros(case: Case):
    view, arguments = draw(case, 0, ())
    assert set(view.argument_names) == set(arguments)
    for name, value in arguments.items():
        assert view.argument_event_ndims(name) == value.ndim


@each_case
def test_float32_stays_float32(case: Case):
    view, drawn = draw(case, 5)
    arguments = jax.tree.map(lambda a: a.astype(jnp.float32), drawn)
    x = jnp.asarray(case.draw_rows(np.random.default_rng(5), N), jnp.float32)
    table, _ = table_and_magnitude(view, x, arguments)
    mean_statistics = jnp.broadcast_to(jnp.mean(view.statistics(x), axis=0), (K, view.statistics(x).shape[1]))
    leaves = jax.tree.leaves((table, update(view, mean_statistics, arguments)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}


@each_case
def test_a_density_is_the_same_about_any_origin(case: Case):
    """And so is the update from its statistics; families without a location have no origin."""
    view, arguments = draw(case, 7)
    site, shifts = term(case, view), {"x": jnp.asarray(np.random.default_rng(8).normal(size=case.event_shape))}
    x, weights, mean_statistics = weighted_rows(case, 7, view)
    y, about = centred_events(site, x, shifts), centred_arguments(site, arguments, shifts)
    assert (y is x) == (about is arguments) == (not view.is_location)
    table, magnitude = table_and_magnitude(view, y, about)
    assert np.max(np.abs(table - numpyro_table(case, x, arguments)) / (1.0 + magnitude)) < 1e-10
    centred = weights.T @ view.statistics(y) / jnp.sum(weights, axis=0)[:, None]
    for name in view.argument_names:
        moment = argument_moment(site, name, centred, arguments, shifts)
        expected = view.moment(name, mean_statistics, arguments)
        np.testing.assert_allclose(moment, expected, rtol=1e-12, atol=1e-12)


@each_location_case
def test_float32_keeps_its_digits_far_from_the_origin(case: Case):
    """Data at a distance of a thousand: an origin near it, and nothing else, saves the table and the update."""
    rng = np.random.default_rng(6)
    x = (1000.0 + case.draw_rows(rng, 4 * N)).astype(np.float32)
    arguments = case.draw_arguments(rng, (K,))
    arguments["loc"] = (1000.0 + arguments["loc"]).astype(np.float32)
    expected = numpyro_table(case, jnp.asarray(x, jnp.float64), to_jax(arguments))
    view, low = case.view(arguments), {name: jnp.asarray(a, jnp.float32) for name, a in arguments.items()}

    def errors(origin):
        site, shifts = term(case, view), {"x": origin}
        y = centred_events(site, jnp.asarray(x), shifts)
        table, _ = table_and_magnitude(view, y, centred_arguments(site, low, shifts))
        statistics = jnp.mean(view.statistics(y), axis=0)
        centred = np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64)
        variance = np.tensordot(centred, centred, (0, 0)) / len(x)
        name = view.argument_names[1]
        loc = argument_moment(site, "loc", statistics, low, shifts)
        found = argument_moment(site, name, statistics, {"loc": loc}, shifts)
        return np.max(np.abs(table - expected) / jnp.abs(expected)), np.max(np.abs(found - variance) / np.max(variance))

    near = errors(jnp.mean(jnp.asarray(x), axis=0))
    far = errors(jnp.zeros(case.event_shape, jnp.float32))
    # float32 has seven digits; three go to the conditioning of the matrices and the sums over rows ...
    assert max(near) < 1e-4
    # ... and without the origin six more go to the squared distance.
    assert min(far) > 1e-2
