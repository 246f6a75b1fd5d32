"""Numbers are no code: another prior, temperature, array or data set compiles nothing, and the answers are the same.

They are held against the same program with the numbers written into its code, where they are constants of what is
compiled.
"""

import functools
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.models import GaussianPrior, bayesian_gmm, diagonal, dirichlet, gmm, stick_breaking
from tests.programs.counted import COMPILATIONS

RANDOM = np.random.default_rng(0)
LINE = np.concatenate([RANDOM.normal(centre, 1.0, 20) for centre in (-4.0, 0.0, 5.0)])
PLANE = np.stack([LINE, RANDOM.normal(size=60)], 1)
LABELS = probem.Labels(np.repeat(np.arange(3), 20))
VALUES = (0.3, 1.0, 2.5, 0.07, 4.0)


def rates(x, *, shape, rate, strength=1.0):
    """Means with a normal prior, and precisions with a gamma prior."""
    with numpyro.plate("components", 3):
        precision = numpyro.sample("precision", dist.Gamma(shape, rate))
        loc = numpyro.sample("loc", dist.Normal(0.0, 1 / jnp.sqrt(strength * precision)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(loc[t], 1 / jnp.sqrt(precision[t])), obs=x)


class Prior(NamedTuple):
    shape: float
    rate: float


def closing_over(scale):
    """A program, made anew, that closes over an array."""

    def program(x):
        loc = numpyro.param("loc", jnp.arange(3.0))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
            numpyro.sample("x", dist.Normal(loc[t], jnp.asarray(scale)[t]), obs=x)

    return program


HEIGHT = 1.0


def named(x):
    """A global that only a function inside the program names."""
    loc = numpyro.param("loc", jnp.arange(3.0))

    def component(t):
        return dist.Normal(loc[t], HEIGHT)

    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("x", component(numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))), obs=x)


def heavy(x, *, freedom):
    """On the gradient route."""
    loc = numpyro.param("loc", jnp.arange(3.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.StudentT(freedom, loc[t], 1.0), obs=x)


def prior_of(strength):
    return GaussianPrior(PLANE.mean(0), strength, 4.0, np.cov(PLANE, rowvar=False))


def bayesian(strength, **options):
    program = functools.partial(bayesian_gmm, num_components=3, prior=prior_of(strength), **options)
    return program, PLANE, {"init": LABELS}


def of_bayes(strength):
    program, x, options = bayesian(strength, weights=functools.partial(dirichlet, concentration=1.0 + strength))
    return program, x, {**options, "families": probem.VARIATIONAL_BAYES}


def of_sticks(strength):
    program, x, options = bayesian(0.1, weights=functools.partial(stick_breaking, concentration=strength))
    return program, x, {**options, "families": probem.VARIATIONAL_BAYES}


def of_gamma(strength):
    program = functools.partial(rates, shape=2.0, rate=strength, strength=strength)
    return program, LINE, {"init": LABELS, "families": probem.VARIATIONAL_BAYES}


def of_map(strength):
    """Weak enough that no two components become one, which a fit looks into by another way of starting."""
    return bayesian(0.1 * strength, weights=functools.partial(dirichlet, concentration=1.0 + strength))


def of_closure(strength):
    return closing_over(np.array([1.0, 1.0 + strength, 2.0])), LINE, {"init": LABELS}


def of_gradient(freedom):
    return functools.partial(heavy, freedom=1.0 + freedom), LINE, {"init": LABELS}


def of_temperature(beta):
    program = functools.partial(gmm, num_components=3, covariance=diagonal)
    return program, PLANE, {"init": LABELS, "families": {"t": probem.Tempered(0.5 + beta)}}


def of_data(unit):
    return functools.partial(gmm, num_components=3, covariance=diagonal), PLANE * unit, {"init": LABELS}


def of_bounds(scale):
    return functools.partial(truncates, scale=0.4 + 0.02 * scale), LINE, {"init": LABELS}


SWEEPS = {
    "gamma prior": of_gamma,
    "closure": of_closure,
    "temperature": of_temperature,
    "gradient": of_gradient,
    "bounds of values": of_bounds,
    "data": of_data,
    "variational Bayes": of_bayes,
    "sticks": of_sticks,
    "MAP": of_map,
}
QUICK = ("gamma prior", "closure", "temperature")


def sweeps():
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SWEEPS]


def fit(arguments) -> probem.Fit:
    program, x, options = arguments
    return probem.fit(program, x, throw=False, **options)


def written(make, value):
    """The same with every number of the program in its code."""
    program, x, options = make(value)
    names = {"program": program}
    wrapped = eval("lambda x: program(x)", names)
    # What is opaque to the walk is part of the structure.
    names["program"] = Opaque(program)
    return wrapped, x, options


class Opaque:
    """Something that is called, of which every number is part of the structure."""

    def __init__(self, program):
        self.program = program

    def __call__(self, x):
        return self.program(x)


