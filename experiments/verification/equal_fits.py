"""Some forty fits, written to a file by one state of the code and compared with those of another.

    python -m probem.experiments.verification.equal_fits write before.npz
    python -m probem.experiments.verification.equal_fits compare before.npz after.npz

A restructuring leaves all of them as they are: the same results after as many steps, with F and the parameters equal to
rounding. The second command says which are not, and ends with exit code 1 then.
"""

import functools
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import probem
from probem import models

# Relative differences of F and of the parameters (beside the largest of them) that rounding explains, in float64 and in
# float32.
_ALLOWED = {False: (1e-10, 1e-6), True: (1e-5, 1e-3)}
_NUM_ROWS = 240
# What they return is declared as unions with None.
_param: Any = numpyro.param
_sample: Any = numpyro.sample


def student(x: jax.Array) -> None:
    """Two Student t: a density without an exponential-family form."""
    weights = _param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc = _param("loc", jnp.arange(2) * 1.0)
    scale = _param("scale", jnp.ones(2), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = _sample("t", dist.Categorical(weights))
        _sample("x", dist.StudentT(4.0, loc[t], scale[t]), obs=x)


def gate(x: jax.Array, y: jax.Array) -> None:
    """Two lines, with a gate that follows the covariate."""
    weights = _param("weights", jnp.zeros((2, 2)))
    line = _param("line", jnp.array([[0.0, 1.0], [1.0, -1.0]]))
    scale = _param("scale", jnp.ones(2), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = _sample("t", dist.Categorical(logits=weights[:, 0] + x[:, None] * weights[:, 1]))
        _sample("y", dist.Normal(line[t, 0] + line[t, 1] * x, scale[t]), obs=y)


def half_cauchy(x: jax.Array) -> None:
    """A prior on the scale that is not conjugate: maximised numerically."""
    weights = _sample("weights", dist.Dirichlet(jnp.ones(2)))
    loc = _sample("loc", dist.Normal(0, 10).expand([2]))
    scale = _sample("scale", dist.HalfCauchy(1.0).expand([2]))
    with numpyro.plate("data", x.shape[0]):
        t = _sample("t", dist.Categorical(weights))
        _sample("x", dist.Normal(loc[t], scale[t]), obs=x)


def factor_analysers(x: jax.Array) -> None:
    """Covariances of a factor and a diagonal: maximised numerically without a prior."""
    weights = _param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc = _param("loc", jnp.array([[0.0, 0.0], [1.0, 1.0]]))
    loading = _param("loading", jnp.ones((2, 2, 1)))
    noise = _param("noise", jnp.ones(2), constraint=dist.constraints.positive)
    covariance = loading @ jnp.swapaxes(loading, -1, -2) + jnp.diag(noise)
    with numpyro.plate("data", x.shape[0]):
        t = _sample("t", dist.Categorical(weights))
        _sample("x", dist.MultivariateNormal(loc[t], covariance_matrix=covariance[t]), obs=x)


def fits() -> Iterator[tuple[str, probem.Fit]]:
    """Every fit by name."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], _NUM_ROWS // 3)
    x = np.array([[0.0, 0.0], [4.0, 1.0], [-3.0, 3.0]])[labels]
    x = x + random.normal(size=x.shape) @ np.array([[1.0, 0.3], [0.0, 0.7]])
    large = np.tile(x, (100, 1)) + 0.1 * random.normal(size=(100 * _NUM_ROWS, 2))
    gaps = np.where(random.random(x.shape) < 0.1, np.nan, x)
    counts = random.poisson(np.repeat([2.0, 9.0], 100)[:, None], (200, 2))
    bits = (random.random((200, 6)) < np.repeat([0.2, 0.8], 100)[:, None]).astype(float)
    covariate = random.normal(size=200)
    first = random.random(200) < 1 / (1 + np.exp(-2 * covariate))
    response = np.where(first, 1 + 2 * covariate, -1 - covariate) + 0.2 * random.normal(size=200)

    def gmm(**options: Any) -> Any:
        return functools.partial(models.gmm, num_components=3, **options)

    kmeans = functools.partial(models.kmeans, num_components=3)
    bayesian = functools.partial(
        models.bayesian_gmm, num_components=3, prior=models.GaussianPrior.from_data(jnp.asarray(x), 3)
    )
    rates = functools.partial(
        models.bayesian_poisson_mixture, num_components=2, prior=models.RatePrior.from_data(jnp.asarray(counts))
    )
    hard, bayes = {"families": probem.HARD_EM}, {"families": probem.VARIATIONAL_BAYES}
    asked: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
        "EM": (gmm(), (x,), {}),
        "hard EM": (gmm(), (x,), hard),
        "k-means": (kmeans, (x,), hard),
        "soft k-means": (kmeans, (x,), {}),
        **{name: (gmm(covariance=getattr(models, name)), (x,), {}) for name in ("tied", "diagonal", "spherical")},
        "far from zero": (gmm(), (x + 1e6,), {}),
        "float32": (gmm(), (x.astype(np.float32),), {"tolerance": 1e-6}),
        "several blocks": (gmm(), (large,), {"max_steps": 60}),
        "k-means in several blocks": (kmeans, (large,), hard),
        "restarts in several blocks": (kmeans, (large,), hard | {"restarts": 3}),
        "restarts": (gmm(), (x,), {"restarts": 4}),
        "row weights": (gmm(), (x,), {"row_weights": random.integers(0, 3, _NUM_ROWS)}),
        "known labels": (gmm(), (x,), {"labels": np.where(np.arange(_NUM_ROWS) % 9, -1, labels)}),
        "fixed weights": (gmm(), (x,), {"fixed": {"weights": np.full(3, 1 / 3)}}),
        "added variance": (gmm(), (x,), {"added_variance": 0.1}),
        "gap recorded": (gmm(), (x,), {"record_gap": True}),
        "missing values": (gmm(), (gaps,), {}),
        "missing values, diagonal": (gmm(covariance=models.diagonal), (gaps,), {}),
        "missing values, hard EM": (gmm(), (gaps,), hard),
        "tempered": (gmm(), (x,), {"families": {"t": probem.Tempered(0.5)}}),
        "truncated": (gmm(), (x,), {"families": {"t": probem.TopC(2)}}),
        "relocation": (kmeans, (x,), {"families": {"t": probem.Delta(fill_empty=True)}}),
        "random rows": (gmm(), (x,), {"init": probem.RandomRows()}),
        "from labels": (gmm(), (x,), {"init": probem.Labels(labels)}),
        "variational Bayes": (bayesian, (x,), bayes),
        "maximisation-expectation": (bayesian, (x,), {"families": probem.MAXIMIZATION_EXPECTATION}),
        "MAP": (bayesian, (x,), {}),
        "variational Bayes, missing values": (bayesian, (gaps,), bayes),
        "Bernoulli": (functools.partial(models.bernoulli_mixture, num_components=2), (bits,), {}),
        "Poisson": (functools.partial(models.poisson_mixture, num_components=2), (counts,), {}),
        "Poisson, variational Bayes": (rates, (counts,), bayes),
        "gradient": (student, (x[:, 0],), {}),
        "gradient, hard EM": (student, (x[:, 0],), hard),
        "gradient, gate": (gate, (covariate, response), {}),
        "numeric prior": (half_cauchy, (x[:, 0],), {}),
        "numeric": (factor_analysers, (x,), {}),
    }
    for name, (program, data, options) in asked.items():
        fit = probem.fit(program, *data, throw=False, **options)
        yield name, fit
        if name == "EM":
            yield "absorbed", probem.absorb(fit, x[:50])
    sets = np.stack([x, x + random.normal(size=x.shape), 2 * x])
    for number, fit in enumerate(probem.fit_many(gmm(), sets, throw=False, restarts=2)):
        yield f"data set {number} of many", fit


def write(path: str) -> int:
    """Write what every fit ended with; returns their number."""
    arrays: dict[str, Any] = {}
    for name, fit in fits():
        result = fit.result.name if fit.result else ""
        arrays |= {f"{name}/F": fit.elbo, f"{name}/end": np.array(f"{result} after {fit.num_steps} steps")}
        arrays |= {f"{name}/params/{site}": np.asarray(value) for site, value in fit.params.items()}
    np.savez(path, **arrays)
    return sum(name.endswith("/F") for name in arrays)


def differences(before: str, after: str) -> Iterator[str]:
    """What is different, a line for each."""
    first, second = np.load(before), np.load(after)
    if set(first.files) != set(second.files):
        yield f"other fits or parameters: {sorted(set(first.files) ^ set(second.files))}"
    for key in first.files:
        if key not in second.files:
            continue
        old, new = first[key], second[key]
        if key.endswith("/end"):
            if old != new:
                yield f"{key.removesuffix('/end')}: {old}, now {new}"
            continue
        allowed = _ALLOWED["float32" in key][0 if key.endswith("/F") else 1]
        change = float(np.abs(old - new).max()) / max(float(np.abs(old).max()), np.finfo(float).tiny)
        if not change <= allowed:
            yield f"{key}: a relative difference of {change:.2g}, where rounding explains {allowed:.0e}"


if __name__ == "__main__":
    numpyro.enable_x64()
    if sys.argv[1:2] == ["write"] and len(sys.argv) == 3:
        print(f"{write(sys.argv[2])} fits in {sys.argv[2]}")
    elif sys.argv[1:2] == ["compare"] and len(sys.argv) == 4:
        different = list(differences(*sys.argv[2:]))
        print("\n".join(different) or "all fits are equal")
        sys.exit(bool(different))
    else:
        sys.exit(__doc__)
