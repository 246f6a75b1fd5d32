"""What the claims about a program are checked on: the first iterations of a fit, its end, and the oracle."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.analysis.problem import observe
from probem.checking.evaluate import elbo, log_joint
from probem.checking.oracle import NumPyroOracle, Oracle
from probem.checking.report import Check
from probem.checking.residuals import rounding, worst
from probem.e_step.passes import about_rows
from probem.fitting.fit import fit, iterate
from probem.jit.compilation import Effort, compiler_options
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

    ``options`` are those of ``probem.fit``; ``generator`` draws what is random. ``tables`` and the functions of the
    oracle are compiled once.
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

    def q(self, fit: Fit) -> Float[np.ndarray, "N K"]:
        """q(t_n = k) of the fit."""
        return np.asarray(fit.responsibilities(*self.data), float)

    @functools.cached_property
    def _log_joint(self) -> Callable[..., Any]:
        return jax.jit(self.oracle.log_joint)

    @functools.cached_property
    def _log_likelihood(self) -> Callable[..., Any]:
        return jax.jit(self.oracle.log_likelihood)

    def log_joint(self, params: Mapping[str, Any]) -> Float[np.ndarray, "N K"]:
        """The table of the oracle, nats per row."""
        return np.asarray(self._compiled(self._log_joint, self.oracle.log_joint, params), float)

    def log_likelihood(self, params: Mapping[str, Any]) -> float:
        """log p(X | params) of the oracle, nats."""
        return float(self._compiled(self._log_likelihood, self.oracle.log_likelihood, params))

    def _compiled(self, compiled: Callable[..., Any], function: Callable[..., Any], params: Mapping[str, Any]) -> Any:
        values = {name: jnp.asarray(value) for name, value in params.items()}
        try:
            return compiled(values)
        except jax.errors.TracerArrayConversionError:
            # An oracle of NumPy or SciPy.
            return function(values)

    @functools.cached_property
    def _condition(self) -> Callable[..., Any]:
        return jax.jit(self.numpyro.condition, compiler_options=compiler_options(Effort.LEAST))

    @functools.cached_property
    def _lost(self) -> dict[int, Float[np.ndarray, "N K"]]:
        """By fit, what ``lost_entries`` says; fits live as long as the climb."""
        return {}

    def lost_entries(self, fit: Fit) -> Float[np.ndarray, "N K"]:
        """How far every log joint at the parameters of the fit may be off by rounding alone, nats: that of the numbers
        themselves, and that of the terms into which an exponential family takes a density apart, (x - m)^2 / s^2 into
        x^2 / s^2 and others, which are large where s is small.
        """
        if id(fit) not in self._lost:
            of_numbers = self._compiled(self._condition, self.numpyro.condition, fit.params)
            self._lost[id(fit)] = rounding(np.asarray(of_numbers, float) + _term_sizes(fit, self.data))
        return self._lost[id(fit)]

    def lost(self, *fits: Fit, q: Float[np.ndarray, "N K"] | None = None) -> float:
        """How far a sum over the rows, under the q of the fits or another, may be off by rounding alone, nats."""
        return worst(
            [float(((self.q(fit) if q is None else q) * self.lost_entries(fit)).sum()) for fit in fits]
        ) + rounding(worst([abs(float(fit.bound.log_prior)) for fit in fits]))

    @functools.cached_property
    def own_log_joint(self) -> Callable[..., Any]:
        """``probem.log_joint`` of parameters, compiled."""
        return jax.jit(lambda params: log_joint(self.program, params, *self.numpyro.data))

    @functools.cached_property
    def own_bounds(self) -> Callable[..., Any]:
        """``probem.elbo`` of parameters and several q ``[J, N, K]``, compiled; nats."""

        def of(params: Mapping[str, Any], each: Float[Array, "J N K"]) -> Float[Array, " J"]:
            return jax.vmap(lambda q: elbo(self.program, params, q, *self.numpyro.data).elbo)(each)

        return jax.jit(of)

    @functools.cached_property
    def log_prior(self) -> Callable[[Mapping[str, Any]], float]:
        """log p(params) by NumPyro, nats."""
        run = jax.jit(self.numpyro.log_prior)
        return lambda params: float(run({name: jnp.asarray(value) for name, value in params.items()}))


def _term_sizes(fit: Fit, data: tuple[Any, ...]) -> Float[np.ndarray, "N K"]:
    """The size of the terms that cancel in every log joint, nats."""
    assert fit.plan is not None
    plan, rows, _ = observe(fit.plan, data)
    params = jax.tree.map(jnp.asarray, dict(fit.variational))
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
