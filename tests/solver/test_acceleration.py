"""An acceleration around the steps of the loop: SQUAREM, which ends where EM does, in fewer steps."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import probem
from probem.analysis.problem import FitOptions
from probem.e_step.evaluation import natural_parameters
from probem.fitting.run import begin, drive
from probem.models import diagonal, gmm
from probem.solver.loop import blank_memory, compiled_run_to_end
from probem.solver.result import RUNNING

PROGRAM = functools.partial(gmm, num_components=2, covariance=diagonal)


class Past(NamedTuple):
    """Plain steps since the last jump, the parameters before each of them, and the state to go back to."""

    phase: Any
    first: Any
    second: Any
    back: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Squarem:
    """Scheme S3 of Varadhan & Roland (2008), Scand. J. Statist. 35, in unconstrained coordinates; a jump that lowers F
    is taken back.
    """

    farthest: float = 64.0

    def begin(self, plan, state):
        vector = _coordinates(plan, state.params)[0]
        return Past(jnp.asarray(0), vector, vector, state)

    def between(self, plan, steps, past, totals, limits):
        before, after = steps
        here, by_name = _coordinates(plan, before.params)
        tried = past.phase == 2
        lower = tried & ~(after.objective >= past.back.last)
        back = past.back._replace(step=after.step)
        after = jax.tree.map(lambda old, new: jnp.where(lower, old, new), back, after)
        # How far a jump rose, or the step after it, says nothing of how far the next will.
        after = after._replace(rise=jnp.where(tried, -jnp.inf, after.rise))
        r, v = here - past.first, _coordinates(plan, after.params)[0] - 2 * here + past.first
        size = -jnp.clip(jnp.sqrt((r**2).sum() / (v**2).sum()), 1.0, self.farthest)
        target = by_name(past.first - 2 * size * r + size**2 * v)
        params = {name: plan.program.bijection(name)(value) for name, value in target.items()}
        jumped = after._replace(
            params=params,
            natural=natural_parameters(plan, params, totals),
            log_prior=plan.log_prior(params),
            last=jnp.full_like(after.last, -jnp.inf),
            rise=jnp.full_like(after.rise, -jnp.inf),
        )
        jumps = (past.phase == 1) & (after.code == RUNNING)
        following = jax.tree.map(lambda new, old: jnp.where(jumps, new, old), jumped, after)
        return following, Past(jnp.where(jumps, 2, jnp.where(past.phase == 0, 1, 0)), here, here, after)


def _coordinates(plan, params):
    return ravel_pytree({name: plan.program.bijection(name).inv(value) for name, value in params.items()})


def overlapping(num_rows=400):
    """Two components so near each other that EM takes hundreds of steps."""
    rng = np.random.default_rng(0)
    return np.where(rng.random((num_rows, 1)) < 0.3, 1.6, 0.0) + rng.normal(size=(num_rows, 1))


def fitted(x, acceleration, tolerance=1e-9, restarts=1):
    options = FitOptions(max_steps=5000, tolerance=tolerance, key=1, restarts=restarts)
    run, state = begin(PROGRAM, (x,), options)
    run = run._replace(limits=run.limits._replace(acceleration=acceleration))
    return drive(run, state, False), run, state


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [1, 3])
def test_it_ends_where_em_does_in_fewer_steps(restarts: int) -> None:
    x = overlapping()
    plain, _, _ = fitted(x, None, restarts=restarts)
    fast, run, state = fitted(x, Squarem(), restarts=restarts)
    assert plain.result is fast.result is probem.Result.CONVERGED
    np.testing.assert_allclose(fast.elbo, plain.elbo, rtol=1e-8)
    assert fast.num_steps < plain.num_steps / 3
    # The bound is that of the parameters it is reported with.
    np.testing.assert_allclose(
        fast.elbo, probem.elbo(PROGRAM, fast.params, fast.responsibilities(x), x).elbo, rtol=1e-10
    )
    if restarts == 1:
        # The loop to the end, without a history, is the one loop.
        data_pass = run.data_pass
        ended = compiled_run_to_end(data_pass.plan, state, data_pass.totals, tuple(data_pass.blocks), run.limits)
        assert int(ended.step) == fast.num_steps
        np.testing.assert_allclose(ended.objective, fast.elbo, rtol=1e-10)
        assert blank_memory(data_pass, state, run.limits).past is not None


@pytest.mark.slow
def test_data_in_many_blocks() -> None:
    x = overlapping(270_000)
    plain, _, _ = fitted(x, None, tolerance=1e-7)
    fast, run, _ = fitted(x, Squarem(), tolerance=1e-7)
    assert len(run.data_pass.blocks) > run.data_pass.parallel_blocks
    assert fast.elbo > plain.elbo - 1e-7 * len(x)
    assert fast.num_steps < plain.num_steps / 2
