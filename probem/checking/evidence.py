"""The exact log evidence of a Bayesian mixture of few rows, by enumeration of all assignments."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro import handlers
from numpyro.infer.util import log_density

from probem.analysis.options import FitOptions
from probem.analysis.problem import Problem, parse
from probem.checking.observed import WholeNumbers
from probem.data.blocks import Block
from probem.e_step.evaluation import all_features
from probem.e_step.passes import Pass
from probem.e_step.preparation import prepare
from probem.errors import InputError
from probem.families import VARIATIONAL_BAYES
from probem.form.statistics import DataTotals, Statistics
from probem.jit.compilation import Effort, by_plan
from probem.jit.precision import precision
from probem.jit.structure import Structure
from probem.jit.tracing import isolated
from probem.mean_field import distributions
from probem.mean_field.mean_field import objective
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.solver.start import initial_params

#: The most labellings of all rows that are enumerated.
MOST_LABELLINGS = 2**20

# Labellings whose marginal likelihoods are computed at once, and those of them by which the posterior is seen to be
# exact.
_AT_ONCE, _PROBED = 4096, 3
# Sums of some hundred special functions of either sign, in float64.
_EQUAL = 1e-8


def evidence(program: Callable[..., Any], *data: Any) -> float:
    """The exact log evidence of a program whose parameters have conjugate priors, by enumeration of its assignments.

        log p(X) = log sum_T p(X, T),    p(X, T) = int p(X, T, theta) dtheta

    in float64, over all K^N labellings T. Given T the posterior of the parameters is in closed form, and with it
    p(X, T) = p(X, T, theta) / p(theta | X, T) at every theta, which is tried at several. No F of a fit exceeds it.
    Source: Chib (1995), Marginal likelihood from the Gibbs output, eq. 3.

    Parameters
    ----------
    program : a NumPyro program of its data, all of whose sites outside the plate have conjugate priors
    data : arrays (or pytrees of arrays) with the same number N of rows, without missing values

    Returns
    -------
    float : nats, total over the rows

    Raises
    ------
    InputError
        For a program or data that cannot be used; more than 2^20 labellings; a parameter without a prior, or with one
        that is not conjugate; and parameters that are not independent given the assignments in the way that q takes
        them to be, such as a hyperparameter with a prior.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import probem
    >>> from probem.models import GaussianPrior, bayesian_gmm
    >>> x = np.array([[-2.0], [-1.0], [1.5], [2.0]])
    >>> program = partial(bayesian_gmm, num_components=2, prior=GaussianPrior(np.zeros(1), 0.1, 3.0, np.eye(1)))
    >>> fit = probem.fit(program, x, families=probem.VARIATIONAL_BAYES)
    >>> bool(fit.elbo < probem.evidence(program, x))
    True
    """
    with precision(np.float64):
        return _evidence(program, jax.tree.map(_in_float64, data))


def _in_float64(leaf: Any) -> Any:
    is_floating = isinstance(leaf, np.ndarray | jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
    return np.asarray(leaf, np.float64) if is_floating else leaf


def _evidence(program: Callable[..., Any], data: tuple[Any, ...]) -> float:
    problem = parse(program, data, FitOptions(families=VARIATIONAL_BAYES))
    plan, num_rows = problem.plan, problem.rows.num_rows
    check_enumerable(plan.num_components, num_rows)
    _check(problem)
    data_pass = Pass.of(plan, problem.rows)
    totals = prepare(data_pass).totals
    features = np.asarray(_features(plan, totals, data_pass.blocks[0]))[:num_rows]
    run = functools.partial(_log_marginals, plan, initial_params(plan, problem.rows.data), totals, features)
    num_labellings = plan.num_components**num_rows
    size = min(_AT_ONCE, num_labellings)
    num_batches = -(-num_labellings // size)
    values = []
    for batch in range(num_batches):
        # Labellings of all kinds are in the first batch; the last of a batch may be left out.
        places = batch + num_batches * np.arange(size)
        labels = _labels(places % num_labellings, plan, num_rows)
        marginals, posteriors = run(labels)
        if not batch and plan.structure not in _exact:
            probed = np.arange(0, size, max(1, size // _PROBED))
            chosen = jax.tree.map(lambda leaf, probed=probed: np.asarray(leaf)[probed], (marginals, posteriors))
            _check_exact(problem, labels[probed], chosen, float(np.asarray(totals.log_base_measure).sum()))
            if len(_exact) >= _MOST_EXACT:
                _exact.clear()
            _exact.add(plan.structure)
        values.append(np.asarray(marginals)[places < num_labellings])
    return float(np.logaddexp.reduce(np.concatenate(values))) + float(np.asarray(totals.log_base_measure).sum())


def check_enumerable(num_components: int, num_rows: int) -> None:
    """Refuse more labellings than can be enumerated.

    Raises
    ------
    InputError
        If K^N is more than 2^20.
    """
    digits = num_rows * math.log10(num_components)
    if digits > math.log10(MOST_LABELLINGS) + 1e-9:
        most = int(math.log10(MOST_LABELLINGS) / math.log10(num_components) + 1e-9)
        raise InputError(
            f"{num_rows} rows with {num_components} components, which have {num_components}^{num_rows}, some "
            f"10^{digits:.0f}, labellings",
            f"at most 2^{math.log2(MOST_LABELLINGS):.0f} of them, {most} rows here",
            "pass fewer rows; a fit with full posteriors bounds the evidence of more rows from below",
        )


def _check(problem: Problem) -> None:
    program, form = problem.plan.program, problem.plan.form
    expected = "a program whose parameters can all be integrated out in closed form, given the assignments"
    free = [site.name for site in program.globals if not site.has_prior]
    if free:
        raise InputError(
            f"the parameter '{free[0]}' without a prior",
            expected,
            f"give '{free[0]}' a conjugate prior; the log likelihood at fitted parameters is fit.log_density(x).sum()",
        )
    if form.generic:
        raise InputError(
            f"the site '{form.generic[0]}', whose distribution is known by its log_prob alone",
            expected,
            "write it with a distribution of probem.exponential",
        )
    if form.gaps:
        raise InputError("missing values", "complete rows", "leave those rows out")
    if problem.rows.are_sparse:
        raise InputError("sparse rows", "an array", "pass x.toarray()")


def _labels(places: Int[np.ndarray, " B"], plan: Plan, num_rows: int) -> Int[np.ndarray, "B N"]:
    """The labellings of these numbers, which are written in base K."""
    powers = plan.num_components ** np.arange(num_rows)
    return places[:, None] // powers % plan.num_components


@by_plan
def _features(plan: Plan, totals: DataTotals, block: Block) -> Float[Array, "n S"]:
    return all_features(plan, block, totals)


@functools.partial(by_plan, foreign=True)
def _log_marginals(
    plan: Plan, start: Params, totals: DataTotals, features: Float[Array, "N S"], labels: Int[Array, "B N"]
) -> tuple[Float[Array, " B"], Params]:
    """log p(X, T) of labellings but for the base measure, nats, and the posterior of the parameters given each."""

    def of(labels: Int[Array, " N"]) -> tuple[Float[Array, ""], Params]:
        members = jax.nn.one_hot(labels, plan.num_components, dtype=plan.dtype)
        statistics = Statistics(members.sum(0), members.T @ features, totals.shifts)
        q = start
        for _ in range(2):  # the second time the sites that others depend on have their posteriors
            q = plan.mean_field.maximise(statistics, q)
        return objective(plan.mean_field, statistics, q), q

    return jax.vmap(of)(labels)


# Structures of plans of which the posterior given the assignments was seen to be exact.
_exact: set[Structure] = set()
_MOST_EXACT = 256


def _check_exact(problem: Problem, labels: Int[np.ndarray, "B N"], marginals: tuple[Any, Params], base: float) -> None:
    """Refuse a program in which log p(X, T, theta) - log q(theta) is not log p(X, T) at every theta.

    Raises
    ------
    InputError
        If q is not the posterior given the assignments.
    """
    plan, (values, posteriors) = problem.plan, marginals
    ratios = np.asarray(_log_ratios(plan, posteriors, labels, problem.rows.data))
    apart = np.abs(ratios - base - np.asarray(values)[:, None])
    if not (apart <= _EQUAL * np.maximum(1.0, np.abs(ratios))).all():
        sites = [site.name for site in plan.mean_field.sites]
        raise InputError(
            f"{' and '.join(repr(name) for name in sites)}, whose posterior given the assignments is not the product "
            "that q is",
            "parameters that are independent given the assignments, or a location given its precision",
            "fix the hyperparameters, or give the location a prior precision that is a multiple of the precision of "
            "the rows",
        )


@functools.partial(by_plan, foreign=True, effort=Effort.LEAST)
def _log_ratios(
    plan: Plan, posteriors: Params, labels: Int[Array, "B N"], data: tuple[Any, ...]
) -> Float[Array, "B S"]:
    """log p(X, T, theta) - log q(theta) at draws of theta from q, both by NumPyro, nats."""
    program = plan.program

    def of(q: Params, labels: Int[Array, " N"], key: Array) -> Float[Array, ""]:
        with isolated():
            sites = handlers.trace(handlers.seed(lambda: distributions.draw(plan.mean_field, q), key)).get_trace()
            log_q = sum(
                (site["fn"].log_prob(site["value"]).sum() for site in sites.values() if site["type"] == "sample"),
                jnp.zeros(()),
            )
            drawn = {site.name: sites[site.name]["value"] for site in program.globals}
            each = jnp.unravel_index(labels, program.enumeration_shape)
            for site, index in zip(program.assignments, each, strict=True):
                value = jnp.asarray(site.support)[index]
                drawn[site.name] = value.reshape((-1,) + (1,) * (-program.plate_dim - 1))
            log_p, _ = log_density(WholeNumbers(program.function), data, {}, drawn)
        return log_p - log_q

    keys = jax.random.split(jax.random.key(0), _PROBED)
    over_draws = jax.vmap(of, in_axes=(None, None, 0))
    return jax.vmap(over_draws, in_axes=(0, 0, None))(posteriors, labels, keys)
