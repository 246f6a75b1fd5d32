"""The way back to NumPyro: the program with its assignments summed out, q as a guide, draws."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, PRNGKeyArray, Shaped
from numpyro import handlers

from probem.data.checks import check_data, check_not_sparse
from probem.errors import InputError
from probem.jit.compilation import by_plan, concrete
from probem.jit.tracing import isolated, unchecked
from probem.mean_field import distributions as posterior
from probem.plan.plan import Plan
from probem.program.program import Program
from probem.program.reading import read
from probem.program.sites import Params


def marginalize(program: Callable[..., Any]) -> Callable[..., None]:
    """A program with its assignments summed out, for NUTS, SVI or anything else in NumPyro.

    Its global sites are those of ``program``; in place of the assignment and observed sites stands a ``factor`` site
    ``"<observed sites>_marginal"`` in the data plate, with log p(x_n | theta) = log sum_k p(x_n, t_n = k | theta),
    nats, for every row.

    Parameters
    ----------
    program : a NumPyro program of its data, everything else bound beforehand

    Returns
    -------
    Callable : a NumPyro program of the same data, which raises ``InputError`` where ``fit`` would refuse ``program``

    Examples
    --------
    >>> from numpyro.infer.util import log_density
    >>> from functools import partial
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import gmm
    >>> numpyro.enable_x64()
    >>> program = partial(gmm, num_components=2)
    >>> x = np.r_[0.0:6, 100:106][:, None]
    >>> fit = probem.fit(program, x)
    >>> total, sites = log_density(probem.marginalize(program), (x,), {}, fit.params)
    >>> sorted(sites)
    ['covariance', 'data', 'loc', 'weights', 'x_marginal']
    >>> bool(np.isclose(total, fit.log_density(x).sum(), rtol=1e-4))
    True
    """

    def marginal(*data: Any) -> None:
        check_not_sparse(data)
        arrays = jax.tree.map(jnp.asarray, data)
        reading = read(program, arrays)
        local = {*reading.local, reading.plate}
        with unchecked(), handlers.block(hide_fn=lambda site: site["name"] in local):
            sites = reading.enumerated_trace({}, arrays, seeded=False)
        table = reading.table(sites, reading.local)
        name = "_".join(reading.observed) + "_marginal"
        with numpyro.plate(reading.plate, table.shape[0]):
            numpyro.factor(name, jax.nn.logsumexp(table, axis=1))

    return marginal


def guide(
    plan: Plan, variational: Params, params: Mapping[str, Any], responsibilities: Callable[..., Any] | None
) -> Callable[..., None]:
    """q as a NumPyro guide of the same data; without ``responsibilities``, of the program that sums assignments out.

    Assignments follow q(t_n) (marked for enumeration where q is not a point mass); sites with a prior follow their q,
    or are point masses at their values. The arguments of a full posterior are ``param`` sites, which SVI starts from.
    Parameters without a prior belong to the model: pass their values in ``fit.params`` to the ELBO, and of no site with
    a full posterior, which NumPyro would put in the place of every draw.
    """
    program = plan.program
    for site in program.assignments:
        if responsibilities is not None and site.support != tuple(range(site.size)):
            raise InputError(
                f"a guide for '{site.name}' with the values {site.support}",
                "assignment sites with the values 0, 1, ...",
                "write the site as a Categorical",
            )

    def fitted_guide(*data: Any) -> None:
        posterior.draw(plan.mean_field, posterior.learnable(plan.mean_field, variational))
        for site in plan.point_sites:
            if site.has_prior:
                value = jnp.asarray(params[site.name])
                with site.in_plates():
                    numpyro.sample(site.name, dist.Delta(value, event_dim=site.event_ndim))
        if responsibilities is None:
            return
        probabilities = jnp.asarray(responsibilities(*data))
        sizes = program.enumeration_shape
        joint = probabilities.reshape(-1, *sizes)
        rows = jnp.arange(joint.shape[0])
        # Rows lie left of the plates inside theirs, if any.
        inner = (1,) * (-program.plate_dim - 1)
        with numpyro.plate(program.plate, joint.shape[0], dim=program.plate_dim):
            for site in program.assignments:
                # q(t, z, ...) by the chain rule, first site first.
                rest = tuple(range(2, joint.ndim))
                marginal = joint.sum(rest) if rest else joint
                support = jnp.asarray(site.support)
                if plan.is_point:
                    index = jnp.argmax(marginal, 1)
                    value = support[index].reshape(-1, *inner)
                    numpyro.sample(site.name, dist.Delta(value))
                else:
                    # Finite logits: NumPyro's enumerated bound multiplies a q of zero by its logarithm.
                    logits = jnp.log(jnp.maximum(marginal, jnp.finfo(marginal.dtype).tiny))
                    infer = {"enumerate": "parallel"} if len(sizes) == 1 else {}
                    conditional: Any = dist.Categorical(logits=logits.reshape(-1, *inner, site.size))
                    value: Any = numpyro.sample(site.name, conditional, infer=infer)
                    index = value.reshape(-1) if rest else value
                if rest:
                    joint = joint[rows, index]

    return fitted_guide


@isolated()  # a covariance of columns on very different scales fails NumPyro's check, though not its Cholesky factor
def sample(
    plan: Plan, variational: Params, key: PRNGKeyArray | int, num_rows: int, covariates: tuple[Any, ...]
) -> dict[str, Array]:
    """Draw rows from the program: assignment and observed sites by name, the rows on the axis of the data plate."""
    program = plan.program
    if isinstance(num_rows, bool) or not isinstance(num_rows, int | np.integer) or num_rows < 1:
        raise InputError(f"num_rows={num_rows!r}", "a whole number of at least 1", "change it")
    variational = jax.tree.map(jnp.asarray, dict(variational))
    if covariates:
        data = check_data(covariates)
        if jax.tree.leaves(data)[0].shape[0] != num_rows:
            raise InputError(
                f"covariates with {jax.tree.leaves(data)[0].shape[0]} rows for {num_rows} draws",
                "as many",
                "align them",
            )
    else:
        data = program.spec.zeros(num_rows)
        _refuse_covariates(program, plan.mean_field.centre(variational)[0])
    key = jax.random.key(key) if isinstance(key, int | np.integer) else key
    return _sampled(plan, variational, key, jax.tree.map(jnp.asarray, data))


@functools.partial(by_plan, foreign=True)
def _sampled(plan: Plan, variational: Params, key: PRNGKeyArray, data: tuple[Any, ...]) -> dict[str, Array]:
    program, mean_field = plan.program, plan.mean_field
    points = mean_field.points(variational)

    def rows(key: PRNGKeyArray, params: Params, data: tuple[Any, ...]) -> dict[str, Array]:
        substituted = handlers.substitute(handlers.seed(program.function, key), data=params)
        # Inside, so that what is sampled is what a site further down depends on.
        sites = handlers.trace(handlers.uncondition(substituted)).get_trace(*data)
        return {name: sites[name]["value"] for name in program.local}

    if not mean_field.is_bayesian:
        return rows(key, points, data)

    def row(key: PRNGKeyArray, data: tuple[Any, ...]) -> dict[str, Array]:
        first, second = jax.random.split(key)
        with handlers.seed(rng_seed=first):
            params = {**points, **posterior.draw(mean_field, variational)}
        values = rows(second, params, jax.tree.map(lambda leaf: leaf[None], data))
        return {name: value.squeeze(axes[name]) for name, value in values.items()}

    axes = {name: program.plate_dim - program.event_ndims.get(name, 0) for name in program.local}
    draws = jax.vmap(row)(jax.random.split(key, jax.tree.leaves(data)[0].shape[0]), data)
    # Drawn with the rows first; back to where the program has them.
    return {name: jnp.moveaxis(value, 0, value.ndim + axes[name]) for name, value in draws.items()}


@isolated()
def _refuse_covariates(program: Program, params: Mapping[str, Any]) -> None:
    """A draw without data is only right where no density depends on part of the data."""

    def other(leaf: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        return jnp.full_like(leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.ones_like(leaf)

    zeros = program.spec.zeros(2)
    with jax.debug_nans(False):
        first, second = (_arguments(program, params, data) for data in (zeros, jax.tree.map(other, zeros)))
    dependent = [name for name in program.observed if not all(map(np.array_equal, first[name], second[name]))]
    if dependent:
        raise InputError(
            f"no covariates for '{dependent[0]}', whose density depends on the data arguments",
            "the data arguments for the rows to draw",
            "call sample(key, num_rows, *data)",
        )


@concrete
def _arguments(program: Program, params: Params, data: tuple[Any, ...]) -> dict[str, list[Array]]:
    """The arguments of the densities of all observed sites, in a run of the program."""
    substituted = handlers.substitute(handlers.seed(program.function, 0), data=params)
    sites = handlers.trace(handlers.uncondition(substituted)).get_trace(*data)
    numbers = {name: map(jnp.asarray, jax.tree.leaves(sites[name]["fn"])) for name in program.observed}
    # What is masked matters to no draw.
    return {name: [leaf for leaf in leaves if leaf.dtype != bool] for name, leaves in numbers.items()}
