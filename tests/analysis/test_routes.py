"""Which route every parameter takes, and that closed updates are maxima of the expected log joint."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints

import probem
from probem import models
from probem.analysis.routes import make_plan
from probem.families import Categorical, Delta, Families
from probem.form.statistics import Statistics
from probem.m_step.closed import closed_updates
from probem.m_step.maximise import maximise
from probem.plan.plan import Plan
from probem.program.reading import read
from tests.oracles import plain
from tests.programs.examples import EXAMPLES, weights_param
from tests.programs.fits import normal_table

X = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)))
COUNTS = jnp.asarray(np.random.default_rng(1).poisson(3.0, size=(20, 2)))
BITS = jnp.asarray(np.random.default_rng(2).integers(0, 2, size=(20, 2)))


def plan_of(program, *data) -> Plan:
    return make_plan(read(program, data), Families(Categorical()))


def routes(plan: Plan) -> dict[str, str]:
    closed = {name for link in plan.closed for name in link.source}
    found = dict.fromkeys(closed, "closed") | dict.fromkeys(plan.numeric, "numeric")
    found |= dict.fromkeys(plan.gradient, "gradient") | dict.fromkeys(plan.unused, "unused")
    found |= dict.fromkeys(plan.mean_field.modes, "mode")
    assert len(found) == len(closed) + sum(map(len, (plan.numeric, plan.gradient, plan.unused, plan.mean_field.modes)))
    return found


def mixture(component):
    """A program with two components whose parameters and distribution ``component(t)`` declares."""

    def program(x):
        make = component(x.shape[-1])
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.4, 0.6])))
            numpyro.sample("x", make(t), obs=x)

    return program


def _locs(dim):
    return numpyro.param("loc", jnp.arange(2.0)[:, None] * jnp.ones(dim))


def _positive(name, shape):
    return numpyro.param(name, jnp.ones(shape), constraint=constraints.positive)


@mixture
def by_variance(dim):
    """The square root hides the parameter from the index map."""
    loc, variance = _locs(dim), _positive("variance", (2, dim))
    return lambda t: dist.Normal(loc[t], jnp.sqrt(variance[t])).to_event(1)


@mixture
def shared_mean(dim):
    """One mean for components of different covariance: its best value depends on both."""
    loc = numpyro.param("loc", jnp.zeros(dim))
    covariance = numpyro.param(
        "covariance", jnp.stack([jnp.eye(dim), 2 * jnp.eye(dim)]), constraint=constraints.positive_definite
    )
    return lambda t: dist.MultivariateNormal(loc, covariance_matrix=covariance[t])


@mixture
def tied_precision(dim):
    loc = _locs(dim)
    precision = numpyro.param("precision", jnp.eye(dim), constraint=constraints.positive_definite)
    return lambda t: dist.MultivariateNormal(loc[t], precision_matrix=precision)


@mixture
def factor(dim):
    loc = _locs(dim)
    tril = numpyro.param("tril", jnp.stack([jnp.eye(dim)] * 2), constraint=constraints.lower_cholesky)
    return lambda t: dist.MultivariateNormal(loc[t], scale_tril=tril[t])


@mixture
def unused(dim):
    """A parameter that nothing depends on, and one that stands in a component by itself."""
    loc = numpyro.param("loc", jnp.ones(dim))
    numpyro.param("forgotten", jnp.ones(3))
    return lambda t: dist.Normal(jnp.stack([jnp.zeros(dim), loc])[t], 1.0).to_event(1)


@mixture
def fixed_entries(dim):
    """The second feature has a standard deviation of its own in each component, the first is fixed at one."""
    loc, scale = _locs(dim), _positive("scale", 2)
    return lambda t: dist.Normal(loc[t], jnp.stack([jnp.ones(2), scale], -1)[t]).to_event(1)


def partly_shared(x):
    """Components 0 and 1 share a covariance; component 2 has its own."""
    dim = x.shape[1]
    loc = numpyro.param("loc", jnp.arange(3.0)[:, None] * jnp.ones(dim))
    first = numpyro.param("first", jnp.eye(dim), constraint=constraints.positive_definite)
    second = numpyro.param("second", jnp.eye(dim), constraint=constraints.positive_definite)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.ones(3) / 3))
        numpyro.sample(
            "x", dist.MultivariateNormal(loc[t], covariance_matrix=jnp.stack([first, first, second])[t]), obs=x
        )


def softmax_weights(x):
    logits = numpyro.param("logits", jnp.array([0.0, 0.5]))
    loc = _locs(x.shape[1])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jax.nn.softmax(logits)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0).to_event(1), obs=x)


def all_logits(x):
    weights = numpyro.param("weights", jnp.array([0.0, 0.5]))
    logits = numpyro.param("logits", jnp.array([[-1.0, 0.0], [0.5, 1.0]]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(logits=weights))
        numpyro.sample("x", dist.Bernoulli(logits=logits[t]).to_event(1), obs=x)


def tied_over_sites(x, y):
    """One rate in two sites: each alone would be a closed form, together they are not."""
    weights = weights_param(2)
    rate = _positive("rate", 2)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.Poisson(rate[t]), obs=x)
        numpyro.sample("y", dist.Poisson(rate[t]), obs=y)


def _model(structure):
    return functools.partial(models.gmm, num_components=2, covariance=structure)


ROUTES = {
    "full": (_model(models.full), (X,), {"weights": "closed", "loc": "closed", "covariance": "closed"}),
    "tied": (_model(models.tied), (X,), {"weights": "closed", "loc": "closed", "covariance": "closed"}),
    "spherical": (_model(models.spherical), (X,), {"weights": "closed", "loc": "closed", "scale": "closed"}),
    "shared spherical": (_model(models.shared_spherical), (X,), dict.fromkeys(("weights", "loc", "scale"), "closed")),
    "kmeans": (functools.partial(models.kmeans, num_components=2), (X,), {"loc": "closed"}),
    "poisson": (
        functools.partial(models.poisson_mixture, num_components=2),
        (COUNTS,),
        dict.fromkeys(("weights", "rate"), "closed"),
    ),
    "variance": (by_variance, (X,), {"loc": "closed", "variance": "numeric"}),
    "shared mean": (shared_mean, (X,), {"loc": "numeric", "covariance": "closed"}),
    "tied precision": (tied_precision, (X,), {"loc": "closed", "precision": "closed"}),
    "tril": (factor, (X,), {"loc": "closed", "tril": "numeric"}),
    "unused": (unused, (X,), {"loc": "closed", "forgotten": "unused"}),
    "fixed entries": (fixed_entries, (X,), {"loc": "closed", "scale": "closed"}),
    "partly shared": (partly_shared, (X,), dict.fromkeys(("loc", "first", "second"), "closed")),
    "softmax": (softmax_weights, (X,), {"logits": "numeric", "loc": "closed"}),
    "logits": (all_logits, (BITS,), {"weights": "closed", "logits": "closed"}),
    "tied over sites": (tied_over_sites, (COUNTS[:, 0], COUNTS[:, 1]), {"weights": "closed", "rate": "numeric"}),
    "priors": (
        EXAMPLES["priors"].program,
        EXAMPLES["priors"].data,
        {"weights": "mode", "loc": "mode", "scale": "numeric"},
    ),
    # A mean may fall outside the box.
    "boxed": (EXAMPLES["boxed"].program, EXAMPLES["boxed"].data, {"loc": "numeric"}),
    "nested": (
        EXAMPLES["nested"].program,
        EXAMPLES["nested"].data,
        dict.fromkeys(("weights", "inner", "loc"), "closed"),
    ),
    "factor analysers": (
        EXAMPLES["factor analysers"].program,
        EXAMPLES["factor analysers"].data,
        {"weights": "closed", "loc": "closed", "loading": "numeric", "noise": "numeric"},
    ),
    "directions": (
        EXAMPLES["directions"].program,
        EXAMPLES["directions"].data,
        {"weights": "closed", "mean_length": "closed", "scale": "closed"}
        | {"mean_angle": "gradient", "concentration": "gradient"},
    ),
    "experts": (EXAMPLES["experts"].program, EXAMPLES["experts"].data, {"gate": "gradient", "loc": "closed"}),
    "zero-inflated": (
        EXAMPLES["zero-inflated"].program,
        EXAMPLES["zero-inflated"].data,
        {"occupied": "closed", "rate": "closed"},
    ),
}


def in_short(*names):
    """The names given run by default; the others take their turn with the slow tests."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in ROUTES]


