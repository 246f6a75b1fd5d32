"""Programs drawn at random: where a fit says CONVERGED, SciPy climbs no higher from there.

    python -m probem.experiments.verification.random_programs --examples 300

A program is drawn from families of observations, ways to write their parameters (closed, numeric and gradient routes),
priors, constraints and units. The other side is NumPyro's enumeration of the same program (funsor), maximised over
unconstrained values by SciPy's trust-region Newton method from where the fit ended.
"""

import argparse
import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.optimize
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to, constraints

import probem
from probem.errors import FitError
from probem.jit.compilation import of_foreign_code

#: Nats by which SciPy may climb from where a fit says CONVERGED.
ALLOWED = 1e-6

WEIGHTS = ("free", "equal", "dirichlet", "logits", "gate")
LOCATIONS = ("free", "normal", "student", "cauchy", "ordered", "symmetric", "regression")
SCALES = ("each", "shared", "variance", "precision", "log", "halfnormal", "lognormal", "fixed")
RATES = ("free", "log", "gamma", "increasing")
FAMILIES = ("normal", "normal", "laplace", "student", "poisson", "exponential", "gamma")


# NumPyro declares that both may return None.
_param: Callable[..., Any] = numpyro.param
_sample: Callable[..., Any] = numpyro.sample


@dataclasses.dataclass(frozen=True)
class Sketch:
    """What a program is made of. ``unit`` is the power of ten of the unit in which real rows are measured."""

    family: str
    num_components: int
    weights: str
    location: str
    scale: str
    unit: int
    seed: int

    @property
    def size(self) -> float:
        """One standard deviation of a component, roughly, in units of the rows."""
        return 10.0**self.unit if self.is_real else 1.0

    @property
    def is_real(self) -> bool:
        """Whether the rows have a location and a scale."""
        return self.family in ("normal", "laplace", "student")

    @property
    def covariate(self) -> bool:
        """Whether the program takes a covariate beside the rows."""
        return self.weights == "gate" or self.location == "regression"


@st.composite
def sketches(draw: Any) -> Sketch:
    """Any program that can be drawn."""
    family = draw(st.sampled_from(FAMILIES))
    real = family in ("normal", "laplace", "student")
    return Sketch(
        family=family,
        num_components=draw(st.integers(2, 3)),
        weights=draw(st.sampled_from(WEIGHTS)),
        location=draw(st.sampled_from(LOCATIONS if real else RATES)),
        scale=draw(st.sampled_from(SCALES)) if real else "fixed",
        unit=draw(st.integers(-8, 8)) if real else 0,
        seed=draw(st.integers(0, 10**6)),
    )


def program(sketch: Sketch, x: Any, z: Any = None) -> None:
    """The mixture of a sketch: rows ``x`` [N] and, where there is one, a covariate ``z`` [N]."""
    weights = _weights(sketch, z)
    arguments = _real(sketch) if sketch.is_real else _rates(sketch)
    with numpyro.plate("data", x.shape[0]):
        t = _sample("t", dist.Categorical(probs=weights))
        _sample("x", _density(sketch, arguments, t, z), obs=x)


def _weights(sketch: Sketch, z: Any) -> Any:
    count = sketch.num_components
    even = jnp.full(count, 1 / count)
    if sketch.weights == "equal":
        return even
    if sketch.weights == "dirichlet":
        return _sample("weights", dist.Dirichlet(jnp.full(count, 1.5)))
    if sketch.weights == "free":
        return _param("weights", even, constraint=constraints.simplex)
    logits = _param("logits", jnp.linspace(0.1, 0.3, count - 1))
    if sketch.weights == "logits":
        return jax.nn.softmax(jnp.concatenate([jnp.zeros(1), logits]))
    slopes = _param("slopes", jnp.linspace(0.2, -0.2, count - 1))
    scores = logits + slopes * z[:, None]
    return jax.nn.softmax(jnp.concatenate([jnp.zeros((z.shape[0], 1)), scores], 1), -1)


def _real(sketch: Sketch) -> tuple[Any, Any]:
    count, size = sketch.num_components, sketch.size
    places = size * jnp.linspace(-2.0, 2.5, count)
    kind = sketch.location
    priors = {
        "normal": dist.Normal(0.0, 5.0 * size),
        "student": dist.StudentT(3.0, 0.5 * size, 2.0 * size),
        "cauchy": dist.Cauchy(0.0, 2.0 * size),
    }
    if kind in priors:
        with numpyro.plate("components", count):
            location = _sample("location", priors[kind])
    elif kind == "ordered":
        low = _param("low", places[0])
        gaps = _param("gaps", jnp.full(count - 1, 1.5 * size), constraint=constraints.positive)
        location = low + jnp.concatenate([jnp.zeros(1), jnp.cumsum(gaps)])
    elif kind == "symmetric":
        location = _param("half", jnp.asarray(1.5 * size)) * jnp.linspace(-1.0, 1.0, count)
    else:
        location = _param("location", places)
        if kind == "regression":
            location = (location, _param("slope", size * jnp.linspace(-0.5, 0.5, count)))
    return location, _scale(sketch)


