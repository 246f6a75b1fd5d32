"""Standard errors of points, by the observed information: what the data say of the parameters, and how sharply."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from probem.data.observations import Observations
from probem.e_step.evaluation import (
    At,
    evaluate_rows,
    natural_parameters_at_points,
    row_weights,
    shared_log_joint,
)
from probem.e_step.passes import Chunk, Pass, Reduction
from probem.errors import InputError
from probem.form.statistics import DataTotals
from probem.jit.compilation import Effort, by_plan
from probem.plan.plan import Plan
from probem.plan.positions import at_position, position
from probem.program.fixed import num_free
from probem.program.sites import Params

# Nats that may still be gained: the parameters are then within a seventh of a standard error of the maximum.
_NEARLY = 0.01
# How many times as large as its distance from an edge a standard error may be: a rate of which a ten-thousandth of an
# event was expected is not estimated, and the likelihood no hill about it.
_FARTHEST = 100.0


class _Curve(NamedTuple):
    """Gradient ``[P]`` and minus the Hessian ``[P, P]`` of a log density in the coordinates, nats."""

    gradient: Float[Array, " P"]
    information: Float[Array, "P P"]


class _Given(NamedTuple):
    """Where the curve is looked at: the coordinates, and the parameters there."""

    vector: Float[Array, " P"]
    params: Params


def _curve(function: Any, vector: Float[Array, " P"]) -> _Curve:
    """Forward over reverse mode, direction by direction: each costs about as much as three gradients."""
    slope = jax.grad(function)

    def along(direction: Float[Array, " P"]) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
        return jax.jvp(slope, (vector,), (direction,))

    gradients, rows = jax.lax.map(along, jnp.eye(len(vector), dtype=vector.dtype))
    return _Curve(gradients[0], -0.5 * (rows + rows.T))


def _of_rows(plan: Plan, given: _Given, totals: DataTotals, chunk: Chunk) -> tuple[_Curve, None]:
    """What the rows of a chunk add."""
    block, weights = chunk.block, row_weights(plan, chunk.block)

    def log_density(vector: Float[Array, " P"]) -> Float[Array, ""]:
        params = at_position(plan, vector, given.params)[0]
        natural = natural_parameters_at_points(plan, params, totals)
        table = evaluate_rows(plan, block, At(params, natural), totals).table
        # A base measure does not depend on the parameters.
        rows = jax.nn.logsumexp(table, axis=1) + natural.level + shared_log_joint(plan, block, natural, totals)
        return jnp.where(weights > 0, weights * rows, 0.0).sum()

    return _curve(log_density, given.vector), None


_ROWS = Reduction(_of_rows)


@by_plan
def _at(plan: Plan, params: Params) -> Float[Array, " P"]:
    return position(plan, params)


def _beside_rows(plan: Plan, given: _Given) -> tuple[_Curve, dict[str, Float[Array, "E P"]]]:
    """The curve of the log prior, and the derivative of every site, its entries in a row, in the coordinates."""
    prior = _curve(lambda vector: plan.log_prior(at_position(plan, vector, given.params)[0]), given.vector)

    def entries(vector: Float[Array, " P"]) -> dict[str, Float[Array, " E"]]:
        params = at_position(plan, vector, given.params)[0]
        return {name: value.reshape(-1) for name, value in params.items()}

    return prior, jax.jacfwd(entries)(given.vector)


_compiled_beside_rows = by_plan(_beside_rows, effort=Effort.LEAST)


def check_points(plan: Plan, totals: DataTotals, at_boundary: Mapping[str, Any]) -> None:
    """Refuse what is no interior maximum of log p(X | theta), or of that plus the log prior.

    Raises
    ------
    InputError
        With the reason.
    """
    if plan.mean_field.is_bayesian:
        names = ", ".join(f"'{name}'" for name in sorted(plan.mean_field.full))
        raise InputError(
            f"standard errors of a fit with full posteriors of {names}",
            "points, by maximum likelihood or MAP",
            "take the variances of fit.posterior, which say how sharp q is",
        )
    if not plan.is_exact:
        raise InputError(
            f"standard errors of a fit with assignments in {plan.family!r}",
            "the family Categorical: others do not end at a maximum of log p(X | theta)",
            "fit with families=probem.EM",
        )
    if totals.added_variance is not None:
        raise InputError(
            "standard errors of a fit with added_variance, which does not end at a maximum of log p(X | theta)",
            "a fit without it",
            "leave it out, or write a prior of the spreads",
        )
    for name, mask in at_boundary.items():
        _check_inside(name, np.asarray(mask))


def standard_errors(
    plan: Plan, params: Mapping[str, Any], totals: DataTotals, rows: Observations
) -> dict[str, np.ndarray]:
    """The standard errors of every site, in its shape; ``totals`` are those of the fit.

    Raises
    ------
    InputError
        For sparse rows, where the information is singular, and if the parameters are no maximum for these rows.
    """
    if rows.are_sparse:
        raise InputError(
            "sparse rows, whose sums over non-zeros cannot be differentiated twice", "an array", "pass x.toarray()"
        )
    points: Params = {name: jnp.asarray(value, plan.dtype) for name, value in params.items()}
    vector = _at(plan, points)
    given = _Given(vector, points)
    nothing = jnp.zeros_like(vector)
    zero = _Curve(nothing, jnp.zeros((len(vector), len(vector)), vector.dtype))
    data_pass = Pass.of(plan, rows, is_once=True)._replace(totals=totals)
    of_rows, _ = data_pass.reduce(_ROWS, zero, given)
    of_prior, derivatives = _compiled_beside_rows(plan, given)
    gradient, information = (
        np.asarray(first, float) + np.asarray(second, float) for first, second in zip(of_rows, of_prior, strict=True)
    )
    bases = {
        name: _free_directions(np.asarray(derivative, float), num_free(plan.program, plan.fixed, name))
        for name, derivative in derivatives.items()
    }
    basis = np.concatenate([directions for directions, _ in bases.values()], axis=1)
    owners = [name for name, (directions, _) in bases.items() for _ in range(directions.shape[1])]
    covariance = _inverse(plan, basis.T @ information @ basis, basis.T @ gradient, owners)
    errors, first = {}, 0
    for name, (directions, image) in bases.items():
        these = slice(first, first + directions.shape[1])
        first = these.stop
        variances = np.einsum("ei,ij,ej->e", image, covariance[these, these], image)
        errors[name] = np.sqrt(variances).reshape(np.shape(params[name]))
        distance = _from_edge(plan.program.constraints[name], np.asarray(params[name], float))
        _check_inside(name, np.asarray(~(errors[name] <= _FARTHEST * distance)))
    return errors


def _check_inside(name: str, on_edge: Bool[np.ndarray, "..."]) -> None:
    """Refuse entries that are on an edge of their constraint."""
    if on_edge.any():
        raise InputError(
            f"standard errors of a fit with {int(on_edge.sum())} entries of '{name}' on an edge of their constraint, or"
            " nearly",
            "a maximum in the interior, about which log p(X | theta) is a hill",
            "fit fewer components, hold these entries fixed, or give them a prior",
        )


def _from_edge(constraint: Any, value: Float[np.ndarray, "*site"]) -> Float[np.ndarray, "*site"]:
    """How far every entry is from the nearest edge of its constraint; infinite where there is none."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    if constraint in (constraints.simplex, constraints.unit_interval):
        return np.minimum(value, 1 - value) if constraint is constraints.unit_interval else value
    distance = np.full(value.shape, np.inf)
    for side, bound in ((1.0, "lower_bound"), (-1.0, "upper_bound")):
        if hasattr(constraint, bound):
            distance = np.minimum(distance, side * (value - np.asarray(getattr(constraint, bound), float)))
    return np.asarray(distance)


