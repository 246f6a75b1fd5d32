"""Whether the parameters of the gradient route have a maximum in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from probem.form.form import ExponentialForm
from probem.program.dependence import dependents, row_tables


def is_multinomial(sorted_form: ExponentialForm, gradient: tuple[str, ...]) -> bool:
    """Whether the log joint is linear in the logarithms of all parameters of the gradient route, each on a simplex."""
    program, depends = sorted_form.program, dependents(sorted_form.program)
    reached = {name for parameter in gradient for name in depends[parameter]}
    if any(program.constraints[name] is not constraints.simplex for name in gradient):
        return False
    if reached - {*sorted_form.generic, "prior"}:
        return False
    tables, random = functools.partial(row_tables, program), np.random.default_rng(0)
    for seed in (51, 52):
        params = program.random_params(seed)
        first, second = (
            {name: np.exp(random.normal(size=np.shape(params[name]))) for name in gradient} for _ in range(2)
        )
        both = {name: first[name] * second[name] for name in gradient}
        for rows in program.spec.examples():
            with jax.debug_nans(False):  # off the simplex
                at, by_first, by_second, last = (
                    tables({**params, **{name: params[name] * factor for name, factor in factors.items()}}, rows)
                    for factors in ({}, first, second, both)
                )
            for name in reached:
                size = 1.0 + np.abs(at[name]) + np.abs(last[name])
                with np.errstate(invalid="ignore"):
                    bent = np.abs(at[name] + last[name] - by_first[name] - by_second[name])
                # The root of the precision, as in the proof of closed forms: chance makes no function so flat.
                if not (bent <= 10 * jnp.finfo(jnp.result_type(float)).eps ** 0.5 * size).all():
                    return False
    return True