def _scale(sketch: Sketch) -> Any:
    count, size, kind = sketch.num_components, sketch.size, sketch.scale
    ones = jnp.ones(count)
    if kind == "fixed":
        return size * ones
    if kind == "shared":
        return _param("scale", jnp.asarray(1.3 * size), constraint=constraints.positive) * ones
    if kind == "log":
        return jnp.exp(_param("log_scale", jnp.log(1.3 * size) * ones))
    if kind in ("halfnormal", "lognormal"):
        prior: Any = dist.HalfNormal(2.0 * size) if kind == "halfnormal" else dist.LogNormal(jnp.log(size), 0.7)
        with numpyro.plate("scales", count):
            return _sample("scale", prior)
    value = {"each": size, "variance": size**2, "precision": size**-2}[kind]
    param = _param(kind, 1.3 * value * ones, constraint=constraints.positive)
    return {"each": param, "variance": jnp.sqrt(param), "precision": 1 / jnp.sqrt(param)}[kind]


def _rates(sketch: Sketch) -> tuple[Any, Any]:
    count, kind = sketch.num_components, sketch.location
    places = jnp.linspace(0.8, 5.0, count)
    if kind == "gamma":
        with numpyro.plate("components", count):
            return _sample("rate", dist.Gamma(2.0, 0.5)), None
    if kind == "log":
        return jnp.exp(_param("log_rate", jnp.log(places))), None
    rate = _param("rate", places, constraint=constraints.positive)
    return (jnp.cumsum(rate) if kind == "increasing" else rate), None


def _density(sketch: Sketch, arguments: tuple[Any, Any], t: Any, z: Any) -> dist.Distribution:
    location, scale = arguments
    if sketch.family == "poisson":
        return dist.Poisson(location[t])
    if sketch.family == "exponential":
        return dist.Exponential(location[t])
    if sketch.family == "gamma":
        return dist.Gamma(2.5, location[t])
    if isinstance(location, tuple):
        location = location[0][t] + location[1][t] * z
    else:
        location = location[t]
    if sketch.family == "student":
        return dist.StudentT(4.0, location, scale[t])
    return (dist.Normal if sketch.family == "normal" else dist.Laplace)(location, scale[t])


def rows(sketch: Sketch, num_rows: int = 60) -> tuple[np.ndarray, ...]:
    """Data drawn from a mixture of that kind, ``[N]`` each."""
    random = np.random.default_rng(sketch.seed)
    t = random.integers(0, sketch.num_components, num_rows)
    z = random.normal(size=num_rows)
    if sketch.is_real:
        location = random.normal(0.0, random.uniform(0.5, 4.0), sketch.num_components)
        noise = {"normal": random.normal, "laplace": random.laplace, "student": lambda size: random.standard_t(4, size)}
        x = location[t] + random.uniform(0.5, 2.0, sketch.num_components)[t] * noise[sketch.family](size=num_rows)
        x = sketch.size * (x + 0.5 * z * (sketch.location == "regression"))
    else:
        rate = random.uniform(0.3, 6.0, sketch.num_components)[t]
        draws = {
            "poisson": lambda: random.poisson(rate).astype(float),
            "exponential": lambda: random.exponential(1 / rate),
            "gamma": lambda: random.gamma(2.5, 1 / rate),
        }
        x = draws[sketch.family]()
    return (x, z) if sketch.covariate else (x,)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a fit ended, how far SciPy climbs from there, and how far F is from NumPyro's log density, nats, totals."""

    sketch: Sketch
    result: str
    elbo: float
    climbs: float
    differs: float

    @property
    def holds(self) -> bool:
        """Whether what says CONVERGED is a maximum, and F the log density at its parameters."""
        rounding = 1e-13 * abs(self.elbo)
        converged = not self.climbs <= ALLOWED + rounding
        return not (self.result == "CONVERGED" and converged) and self.differs <= 1e-9 * (1 + abs(self.elbo))


def try_out(sketch: Sketch) -> Outcome:
    """Fit the program of a sketch, and climb on from where it ended."""
    data = rows(sketch)
    bound = functools.partial(program, sketch)
    fit = probem.fit(bound, *data, throw=False, max_steps=20000)
    assert fit.result is not None
    log_density, start = numpyros(bound, data, dict(fit.params))
    elbo = float(log_density(start)[0])
    differs = abs(fit.elbo - elbo) if np.isfinite(fit.elbo) else 0.0
    climbs = 0.0 if fit.result.name != "CONVERGED" else climb(log_density, start) - elbo
    return Outcome(sketch, fit.result.name, fit.elbo, climbs, differs)