def assert_same(first: probem.Fit, second: probem.Fit, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(first.elbo, second.elbo, rtol=rtol)
    assert first.num_steps == second.num_steps
    for name, value in first.variational.items():
        for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(second.variational[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e3 * rtol, atol=rtol * (1 + np.abs(a).max()))


@pytest.mark.parametrize("name", sweeps())
def test_after_the_first_value_nothing_is_compiled_and_the_answers_are_the_same(name: str) -> None:
    make = SWEEPS[name]
    fits = [fit(make(VALUES[0]))]
    fits[0].responsibilities(make(VALUES[0])[1][:5])
    COMPILATIONS.clear()
    fits += [fit(make(value)) for value in VALUES[1:]]
    for made, value in zip(fits, VALUES, strict=True):
        made.responsibilities(make(value)[1][:5])
    assert len(COMPILATIONS) == 0
    assert len({made.elbo for made in fits}) == len(VALUES)
    assert len({made.plan.structure for made in fits}) == 1
    # All but the first were made by what had been compiled for it, so that one stands for them.
    assert_same(fits[2], fit(written(make, VALUES[2])))


def test_a_number_in_any_form_is_the_same() -> None:
    """A float of Python's or NumPy's, an array of no dimensions."""

    def of(kind):
        program = functools.partial(rates, shape=kind(2.0), rate=kind(1.5), strength=kind(0.5))
        return fit((program, LINE, {"init": LABELS, "families": probem.VARIATIONAL_BAYES}))

    first = of(float)
    for kind in (np.float64, np.asarray, jnp.asarray):
        assert_same(first, of(kind))


def test_a_global_that_changes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook; a fit of before keeps what it was fitted with."""
    first = fit((named, LINE, {"init": LABELS}))
    before = first.log_density(LINE[:7])
    monkeypatch.setitem(globals(), "HEIGHT", 2.0)
    COMPILATIONS.clear()
    second = fit((named, LINE, {"init": LABELS}))
    assert len(COMPILATIONS) == 0
    for made, height in ((first, 1.0), (second, 2.0)):
        assert_same(made, fit((closing_over(np.full(3, height)), LINE, {"init": LABELS})))
    np.testing.assert_array_equal(first.log_density(LINE[:7]), before)
    # Rows of another number, for which functions are compiled anew.
    table = dist.Normal(first.params["loc"], 1.0).log_prob(LINE[:40, None])
    expected = jax.nn.logsumexp(table - math.log(3), 1)
    np.testing.assert_allclose(first.log_density(LINE[:40]), expected, rtol=1e-12)


def asks(x, *, scale):
    """Whether it is large."""
    loc = numpyro.param("loc", jnp.arange(3.0))
    scale = scale if scale < 2.0 else 2.0
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("x", dist.Normal(loc[numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))], scale), obs=x)


def computes(x, *, scale):
    """In Python."""
    loc = numpyro.param("loc", jnp.arange(3.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(loc[t], math.exp(math.log(scale))), obs=x)


def bounds(x, *, scale):
    """Where parameters may lie."""
    loc = numpyro.param("loc", jnp.arange(3.0), constraint=dist.constraints.interval(-20.0, 20.0 * scale))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def truncates(x, *, scale):
    """Where values may lie."""
    loc = numpyro.param("loc", jnp.arange(3.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.TruncatedNormal(loc[t], 1.0, low=-20.0 * scale, high=20.0 * scale), obs=x)


class Peculiar(dist.Normal):
    """A distribution whose density asks for a number that nothing else asks for."""

    def __init__(self, loc, scale, power):
        super().__init__(loc, scale)
        self.power = power

    def log_prob(self, value):
        return super().log_prob(value) * (self.power if self.power > 0 else 1.0)


def peculiar(x, *, scale):
    loc = numpyro.param("loc", jnp.arange(3.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", Peculiar(loc[t], 1.0, scale), obs=x)


@pytest.mark.parametrize(
    "program",
    [asks, *(pytest.param(each, marks=pytest.mark.slow) for each in (computes, bounds, peculiar))],
    ids=lambda program: program.__name__,
)
def test_a_number_that_the_program_asks_for_is_part_of_its_structure(program) -> None:
    """And changes with it, as do the answers; the others are numbers all the same."""
    structures = set()
    for scale in (1.0, 1.5):
        made = fit((functools.partial(program, scale=scale), LINE, {"init": LABELS}))
        structures.add(made.plan.structure)
        assert scale not in made.plan.program.numbers
        assert_same(
            made, fit(written(lambda scale: (functools.partial(program, scale=scale), LINE, {"init": LABELS}), scale))
        )
    assert len(structures) == 2


def test_fits_of_other_numbers_are_saved_and_pickled(tmp_path) -> None:
    for number in (0.3, 2.5):
        arguments = of_gamma(number)
        made = fit(arguments)
        made.save(tmp_path / "fit.npz")
        for again in (probem.load(tmp_path / "fit.npz", arguments[0]), pickle.loads(pickle.dumps(made))):
            np.testing.assert_array_equal(again.responsibilities(LINE), made.responsibilities(LINE))
            np.testing.assert_array_equal(again.log_density(LINE), made.log_density(LINE))


@pytest.mark.slow
def test_threads_each_have_their_numbers() -> None:
    """Four at once, of one structure that has not been compiled before."""

    def of(strength):
        program = functools.partial(rates, shape=3.0, rate=jnp.array([1.0, 2.0, strength]))
        return fit((program, LINE, {"init": LABELS, "families": probem.VARIATIONAL_BAYES}))

    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(of, VALUES[:4]))
    for value, fitted in zip(VALUES[:4], made, strict=True):
        assert_same(fitted, of(value))


@pytest.mark.slow
def test_solve_has_a_derivative_by_its_data() -> None:
    """Of few columns XLA may form the table twice, with another rounding: then no entry is the maximum of its row."""
    program = functools.partial(rates, shape=2.0, rate=1.0)

    def bound(scale):
        return probem.solve(program, scale * jnp.asarray(LINE), init=LABELS, families=probem.VARIATIONAL_BAYES).elbo

    # F is known to about 1e-10 of itself, and the parts in h^2 are smaller.
    slope = (bound(1 + 1e-4) - bound(1 - 1e-4)) / 2e-4
    np.testing.assert_allclose(jax.jacfwd(bound)(1.0), slope, rtol=1e-6)


def test_planning_looks_at_every_number() -> None:
    """A concentration with which a point has no mode is refused after one with which it has, and allowed again."""

    def of(concentration):
        def program(x):
            weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(3, concentration)))
            loc = numpyro.param("loc", jnp.arange(3.0))
            with numpyro.plate("data", x.shape[0]):
                t = numpyro.sample("t", dist.Categorical(weights))
                numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

        return fit((program, LINE, {"init": LABELS}))

    first = of(2.0)
    with pytest.raises(probem.InputError, match="the posterior has no mode"):
        of(0.5)
    assert of(3.0).plan.structure == first.plan.structure
    # The mode of a Dirichlet: counts and concentrations less one.
    for made, concentration in ((first, 2.0), (of(3.0), 3.0)):
        shares = made.counts + concentration - 1
        np.testing.assert_allclose(made.params["weights"], shares / shares.sum(), rtol=1e-4)


def spread(x, *, scale, asked):
    """A program that may ask what kind of thing its number is, or compute with it outside of JAX."""
    loc = numpyro.param("loc", jnp.array([-1.0, 0.0, 1.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(loc[t], asked(scale)), obs=x)


def _by_float(scale):
    try:
        return float(scale)
    except TypeError:
        return 1.0


ASKED = {
    "isinstance": (lambda scale: 3 * scale if isinstance(scale, float) else scale, (1.0, 2.0)),
    "float": (_by_float, (1.0, 2.0)),
    "isscalar": (lambda scale: scale if np.isscalar(scale) else 1.0, (1.0, 2.0)),
    "array": (lambda scale: 2 * scale[0] if isinstance(scale, np.ndarray) else scale[0], (np.ones(2), np.full(2, 3.0))),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("float", "isscalar"))) for name in ASKED]
)
def test_a_number_that_is_asked_what_it_is_stays_a_part_of_the_program(name: str) -> None:
    """The first value may agree by chance with what is asked for."""
    asked, values = ASKED[name]
    for value in values:
        program = functools.partial(spread, scale=value, asked=asked)
        as_it_is = functools.partial(spread, scale=float(asked(value)), asked=lambda scale: scale)
        options = {"init": LABELS, "max_steps": 2, "throw": False}
        assert probem.fit(program, LINE, **options).elbo == pytest.approx(
            probem.fit(as_it_is, LINE, **options).elbo, rel=1e-12
        )


def test_in_float32_digits_that_python_has_are_not_lost() -> None:
    far = 1.6e9 + np.array([0.0, 3.0])
    with jax.enable_x64(False):
        x = LINE.astype(np.float32)
        options = {"init": LABELS, "max_steps": 2, "throw": False}
        lifted = functools.partial(spread, scale=far, asked=lambda far: (far - far.mean())[1])
        plain = functools.partial(spread, scale=1.5, asked=lambda scale: scale)
        assert probem.fit(lifted, x, **options).elbo == pytest.approx(probem.fit(plain, x, **options).elbo, rel=1e-6)


@pytest.mark.slow
def test_attributes_of_classes_sets_and_slots_are_a_part_of_the_program() -> None:
    class Settings:
        scale = 1.0

    class Slotted:
        __slots__ = ("scale",)

    scales, slotted = {1.0}, Slotted()

    def bound(asked) -> float:
        def program(x):
            spread(x, scale=None, asked=lambda _: asked())

        return probem.fit(program, LINE, init=LABELS, max_steps=2, throw=False).elbo

    def fits() -> list[float]:
        return [bound(lambda: Settings.scale), bound(lambda: max(scales)), bound(lambda: slotted.scale)]

    slotted.scale = 1.0
    first = fits()
    Settings.scale, slotted.scale = 2.0, 2.0
    scales.add(2.0)
    assert not np.isclose(first, fits(), rtol=1e-6).any()