@pytest.mark.parametrize("name", in_short("partly shared", "directions"))
def test_routes(name: str) -> None:
    program, data, expected = ROUTES[name]
    assert routes(plan_of(program, *data)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", in_short("partly shared"))
def test_updates_reach_the_maximum(name: str) -> None:
    """SciPy starts from the parameters returned and finds nothing higher in the expected log joint and prior."""
    program, data, expected = ROUTES[name]
    plan = plan_of(program, *data)
    names = sorted(name for name, route in expected.items() if route in ("closed", "numeric", "mode"))
    known = plan.program
    bijections = {name: known.bijection(name) for name in names}
    shifts = {
        term.site: jnp.full((term.copies, *term.event_shape), 0.3 if term.view.is_location else 0.0)
        for term in plan.form.data_terms
    }
    q = np.random.default_rng(5).dirichlet(np.ones(plan.num_components), size=len(jax.tree.leaves(data)[0]))
    if name == "zero-inflated":
        q = plain.posterior(EXAMPLES[name].table())  # a row above zero cannot be of the first component

    @jax.jit
    def update(params):
        phi = plan.form.features(data, shifts)
        stats = Statistics(q.sum(0), q.T @ phi, shifts)
        return maximise(plan, stats, params)

    @jax.jit
    def expected_log_joint(unconstrained, others):
        """By the program alone: nothing of the exponential-family form is used."""
        params = {**others, **{name: bijections[name](value) for name, value in unconstrained.items()}}
        table = known.log_joint(params, data)
        return (q * jnp.where(q > 0, table, 0.0)).sum() + known.log_prior(params)

    start = {name: jnp.asarray(value) for name, value in known.random_params(7).items()}
    found = update(start)
    for _ in range(60 if plan.numeric else 1):  # coupled parameters take turns (ECM)
        found = update(found)
    at = {name: bijections[name].inv(found[name]) for name in names}
    flat, unravel = ravel_pytree(at)
    negative = jax.jit(jax.value_and_grad(lambda vector: -expected_log_joint(unravel(vector), found)))
    reached = float(negative(flat)[0])
    moved = {name: np.asarray(value) for name, value in found.items()}
    best = scipy.optimize.minimize(
        lambda vector: tuple(np.asarray(part, float) for part in negative(jnp.asarray(vector))),
        np.asarray(flat),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9},
    )
    # Both optimisers stop where the objective no longer tells points apart.
    assert reached <= best.fun + 1e-8 * (1 + abs(best.fun))
    if known.num_components > 1 and not plan.numeric:
        # A planted fault: parameters a hundredth off are seen to be lower.
        off = negative(flat + 0.01)[0]
        assert off > best.fun + 1e-6
    assert all(np.isfinite(value).all() for value in moved.values())


