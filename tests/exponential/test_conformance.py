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
def table_and_magnitude(view, x, arguments, shift):
    """<T, eta> - A + h, [N, *batch], and the sum of the sizes of the terms that cancel in it."""
    with jax.numpy_rank_promotion("raise"):
        statistics, natural = view.statistics(x, shift), view.natural(arguments, shift)
        normaliser, base = view.log_normaliser(arguments, shift), view.log_base_measure(x)
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
def update(view, mean_statistics, arguments, shift):
    """Every argument from the mean statistics, in order."""
    with jax.numpy_rank_promotion("raise"):
        for name in view.argument_names:
            moment = view.moment(name, mean_statistics, arguments, shift)
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


def weighted_rows(case, seed, view, shift):
    """Rows [N], weights [N, K] with very unequal columns, and the mean statistics [K, S]."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(case.draw_rows(rng, N))
    weights = jnp.asarray(rng.uniform(size=(N, K)) ** 2 * [1.0, 0.1, 7.0])
    mean_statistics = weights.T @ view.statistics(x, shift) / jnp.sum(weights, axis=0)[:, None]
    return x, weights, mean_statistics


def draw(case, seed, batch=(K,)):
    rng = np.random.default_rng(seed)
    arguments = case.draw_arguments(rng, batch)
    return case.view(arguments), to_jax(arguments), jnp.asarray(case.shift(rng))


def test_every_view_has_a_case():
    assert {type(draw(case, 0)[0]) for case in CASES} == set(VIEWS)
    assert {case.distribution for case in CASES} == {each for view in VIEWS for each in view.distributions}


@each_case
@pytest.mark.parametrize("batch", [(), (2, K)], ids=str)
@few
@any_seed
def test_table_equals_numpyro(case: Case, batch, seed):
    view, arguments, shift = draw(case, seed, batch)
    x = jnp.asarray(case.draw_rows(np.random.default_rng(seed), N))
    table, magnitude = table_and_magnitude(view, x, arguments, shift)
    expected = numpyro_table(case, x, arguments)
    assert table.shape == expected.shape == (N, *batch)
    # Relative to the terms that cancel: S of them, and the condition number of the matrices drawn, leave six digits.
    assert np.max(np.abs(table - expected) / (1.0 + magnitude)) < 1e-10


@each_case
def test_arguments_of_different_batches_broadcast(case: Case):
    """One argument shared by all components, the others not: what a tied covariance looks like to a view."""
    view, arguments, shift = draw(case, 1)
    x = jnp.asarray(case.draw_rows(np.random.default_rng(1), N))
    for name in view.argument_names[1:]:
        mixed = {**arguments, name: arguments[name][0]}
        full = {**arguments, name: jnp.broadcast_to(arguments[name][:1], arguments[name].shape)}
        table, _ = table_and_magnitude(view, x, mixed, shift)
        # The same arithmetic on the same numbers; batched and single kernels may differ in the last bits.
        np.testing.assert_allclose(table, table_and_magnitude(view, x, full, shift)[0], rtol=1e-12, atol=1e-12)


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradients_of_normaliser_and_product(case, view, unconstrained, shift, mean_statistics):
    def normaliser(unconstrained):
        return view.log_normaliser(constrain(case, unconstrained), shift)

    def product(unconstrained):
        return jnp.dot(view.natural(constrain(case, unconstrained), shift), mean_statistics)

    return jax.grad(normaliser)(unconstrained), jax.grad(product)(unconstrained)


@pytest.mark.slow
@each_case
@few
@any_seed
def test_gradient_of_log_normaliser_is_mean_statistics(case: Case, seed):
    """grad_eta A = E[T] (Wainwright and Jordan 2008, proposition 3.1), pulled back to unconstrained arguments."""
    view, arguments, shift = draw(case, seed, ())
    mean = case.mean_statistics(jax.tree.map(np.asarray, arguments), np.asarray(shift))
    gradient, pulled_back = gradients_of_normaliser_and_product(case, view, unconstrain(case, arguments), shift, mean)
    size = 1.0 + max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient))
    for name in view.argument_names:
        # Rounding, times the condition number of the matrices drawn (below 1e4).
        np.testing.assert_allclose(gradient[name], pulled_back[name], atol=1e-10 * size)


@each_case
@few
@any_seed
def test_update_inverts_the_mean_statistics(case: Case, seed):
    view, arguments, shift = draw(case, seed)
    mean = jnp.asarray(case.mean_statistics(jax.tree.map(np.asarray, arguments), np.asarray(shift)))
    _, elsewhere, _ = draw(case, seed + 1)
    found = update(view, mean, elsewhere, shift)
    for name in view.argument_names:
        assert found[name].shape == arguments[name].shape
        # Rounding, times the condition number of the matrices or of log c - psi(c) (both below 1e4).
        np.testing.assert_allclose(found[name], arguments[name], rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@each_case
@few
@any_seed
def test_update_is_the_maximum_of_the_weighted_likelihood(case: Case, seed):
    view, elsewhere, shift = draw(case, seed)
    x, weights, mean_statistics = weighted_rows(case, seed, view, shift)
    found = unconstrain(case, update(view, mean_statistics, elsewhere, shift))
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


def gradient_where_shared(case, name, arguments, view, shift, seed):
    """Largest gradient in ``name``, shared by all components and updated from its pooled moment."""
    x, weights, mean_statistics = weighted_rows(case, seed, view, shift)
    counts = jnp.sum(weights, axis=0)
    moment = jnp.einsum("k,k...->...", counts / jnp.sum(counts), view.moment(name, mean_statistics, arguments, shift))
    shared = view.from_moment(name, moment, {other: value[0] for other, value in arguments.items()})
    arguments = {**arguments, name: jnp.broadcast_to(shared, arguments[name].shape)}
    if name in case.together_with:
        other = case.together_with[name]
        moment = view.moment(other, mean_statistics, arguments, shift)
        arguments = {**arguments, other: view.from_moment(other, moment, arguments)}
    gradient, _ = derivatives(case)
    return float(jnp.max(jnp.abs(jnp.sum(gradient(unconstrain(case, arguments), x, weights)[name], axis=0))))


@each_argument
def test_pooled_moment_is_the_maximum_of_the_shared_likelihood(case: Case, name):
    """Under the conditions that the views state; and where one is stated, the maximum is elsewhere without it."""
    view, arguments, shift = draw(case, 3)
    equal = dict(arguments)
    if name in case.pooled_over_equal:
        other = case.pooled_over_equal[name]
        equal[other] = jnp.broadcast_to(arguments[other][:1], arguments[other].shape)
        assert gradient_where_shared(case, name, arguments, view, shift, seed=3) > 1e-2
    # Rounding of N K summands of order ten that cancel.
    assert gradient_where_shared(case, name, equal, view, shift, seed=3) < 1e-9 * N * K


@each_case
def test_methods_under_jit_and_vmap(case: Case):
    view, arguments, shift = draw(case, 4)
    x, _, mean_statistics = weighted_rows(case, 4, view, shift)

    def everything(arguments, mean_statistics):
        found = update(view, mean_statistics, arguments, shift)
        terms = view.natural(arguments, shift), view.log_normaliser(arguments, shift)
        return found, terms, view.degenerate(mean_statistics, found, shift)

    eager = everything(arguments, mean_statistics)
    mapped = jax.jit(jax.vmap(everything))(arguments, mean_statistics)
    # Fused arithmetic may differ in the last bits, times the condition number.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), eager, mapped)
    rows = jax.jit(jax.vmap(lambda row: (view.statistics(row, shift), view.log_base_measure(row))))(x)
    np.testing.assert_allclose(rows[0], view.statistics(x, shift), rtol=1e-14)
    np.testing.assert_allclose(rows[1], view.log_base_measure(x), rtol=1e-14)


@each_case
def test_views_are_static(case: Case):
    """Equal, and equal in hash, however the arguments' values or batch: a jitted function may take one as static."""
    first, second = draw(case, 0)[0], draw(case, 1, (2, K))[0]
    assert first == second
    assert hash(first) == hash(second)


