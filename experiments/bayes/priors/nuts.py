"""E7: the posterior by NUTS and by variational Bayes, where clusters are apart and where they overlap."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import probem
from probem.checking.residuals import excess, violations
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.claims.kept import Kept

#: About so many rows of the data set are taken: all that is claimed can be seen on few.
NUM_ROWS = 100
#: How far the last third of the rows is moved to set them apart, in standard deviations of a component.
APART = 7.0
#: The spread of the prior of the centres.
SPREAD = 10.0
WARMUP, DRAWS = 300, 1000

#: Of a posterior mean, in standard deviations; of a ratio of standard deviations, from 1. A thousand draws that are
#: somewhat correlated know means to a twentieth of a standard deviation, and standard deviations to 5 per cent.
SAME_MEAN, SAME_DEVIATION = 0.2, 0.25
#: What mean-field leaves of at least one standard deviation where clusters overlap.
OVERCONFIDENT = 0.8


def two_normals(x: jax.Array) -> None:
    """Two normal distributions of standard deviation 1: weights ~ Dirichlet(1, 1), loc_k ~ N(0, SPREAD²)."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("components", 2):
        centre: Any = dist.Normal(jnp.zeros(1), SPREAD)
        loc: Any = numpyro.sample("loc", centre.to_event(1))
    with numpyro.plate("data", x.shape[0]):
        assignment: Any = dist.Categorical(probs=weights)
        t = numpyro.sample("t", assignment)
        row: Any = dist.Normal(loc[t], 1.0)
        numpyro.sample("x", row.to_event(1), obs=x)


@dataclasses.dataclass(frozen=True)
class Posteriors:
    """Of the two centres: mean and standard deviation ``[2]`` by variational Bayes, and draws ``[S, 2]`` of NUTS."""

    mean: np.ndarray
    deviation: np.ndarray
    draws: np.ndarray

    @property
    def shift(self) -> np.ndarray:
        """Difference of the means in standard deviations of NUTS, ``[2]``."""
        return (self.mean - self.draws.mean(axis=0)) / self.draws.std(axis=0)

    @property
    def ratio(self) -> np.ndarray:
        """Standard deviation of variational Bayes over that of NUTS, ``[2]``."""
        return self.deviation / self.draws.std(axis=0)


def settings(rows: np.ndarray) -> dict[str, np.ndarray]:
    """The rows as they are, overlapping, and with their last third set apart from the rest."""
    overlapping = rows[:: len(rows) // NUM_ROWS or 1]
    apart = overlapping.copy()
    apart[-(len(apart) // 3) :] += APART
    return {"overlapping": overlapping, "set apart": apart}


@functools.cache
def _sampler() -> "numpyro.infer.MCMC":
    """Compiled once: rows and start are arguments."""
    try:
        from numpyro.contrib.funsor import config_enumerate
    except ImportError as missing:
        raise ImportError(
            "claim E7 enumerates with NumPyro, which needs the package funsor: pip install funsor"
        ) from missing
    # NumPyro itself sums the assignments out, by funsor: nothing of the engine is in what is sampled.
    kernel = numpyro.infer.NUTS(config_enumerate(two_normals))
    return numpyro.infer.MCMC(kernel, num_warmup=WARMUP, num_samples=DRAWS, jit_model_args=True, progress_bar=False)


def posteriors(rows: np.ndarray, seed: int) -> Posteriors:
    """Both, from the same start: rows above the middle of their range are one component."""
    middle = (rows.min() + rows.max()) / 2
    start = probem.Labels((rows[:, 0] > middle).astype(int))
    fit = probem.fit(two_normals, rows, families=probem.VARIATIONAL_BAYES, init=start, tolerance=1e-12)
    q = {name: np.asarray(value) for name, value in fit.variational["loc"].items()}
    sampler = _sampler()
    # Unconstrained values at which NUTS starts: the mean of q.
    weights = dist.biject_to(dist.constraints.simplex).inv(fit.params["weights"])
    init = {"weights": weights, "loc": fit.params["loc"]}
    sampler.run(jax.random.key(seed), jnp.asarray(rows), init_params=init)
    draws = np.asarray(sampler.get_samples()["loc"])[:, :, 0]
    return Posteriors(q["loc"][:, 0], np.sqrt(q["covariance"][:, 0, 0]), draws)


@Kept
def each_setting(dataset: Dataset, seed: int) -> dict[str, Posteriors]:
    """Where clusters overlap, and where they are set apart."""
    return {name: posteriors(rows, seed) for name, rows in settings(dataset.rows).items()}


def beside_nuts(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E7: means and standard deviations side by side."""
    for name, both in each_setting(dataset, seed).items():
        rows = settings(dataset.rows)[name]
        numbers: dict[str, float | int | str] = {"rows": len(rows), "draws": len(both.draws)}
        for k in range(2):
            numbers[f"centre {k + 1}: mean by VB"] = float(both.mean[k])
            numbers[f"centre {k + 1}: mean by NUTS"] = float(both.draws[:, k].mean())
            numbers[f"centre {k + 1}: sd by VB"] = float(both.deviation[k])
            numbers[f"centre {k + 1}: sd by NUTS"] = float(both.draws[:, k].std())
        yield Check(
            "E7",
            dataset.name,
            f"{name}: draws of NUTS in which the two centres changed places",
            violations(both.draws[:, 0] < both.draws[:, 1]),
            0,
        )
        yield Check(
            "E7",
            dataset.name,
            f"{name}: posterior means of the centres by VB and by NUTS, in standard deviations",
            np.abs(both.shift),
            SAME_MEAN,
            numbers,
        )
        ratios: dict[str, float | int | str] = {
            "VB / NUTS, centre 1": float(both.ratio[0]),
            "VB / NUTS, centre 2": float(both.ratio[1]),
        }
        if name == "set apart":
            yield Check(
                "E7",
                dataset.name,
                f"{name}: standard deviations by VB over those by NUTS, and 1",
                np.abs(both.ratio - 1),
                SAME_DEVIATION,
                ratios,
            )
        else:
            yield Check(
                "E7",
                dataset.name,
                f"{name}: VB’s standard deviations are smaller; by how much the smaller ratio exceeds {OVERCONFIDENT}, "
                "and any ratio exceeds 1",
                excess(both.ratio.min(), OVERCONFIDENT) + excess(both.ratio, 1.0),
                0.0,
                ratios,
            )