def _free_directions(
    derivative: Float[np.ndarray, "E P"], count: int
) -> tuple[Float[np.ndarray, "P r"], Float[np.ndarray, "E r"]]:
    """Orthonormal directions of the coordinates in which a site moves, and how it does. Coordinates have more: a
    constant added to the logarithms of a simplex, entries that are fixed, what is above the diagonal of a factor.
    """
    directions = np.linalg.svd(derivative, full_matrices=False)[2][:count].T
    return directions, derivative @ directions


def _inverse(
    plan: Plan, information: Float[np.ndarray, "r r"], gradient: Float[np.ndarray, " r"], owners: list[str]
) -> Float[np.ndarray, "r r"]:
    """The covariance of the estimates."""
    diagonal = np.diag(information)
    scales = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(information / scales[:, None] / scales[None, :])
    least = len(values) * np.sqrt(np.finfo(plan.dtype).eps)
    if len(values) and not (values[0] > least and (diagonal > 0).all()):
        shares = vectors[:, 0] ** 2 if np.isfinite(vectors).all() else np.ones(len(owners))
        worst = max(
            dict.fromkeys(owners), key=lambda name: sum(s for s, of in zip(shares, owners, strict=True) if of == name)
        )
        kind = "singular" if abs(values[0]) <= least else "not positive definite"
        raise InputError(
            f"an observed information that is {kind}, above all along '{worst}'",
            "a maximum at which the rows say something about every parameter",
            "fit fewer components or a smaller program, or give this site a prior",
        )
    whitened = (vectors / np.sqrt(values)).T / scales
    decrement = 0.5 * float(((whitened @ gradient) ** 2).sum())
    if not decrement <= _NEARLY:
        raise InputError(
            f"rows under which {decrement:.3g} nats are left to gain from these parameters",
            f"the rows and weights fitted, and a fit that has converged (to {_NEARLY} nats)",
            "pass what was fitted, or fit with a smaller tolerance",
        )
    return whitened.T @ whitened