@each_case
def test_argument_event_ndims_are_numpyros(case: Case):
    view, arguments, _ = draw(case, 0, ())
    assert set(view.argument_names) == set(arguments)
    for name, value in arguments.items():
        assert view.argument_event_ndims(name) == value.ndim


@each_case
def test_float32_stays_float32(case: Case):
    view, *drawn = draw(case, 5)
    arguments, shift = jax.tree.map(lambda a: a.astype(jnp.float32), drawn)
    x = jnp.asarray(case.draw_rows(np.random.default_rng(5), N), jnp.float32)
    table, _ = table_and_magnitude(view, x, arguments, shift)
    mean_statistics = jnp.broadcast_to(
        jnp.mean(view.statistics(x, shift), axis=0), (K, view.statistics(x, shift).shape[1])
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((table, update(view, mean_statistics, arguments, shift)))} == {
        jnp.dtype(jnp.float32)
    }


@each_location_case
def test_float32_keeps_its_digits_far_from_the_origin(case: Case):
    """Data at a distance of a thousand: the shift, and only the shift, saves the table and the update."""
    rng = np.random.default_rng(6)
    x = (1000.0 + case.draw_rows(rng, 4 * N)).astype(np.float32)
    arguments = case.draw_arguments(rng, (K,))
    arguments["loc"] = (1000.0 + arguments["loc"]).astype(np.float32)
    expected = numpyro_table(case, jnp.asarray(x, jnp.float64), to_jax(arguments))
    view, low = case.view(arguments), {name: jnp.asarray(a, jnp.float32) for name, a in arguments.items()}

    def errors(shift):
        table, _ = table_and_magnitude(view, jnp.asarray(x), low, shift)
        statistics = jnp.mean(view.statistics(jnp.asarray(x), shift), axis=0)
        centred = np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64)
        variance = np.tensordot(centred, centred, (0, 0)) / len(x)
        name = view.argument_names[1]
        loc = view.moment("loc", statistics, low, shift)
        found = view.moment(name, statistics, {"loc": loc}, shift)
        return np.max(np.abs(table - expected) / jnp.abs(expected)), np.max(np.abs(found - variance) / np.max(variance))

    near = errors(jnp.mean(jnp.asarray(x), axis=0))
    far = errors(jnp.zeros(case.event_shape, jnp.float32))
    # float32 has seven digits; three go to the conditioning of the matrices and the sums over rows ...
    assert max(near) < 1e-4
    # ... and without the shift six more go to the squared distance.
    assert min(far) > 1e-2