def within(constraint):
    """Two means of unit scale, which have to meet a constraint."""

    def program(x):
        initial = jnp.array([-0.4, -0.2]) if constraint is constraints.ordered_vector else jnp.array([0.2, 0.8])
        loc = numpyro.param("loc", initial, constraint=constraint)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.5, 0.5])))
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

    return program


# Some are so wide that the random means of the proof lie inside.
NARROWER = [constraints.interval(-3.0, 3.0), constraints.greater_than(-3.0), constraints.ordered_vector]


@pytest.mark.parametrize("constraint", NARROWER, ids=lambda constraint: type(constraint).__name__)
def test_less_room_than_the_argument_has_leaves_no_closed_form(constraint) -> None:
    """A weighted mean knows nothing of the constraint of its parameter."""
    assert routes(plan_of(within(constraint), X[:, 0])) == {"loc": "numeric"}


@pytest.mark.slow
def test_a_parameter_in_an_interval_is_the_maximum_there() -> None:
    """SciPy maximises the marginal likelihood in a box: one mean is held at its bound, the other lies inside."""
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(-2.0, 1.0, 30), random.normal(0.6, 1.0, 30)])

    def negative(loc):
        return -plain.log_likelihood(normal_table({"loc": loc[:, None]}, x[:, None]))

    best = scipy.optimize.minimize(negative, [-0.5, 0.8], bounds=[(-1.0, 3.0)] * 2, tol=1e-12)
    assert best.x[0] == -1.0
    fit = probem.fit(within(constraints.interval(-1.0, 3.0)), x, init=probem.Parameters({"loc": np.array([-0.5, 0.8])}))
    assert plain.rises(fit.history)
    assert (fit.params["loc"] >= -1).all()
    # Unconstrained space is flat near a bound: a step of the last thousandth gains next to nothing.
    np.testing.assert_allclose(fit.params["loc"], best.x, atol=1e-3)
    np.testing.assert_allclose(fit.elbo, -best.fun, atol=1e-3)


def test_an_empty_component_keeps_its_parameters() -> None:
    program, data, _ = ROUTES["full"]
    plan = plan_of(program, *data)
    shifts = {"x": jnp.zeros((1, 2))}
    q = np.zeros((20, 2))
    q[:, 0] = 1.0

    @jax.jit
    def update(params):
        return closed_updates(
            plan.mean_field, plan.closed, Statistics(q.sum(0), q.T @ plan.form.features(data, shifts), shifts), params
        )

    before = plan.program.random_params(3)
    after = update(before)
    np.testing.assert_array_equal(after["loc"][1], before["loc"][1])
    np.testing.assert_array_equal(after["covariance"][1], before["covariance"][1])
    np.testing.assert_allclose(after["loc"][0], np.mean(X, 0), rtol=1e-13)
    np.testing.assert_allclose(after["covariance"][0], np.cov(np.asarray(X).T, bias=True), rtol=1e-12)
    np.testing.assert_array_equal(after["weights"], [1.0, 0.0])


def test_a_plan_is_one_plan_for_equal_choices() -> None:
    program, data, _ = ROUTES["kmeans"]
    known = read(program, data)
    assert make_plan(known, Families(Delta())) is make_plan(known, Families(Delta()))
    assert make_plan(known, Families(Delta())) != make_plan(known, Families(Categorical()))
