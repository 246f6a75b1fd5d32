"""What the claims about a program are checked on: the first iterations of a fit, its end, and the oracle."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.analysis.problem import observe
from probem.checking.evaluate import elbo, log_joint
from probem.checking.oracle import Densities, NumPyroOracle, Oracle, enumeration
from probem.checking.report import Check
from probem.checking.residuals import rounding, worst
from probem.e_step.passes import about_rows
from probem.families.assignments import assigned_type
from probem.fitting.fit import fit, iterate
from probem.jit.compilation import FEW_ONCE, Effort, of_foreign_code
from probem.jit.tracing import unchecked
from probem.plan.plan import Plan
from probem.results import answers
from probem.results.fit import Fit

#: Checks, and sentences about what was not compared.
Found = Iterator[Check | str]

#: Iterations that are compared half-step by half-step.
FIRST_STEPS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Climb:
    """A fit from its start to its end, and the oracle that is asked about it.

    ``options`` are those of ``probem.fit``; ``generator`` draws what is random. Whatever is asked of the oracle about
    a fit is asked once.
    """

    program: Callable[..., Any]
    data: tuple[Any, ...]
    options: Mapping[str, Any]
    numpyro: NumPyroOracle
    oracle: Oracle
    generator: np.random.Generator

    @functools.cached_property
    def steps(self) -> tuple[Fit, ...]:
        """The fit after each of its first E half-steps: q belongs to the parameters."""
        steps = iterate(self.program, *self.data, **self.options, throw=False)
        return tuple(itertools.islice(steps, FIRST_STEPS))

    @functools.cached_property
    def end(self) -> Fit:
        """The fit where it stops."""
        return fit(self.program, *self.data, **self.options, throw=False)

    @property
    def plan(self) -> Plan:
        """What was decided about the program."""
        plan = self.steps[0].plan
        assert plan is not None
        return plan

    @property
    def start(self) -> Fit:
        """The fit after its first E half-step."""
        return self.steps[0]

    @property
    def has_points(self) -> bool:
        """Whether every parameter is a point."""
        return not self.plan.mean_field.is_bayesian

    @functools.cached_property
    def ends_with_projection(self) -> bool:
        """Whether q of the last E half-step is the projection, as that of every one, once a schedule has ended, or by a
        family that draws of the kind that it projects to.
        """
        plan, table = self.plan, jnp.zeros((2, self.plan.num_components))
        is_final = plan.has_schedule and bool(plan.family.is_final(jnp.asarray(self.end.num_steps - 1)))
        if plan.is_stochastic:
            return assigned_type(plan.family, plan.num_components) is type(plan.family.project(table))
        return plan.only_projects or is_final

    @functools.cached_property
    def rows(self) -> tuple[Any, ...]:
        """The data as JAX has them, for what is compiled."""
        return self.numpyro.data

    @functools.cached_property
    def _by_fit(self) -> dict[tuple[str, int], Any]:
        """What was asked of each fit; fits live as long as the climb."""
        return {}

    def _once(self, fit: Fit, name: str, compute: Callable[[], Any]) -> Any:
        """What is computed once for a fit."""
        key = name, id(fit)
        if key not in self._by_fit:
            self._by_fit[key] = compute()
        return self._by_fit[key]

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that runs the program, compiled without NumPyro's checks of values; many rows repay what the
        compiler can do.
        """
        few = sum(np.size(leaf) for leaf in jax.tree.leaves(self.rows)) < FEW_ONCE

        @functools.wraps(function)
        def without_checks(*arguments: Any) -> Any:
            with unchecked():
                return function(*arguments)

        return of_foreign_code(without_checks, Effort.LEAST if few else Effort.LESS)

    def q(self, fit: Fit) -> Float[np.ndarray, "N K"]:
        """q(t_n = k) of the fit."""
        return self._once(fit, "q", lambda: np.asarray(fit.responsibilities(*self.data), float))

    @functools.cached_property
    def _densities(self) -> Callable[..., Any]:
        return self.compiled(self.numpyro.densities)

    @functools.cached_property
    def _densities_by_differences(self) -> Callable[..., Any]:
        return self.compiled(functools.partial(self.numpyro.densities, by_differences=True))

    def _densities_at(self, fit: Fit) -> Densities:
        def compute() -> Densities:
            params = in_jax(fit.params)
            try:
                densities = self._densities(params, self.rows)
            except TypeError:
                # Forward mode refuses a program with jax.custom_vjp.
                densities = self._densities_by_differences(params, self.rows)
            return jax.tree.map(np.asarray, densities)

        return self._once(fit, "densities", compute)

    def numpyro_log_joint(self, fit: Fit) -> Float[np.ndarray, "N K"]:
        """The table of NumPyro's densities at the parameters of the fit, nats per row."""
        return np.asarray(self._densities_at(fit).log_joint)

    @functools.cached_property
    def _log_joint(self) -> Callable[..., Any]:
        return self.compiled(lambda params: self.oracle.log_joint(params))

    def log_joint(self, fit: Fit) -> Float[np.ndarray, "N K"]:
        """The table of the oracle at the parameters of the fit, nats per row."""
        if self.oracle is self.numpyro:
            return self.numpyro_log_joint(fit)

        def compute() -> Float[np.ndarray, "N K"]:
            try:
                table = self._log_joint(in_jax(fit.params))
            except jax.errors.TracerArrayConversionError:
                # An oracle of NumPy or SciPy.
                table = self.oracle.log_joint(in_jax(fit.params))
            return np.asarray(table, float)

        return self._once(fit, "table", compute)

    def log_likelihood(self, fit: Fit) -> float:
        """log p(X | params) of the oracle at the parameters of the fit, nats."""
        if self.oracle is not self.numpyro:
            return float(np.logaddexp.reduce(self.log_joint(fit), axis=1).sum())
        enumeration()
        return float(self._densities_at(fit).log_likelihood)

    def log_prior(self, fit: Fit) -> float:
        """log p(params) by NumPyro at the parameters of the fit, nats."""
        return float(self._densities_at(fit).log_prior)

    def lost_entries(self, fit: Fit) -> Float[np.ndarray, "N K"]:
        """How far every log joint at the parameters of the fit may be off by rounding alone, nats: that of the numbers
        themselves, and that of the terms into which an exponential family takes a density apart, (x - m)^2 / s^2 into
        x^2 / s^2 and others, which are large where s is small.
        """

        def compute() -> Float[np.ndarray, "N K"]:
            return rounding(self._densities_at(fit).condition + _term_sizes(fit, self.data))

        return self._once(fit, "lost", compute)

    def lost(self, *fits: Fit, q: Float[np.ndarray, "N K"] | None = None) -> float:
        """How far a sum over the rows, under the q of the fits or another, may be off by rounding alone, nats."""
        return worst(
            [float(((self.q(fit) if q is None else q) * self.lost_entries(fit)).sum()) for fit in fits]
        ) + rounding(worst([abs(float(fit.bound.log_prior)) for fit in fits]))

    @functools.cached_property
    def _own(self) -> Callable[..., Any]:
        def of(
            params: Mapping[str, Any], each: Float[Array, "J N K"], data: tuple[Any, ...]
        ) -> tuple[Float[Array, "N K"], Float[Array, " J"]]:
            bounds = jax.vmap(lambda q: elbo(self.program, params, q, *data).elbo)(each)
            return log_joint(self.program, params, *data), bounds

        return self.compiled(of)

    def own(self, fit: Fit) -> "Own":
        """``probem.log_joint`` and ``probem.elbo`` at the parameters of the fit, of q at random."""

        def compute() -> Own:
            theirs = self.log_joint(fit)
            # A q on what is impossible has no finite F.
            each = [possible(q, theirs) for q in random_q(self.generator, theirs.shape)]
            table, bounds = self._own(in_jax(fit.params), np.stack(each), self.rows)
            return Own(np.asarray(table, float), each, np.asarray(bounds, float).tolist())

        return self._once(fit, "own", compute)