def numpyros(
    bound: Callable[..., None], data: tuple[np.ndarray, ...], params: dict[str, Any]
) -> tuple[Callable[[np.ndarray], tuple[Any, Any, Any]], np.ndarray]:
    """NumPyro's log p(X, parameters), its gradient and Hessian in unconstrained values; and those of ``params``."""
    from numpyro.contrib.funsor import config_enumerate, enum, log_density
    from numpyro.handlers import seed, trace

    bijections: dict[str, Any] = {}

    def look(*data: Any) -> None:
        sites = trace(seed(bound, 0)).get_trace(*data)
        for name in params:
            site = sites[name]
            constraint = site["fn"].support if site["type"] == "sample" else site["kwargs"].get("constraint")
            bijections[name] = biject_to(constraint or constraints.real)

    # Nothing is computed: no support here has a bound that is.
    jax.eval_shape(look, *data)

    @jax.jit
    def unconstrained(params: dict[str, Any]) -> Any:
        return ravel_pytree({name: bijections[name].inv(value) for name, value in params.items()})[0]

    def value(values: dict[str, Any], data: tuple[Any, ...]) -> Any:
        with enum(first_available_dim=-2):
            return log_density(config_enumerate(bound), data, {}, values)[0]

    shapes = {name: bijections[name].inverse_shape(np.shape(params[name])) for name in params}

    @of_foreign_code
    def all_of(vector: Any, data: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        _, unravel = ravel_pytree({name: jnp.zeros(shape) for name, shape in shapes.items()})

        def at(vector: Any) -> Any:
            return value({name: bijections[name](part) for name, part in unravel(vector).items()}, data)

        def slope(vector: Any) -> tuple[Any, tuple[Any, Any]]:
            height, found = jax.value_and_grad(at)(vector)
            return found, (height, found)

        curvature, (height, found) = jax.jacfwd(slope, has_aux=True)(vector)
        return height, found, curvature

    return lambda vector: all_of(vector, data), np.asarray(unconstrained(params))


def climb(log_density: Callable[[Any], tuple[Any, Any, Any]], start: np.ndarray) -> float:
    """The highest log density that SciPy reaches from ``start``, nats."""
    hessian = np.asarray(log_density(start)[2])
    scale = 1 / np.sqrt(np.maximum(np.abs(np.diag(hessian)), np.finfo(float).tiny))
    scale = np.where(np.abs(np.diag(hessian)) > 0, scale, 1.0)

    @functools.lru_cache(maxsize=8)
    def parts(key: bytes) -> tuple[float, np.ndarray, np.ndarray]:
        value, gradient, hessian = map(np.asarray, log_density(start + scale * np.frombuffer(key)))
        if not (np.isfinite(value) and np.isfinite(gradient).all() and np.isfinite(hessian).all()):
            return np.inf, np.zeros_like(start), np.eye(len(start))
        return -float(value), -scale * gradient, -scale[:, None] * hessian * scale

    minimum = scipy.optimize.minimize(
        lambda place: parts(place.tobytes())[0],
        np.zeros_like(start),
        jac=lambda place: parts(place.tobytes())[1],
        hess=lambda place: parts(place.tobytes())[2],
        method="trust-exact",
        options={"gtol": 1e-9, "maxiter": 200, "initial_trust_radius": 0.1},
    )
    return -float(minimum.fun)


def main() -> None:
    """Try many programs, and say how they ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=300)
    examples = parser.parse_args().examples
    numpyro.enable_x64()
    ended: collections.Counter[str] = collections.Counter()
    wrong = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.large_base_example),
    )
    @given(sketch=sketches())
    def tried(sketch: Sketch) -> None:
        try:
            outcome = try_out(sketch)
        except (probem.InputError, FitError) as error:
            ended["refused"] += 1
            print(f"refused: {sketch}: {error}", flush=True)
            return
        ended[outcome.result] += 1
        if outcome.result != "CONVERGED":
            print(f"{outcome.result}: {sketch}", flush=True)
        if not outcome.holds:
            wrong.append(outcome)
            print(f"WRONG: {outcome}", flush=True)
        if sum(ended.values()) % 20 == 0:
            print(dict(ended), f"{len(wrong)} wrong", flush=True)
            jax.clear_caches()

    tried()
    print(f"{sum(ended.values())} programs: {dict(ended)}; {len(wrong)} wrong")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
