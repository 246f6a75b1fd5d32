"""The parts of optimistix' BFGS that end it by what it still promises."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Bool, Float


class Backtracking(optimistix.AbstractSearch):
    """Shorter steps until the loss falls by a tenth of what its slope says, but for ``rounding``, in nats."""

    rounding: Float[Array, ""]

    def init(self, y: Float[Array, " P"], f_info_struct: Any) -> Float[Array, ""]:
        return jnp.ones((), y.dtype)

    def step(
        self,
        first_step: Bool[Array, ""],
        y: Float[Array, " P"],
        y_eval: Float[Array, " P"],
        f_info: Any,
        f_eval_info: Any,
        state: Float[Array, ""],
    ) -> tuple[Float[Array, ""], Bool[Array, ""], optimistix.RESULTS, Float[Array, ""]]:
        predicted = f_info.compute_grad_dot(y_eval - y)
        falls = f_eval_info.as_min() - f_info.as_min() <= 0.1 * predicted + self.rounding
        accept = first_step | (falls & (predicted <= 0))
        size = jnp.where(accept, 1.0, 0.25 * state).astype(state.dtype)
        short = size < jnp.finfo(size.dtype).eps ** 2
        results = optimistix.RESULTS
        return size, accept, results.where(short, results.nonlinear_divergence, results.successful), size


class _UntilPromised(optimistix.AbstractQuasiNewton):
    """Ends at a Newton decrement of ``tolerance``, in nats."""

    tolerance: Float[Array, ""]
    search: Backtracking
    descent: optimistix.NewtonDescent = optimistix.NewtonDescent()
    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[[Any], Array] = dataclasses.field(default=optimistix.two_norm)
    use_inverse: bool = True
    verbose: Callable[..., None] = dataclasses.field(default=lambda **_: None)

    def terminate(
        self, fn: Any, y: Float[Array, " P"], args: Any, options: dict[str, Any], state: Any, tags: frozenset[object]
    ) -> tuple[Bool[Array, ""], optimistix.RESULTS]:
        gradient = state.f_info.grad
        decrement = 0.5 * gradient @ state.f_info.hessian_inv.mv(gradient)
        return ~state.first_step & (decrement <= self.tolerance), state.result


class DenseBFGS(_UntilPromised, optimistix.AbstractBFGS):
    """BFGS with a matrix ``[P, P]``."""


class LimitedBFGS(_UntilPromised, optimistix.AbstractLBFGS):
    """BFGS that remembers the last steps alone."""

    history_length: int = 20


class NoAdjoint(optimistix.AbstractAdjoint):
    """The loop as it is: nothing is differentiated through an M-step."""

    def apply(self, primal_fn: Callable[..., Any], rewrite_fn: Any, inputs: tuple[Any, ...], tags: Any) -> Any:
        return primal_fn((*inputs, _while_loop))


def _while_loop(unfinished: Callable[..., Any], body: Callable[..., Any], start: Any, max_steps: int) -> Any:
    # The second of what is carried counts the steps.
    return jax.lax.while_loop(lambda carry: unfinished(carry) & (carry[1] < max_steps), body, start)