class Own(NamedTuple):
    """The table of ``probem.log_joint``, and F of every q by ``probem.elbo``, nats."""

    table: Float[np.ndarray, "N K"]
    each_q: list[Float[np.ndarray, "N K"]]
    bounds: list[float]


def in_jax(params: Mapping[str, Any]) -> dict[str, Array]:
    """Parameters as arguments of what is compiled."""
    return {name: jnp.asarray(value) for name, value in params.items()}


def random_q(generator: np.random.Generator, shape: tuple[int, ...]) -> Iterator[Float[np.ndarray, "N K"]]:
    """From nearly uniform to nearly certain, and a point mass."""
    num_rows, num_components = shape
    for concentration in (20.0, 1.0, 0.05):
        yield generator.dirichlet(np.full(num_components, concentration), num_rows)
    yield np.eye(num_components)[generator.integers(num_components, size=num_rows)]


def possible(q: Float[np.ndarray, "N K"], table: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """A q without what is impossible; the posterior's mode where nothing else is left."""
    mode = np.eye(q.shape[1])[table.argmax(1)]
    kept = np.where(np.isfinite(table), q, 0.0)
    left = kept.sum(1, keepdims=True)
    return np.where(left > 0, kept / np.where(left > 0, left, 1.0), mode)


def _term_sizes(fit: Fit, data: tuple[Any, ...]) -> Float[np.ndarray, "N K"]:
    """The size of the terms that cancel in every log joint, nats."""
    assert fit.plan is not None
    plan, rows, _ = observe(fit.plan, data)
    params = dict(fit.variational)
    return np.asarray(about_rows(plan, rows, answers.term_sizes.whole, params, fit.totals), float)


def entropy(q: Float[np.ndarray, "N K"]) -> float:
    """H(q), nats, total over the rows."""
    return -float((q * np.log(np.where(q > 0, q, 1.0))).sum())


def expected(q: Float[np.ndarray, "N K"], table: Float[np.ndarray, "N K"]) -> float:
    """E_q of a table, nats, total over the rows; what is impossible counts nothing where q is zero."""
    return float(np.multiply(q, table, where=q > 0, out=np.zeros_like(q)).sum())


def log_posterior(table: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """log p(t_n = k | x_n, params)."""
    return table - np.logaddexp.reduce(table, axis=1)[:, None]


def divergence_of_rows(q: Float[np.ndarray, "N K"], log_p: Float[np.ndarray, "N K"]) -> float:
    """sum_n KL(q_n || p_n), nats."""
    return -entropy(q) - expected(q, log_p)
