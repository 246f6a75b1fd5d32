"""Families that draw their q, keep it, or change it from one E half-step to the next, beside plain loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probem
from probem import InputError
from probem.families import AssignmentFamily, Dense, HalfStep, Point
from probem.families.choice import choose_families
from probem.families.posteriors import softmax
from probem.program.reading import read
from tests.programs.fits import KMEANS, X

NUM_STEPS = 5
START = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 1.0]])


class Soft(AssignmentFamily):
    """What rows of a fit that has ended are answered with: the posterior."""

    def project(self, table):
        return softmax(table)


@dataclasses.dataclass(frozen=True)
class Drawn(Soft):
    """Stochastic EM: every t_n is drawn from its posterior (Celeux & Diebolt 1985)."""

    is_stochastic = True

    def assign(self, table, memory, half_step):
        index = jax.random.categorical(half_step.key, table, axis=1).astype(jnp.int32)
        return Point(index, jnp.zeros(table.shape[1], table.dtype)), memory


@dataclasses.dataclass(frozen=True)
class Damped(Soft):
    """Half of the q before, and half of the posterior."""

    def begin(self, num_rows, num_values):
        return jnp.full((num_rows, num_values), 1 / num_values)

    def assign(self, table, memory, half_step):
        q = (memory + softmax(table).q) / 2
        return Dense(q, jnp.log(q)), q


@dataclasses.dataclass(frozen=True)
class Warming(Soft):
    """The posterior to the power of 1/2, 2/3, 3/4, ... in one E half-step after another, and 1 from ``last`` on."""

    last: int = 1000

    def is_final(self, number):
        return number >= self.last

    def assign(self, table, memory, half_step):
        power = jnp.where(self.is_final(half_step.number), 1.0, _power(half_step.number))
        return softmax(power * table), memory


@dataclasses.dataclass(frozen=True)
class Lazy(AssignmentFamily):
    """The mode, looked for in every fourth E half-step until the fortieth, and in all that follow."""

    def project(self, table):
        return Point(jnp.argmax(table, 1).astype(jnp.int32), jnp.zeros(table.shape[1], table.dtype))

    def begin(self, num_rows, num_values):
        return jnp.zeros(num_rows, jnp.int32)

    def is_final(self, number):
        return number >= 40

    def assign(self, table, memory, half_step):
        looks = self.is_final(half_step.number) | (half_step.number % 4 == 0)
        index = jnp.where(looks, self.project(table).index, memory)
        return Point(index, jnp.zeros(table.shape[1], table.dtype)), index


def _power(number):
    return (number + 1.0) / (number + 2.0)


def _table(x, loc):
    return -0.5 * ((x[:, None, :] - loc[None]) ** 2).sum(2)


def _posterior(table):
    q = np.exp(table - table.max(1, keepdims=True))
    return q / q.sum(1, keepdims=True)


def _means(x, q, loc):
    counts = q.sum(0)[:, None]
    return np.where(counts > 0, q.T @ x / np.where(counts > 0, counts, 1.0), loc)


def drawn_loop(x, key):
    """Labels drawn with the keys that an E half-step promises."""
    seed, loc = jax.random.bits(key, dtype=jnp.uint32), START
    for number in range(NUM_STEPS):
        own = HalfStep(jnp.asarray(number), seed, jnp.asarray(0)).key
        labels = np.asarray(jax.random.categorical(own, jnp.asarray(_table(x, loc)), axis=1))
        last, loc = loc, _means(x, np.eye(3)[labels], loc)
    return last


def damped_loop(x, key):
    q, loc = np.full((len(x), 3), 1 / 3), START
    for _ in range(NUM_STEPS):
        q = (q + _posterior(_table(x, loc))) / 2
        last, loc = loc, _means(x, q, loc)
    return last


def warming_loop(x, key):
    loc = START
    for number in range(NUM_STEPS):
        last, loc = loc, _means(x, _posterior(_power(number) * _table(x, loc)), loc)
    return last


LOOPS = {"drawn": (Drawn(), drawn_loop), "damped": (Damped(), damped_loop), "warming": (Warming(), warming_loop)}


def fitted(family, x, **options):
    options = {"init": probem.Parameters({"loc": START}), "max_steps": NUM_STEPS, "tolerance": 0.0, **options}
    return probem.fit(KMEANS, x, families={"t": family}, throw=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_a_fit_is_the_plain_loop(name: str) -> None:
    family, loop = LOOPS[name]
    key = jax.random.key(7)
    fit = fitted(family, X, key=key)
    assert fit.num_steps == NUM_STEPS
    np.testing.assert_allclose(fit.params["loc"], loop(X, key), rtol=1e-10)
    # Answers about rows are the projection.
    expected = _posterior(_table(X, np.asarray(fit.params["loc"])))
    np.testing.assert_allclose(fit.responsibilities(X), expected, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["damped", "warming"])
def test_many_data_sets_and_solve_are_the_plain_loop(name: str) -> None:
    family, loop = LOOPS[name]
    sets = np.stack([X, X + 0.5])
    options = {"families": {"t": family}, "max_steps": NUM_STEPS, "tolerance": 0.0}
    start = probem.Parameters({"loc": np.stack([START, START])})
    many = probem.fit_many(KMEANS, sets, init=start, throw=False, **options)
    for x, loc in zip(sets, many.params["loc"], strict=True):
        np.testing.assert_allclose(loc, loop(x, None), rtol=1e-10)
    solution = probem.solve(KMEANS, X, init=probem.Parameters({"loc": START}), **options)
    np.testing.assert_allclose(solution.params["loc"], loop(X, None), rtol=1e-10)


@pytest.mark.slow
def test_keys_say_what_is_drawn() -> None:
    """A fall of F is no fault; keys, data sets and E half-steps get draws of their own, and the same key the same."""
    options = {"max_steps": 30, "tolerance": 1e-10}
    first, again, other = (fitted(Drawn(), X, key=key, **options) for key in (1, 1, 2))
    assert first.result is probem.Result.STEP_LIMIT
    assert np.any(np.diff(first.history.elbo[::2]) < 0)
    np.testing.assert_array_equal(first.params["loc"], again.params["loc"])
    assert np.abs(np.asarray(first.params["loc"]) - np.asarray(other.params["loc"])).max() > 1e-3
    keys = jax.random.split(jax.random.key(3), 2)
    start = probem.Parameters({"loc": np.stack([START, START])})
    many = probem.fit_many(
        KMEANS, np.stack([X, X]), families={"t": Drawn()}, init=start, key=keys, throw=False, **options
    )
    for key, loc in zip(keys, many.params["loc"], strict=True):
        np.testing.assert_allclose(loc, fitted(Drawn(), X, key=key, **options).params["loc"], rtol=1e-10)


def test_every_number_seed_and_place_has_a_key_of_its_own() -> None:
    halves = [HalfStep(*map(jnp.asarray, triple)) for triple in np.ndindex(3, 3, 3)]
    assert len({tuple(np.asarray(jax.random.key_data(own.key)).tolist()) for own in halves}) == 27


@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [3000, 300_000])
def test_rows_in_several_chunks_and_blocks(num_rows: int) -> None:
    """What rows keep stays with them, and every chunk draws with a key of its own."""
    x = np.random.default_rng(0).normal(size=(num_rows, 2)) * 2
    fit = fitted(Damped(), x)
    np.testing.assert_allclose(fit.params["loc"], damped_loop(x, None), rtol=1e-8)
    key = jax.random.key(11)
    drawn = fitted(Drawn(), x, max_steps=1, key=key)
    size = drawn.plan.chunk_rows(drawn.plan.pass_block_rows(num_rows))
    assert size < num_rows
    table, labels = _table(x, START), []
    for place in range(-(-num_rows // size)):
        half_step = HalfStep(jnp.asarray(0), jax.random.bits(key, dtype=jnp.uint32), jnp.asarray(place))
        rows = np.zeros((size, 3))
        rows[: len(table) - place * size] = table[place * size : (place + 1) * size]
        labels.append(np.asarray(jax.random.categorical(half_step.key, jnp.asarray(rows), axis=1)))
    counts = np.bincount(np.concatenate(labels)[:num_rows], minlength=3)
    np.testing.assert_allclose(drawn.counts, counts, rtol=1e-12)


@pytest.mark.slow
def test_every_batch_of_a_stream_draws_by_itself() -> None:
    fit = fitted(Drawn(), X, max_steps=1)
    first = probem.absorb(fit, X, rate=1.0)
    # At the parameters of the first batch again, the number of the batch alone is another.
    again = probem.absorb(dataclasses.replace(first, variational=fit.variational), X, rate=1.0)
    assert np.abs(np.asarray(first.counts) - np.asarray(again.counts)).max() >= 1


def test_no_draw_that_repeats_itself_is_a_maximum() -> None:
    """Rows so far apart that every draw is the same: nothing moves, and F does not rise, and nothing is proved."""
    far = np.array([[-30.0, 0.0], [0.0, 30.0], [30.0, 0.0]]).repeat(5, 0) + X[:15] / 100
    fit = fitted(Drawn(), far, init=probem.Parameters({"loc": far[::5]}), max_steps=20, tolerance=1e-6)
    assert (fit.result, fit.num_steps) == (probem.Result.STEP_LIMIT, 20)
    assert fit.history.moved[-2] == 0
    # A rule that is asked for by name ends it.
    shift = probem.stopping.ParameterShift(1e-12)
    named = fitted(Drawn(), far, init=probem.Parameters({"loc": far[::5]}), max_steps=20, tolerance=shift)
    assert named.result is probem.Result.CONVERGED


@pytest.mark.parametrize(("family", "plain"), [(Warming(last=12), probem.Categorical()), (Lazy(), probem.Delta())])
def test_no_fit_ends_before_its_schedule(family: AssignmentFamily, plain: AssignmentFamily) -> None:
    options = {"max_steps": 500, "tolerance": 1e-10}
    fit, direct = fitted(family, X, **options), fitted(plain, X, **options)
    assert fit.result is probem.Result.CONVERGED
    assert family.is_final(fit.num_steps - 1)
    np.testing.assert_allclose(fit.elbo, direct.elbo, rtol=1e-8)


@pytest.mark.parametrize("family", [Damped(), Drawn()])
def test_known_labels_are_point_masses_whatever_the_family_returns(family: AssignmentFamily) -> None:
    labels = np.arange(len(X)) % 3
    fit, direct = (fitted(each, X, labels=labels, max_steps=30) for each in (family, probem.Categorical()))
    np.testing.assert_allclose(fit.elbo, direct.elbo, rtol=1e-12)
    np.testing.assert_allclose(fit.params["loc"], direct.params["loc"], rtol=1e-12)


@dataclasses.dataclass(frozen=True)
class Rounded(Damped):
    """Rows keep their q as the table has it, whatever it was before the first."""

    def begin(self, num_rows, num_values):
        return jnp.full((num_rows, num_values), 1 / num_values, np.float64)

    def assign(self, table, memory, half_step):
        q, after = super().assign(table, memory, half_step)
        return q, after.astype(table.dtype)


@pytest.mark.slow
@pytest.mark.parametrize("family", [Damped(), Rounded()])
def test_what_rows_keep_may_be_of_another_precision(family: AssignmentFamily) -> None:
    fit = fitted(family, X.astype(np.float32))
    # All rows of each in one chunk.
    start = probem.Parameters({"loc": START[None]})
    options = {"families": {"t": family}, "max_steps": NUM_STEPS, "tolerance": 0.0, "throw": False}
    many = probem.fit_many(KMEANS, X[None].astype(np.float32), init=start, **options)
    for loc in (fit.params["loc"], many.params["loc"][0]):
        assert loc.dtype == np.float32
        np.testing.assert_allclose(loc, damped_loop(X, None), rtol=1e-4)


def test_all_words_of_a_key_count() -> None:
    first, second = (fitted(Drawn(), X, key=jax.random.key(word)) for word in (1, 2**32 + 1))
    assert np.abs(np.asarray(first.params["loc"]) - np.asarray(second.params["loc"])).max() > 1e-3


@pytest.mark.slow
def test_restarts_draw_by_themselves() -> None:
    options = {"init": None, "max_steps": 20, "key": 5}
    alone, several = fitted(Drawn(), X, **options), fitted(Drawn(), X, restarts=3, **options)
    assert len(set(several.restart_elbos.tolist())) == 3
    np.testing.assert_allclose(several.restart_elbos[0], alone.elbo, rtol=1e-10)


def _with(base, **changes):
    return dataclasses.dataclass(frozen=True)(type("Mine", (base,), changes))()


REFUSED = {
    "draws in secret": (_with(Drawn, is_stochastic=False), "whose q depends on the key, with is_stochastic=False"),
    "drawn and exact": (_with(Drawn, is_exact=True), "is_exact=True, whose q is not the posterior"),
    "keeps less": (
        _with(Damped, assign=lambda self, table, memory, half_step: (softmax(table), None)),
        "whose 40 rows keep None after an E half-step",
    ),
    "nothing for each row": (
        _with(Damped, begin=lambda self, rows, values: jnp.zeros(values), assign=lambda self, t, m, h: (softmax(t), m)),
        "whose 40 rows keep .*with an axis of the rows in front",
    ),
    "a method": (_with(Soft, is_exact=lambda self: True), "Mine.is_exact of type method; expected True or False"),
    "filled, and no point": (_with(Soft, fills_empty=True), "fills_empty=True, whose q is no point mass"),
    "no probability": (
        _with(Soft, assign=lambda self, table, memory, half_step: (Dense(table, table), memory)),
        "is no probability of 3 values.*mend Mine.assign",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions(name: str) -> None:
    family, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        choose_families(read(KMEANS, (X,)), {"t": family})
