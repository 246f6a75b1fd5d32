"""When a fit has converged: a rule looks at one iteration, and says whether the parameters it made are final.

A rule of your own is a frozen dataclass, known to JAX, that inherits ``Stopping``; it goes to ``tolerance=``.
"""

import dataclasses
import numbers
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from probem.data.arrays import numeric
from probem.errors import InputError
from probem.program.sites import Params

#: How many roundings of the terms that cancel in an objective it may fall by.
ROUNDINGS = 64
# By how many it was seen to differ from itself where it is computed twice: by a twentieth.
_AGAIN = 1 / 8


class Progress(NamedTuple):
    """An iteration, as a rule sees it; objectives in nats, totals over the rows.

    Attributes
    ----------
    objectives : the objective after this E half-step, and after that of the iteration before (minus infinity in the
        first)
    lasts : the objective after this M half-step, and after that of the iteration before
    promised : how much the objective is expected to rise from this E half-step on, nats, total (``expected_rise``)
    allowance : how far an objective may fall by rounding alone, nats, total
    before : the parameters before the M half-step, by site name
    params : the parameters after it
    weight : the number of rows, or the sum of their weights
    """

    objectives: tuple[Float[Array, ""], Float[Array, ""]]
    lasts: tuple[Float[Array, ""], Float[Array, ""]]
    promised: Float[Array, ""]
    allowance: Float[Array, ""]
    before: Params
    params: Params
    weight: Float[Array, ""]


def expected_rise(rise: Float[Array, ""], before: Float[Array, ""], allowance: Float[Array, ""]) -> Float[Array, ""]:
    """How much an objective that rose by ``rise`` in one iteration, and by ``before`` in the one before it, will rise.

    EM converges linearly, so that its rises are a geometric series in the end: sum_{i>0} rise c^i = rise c / (1 - c),
    c = rise / before. Infinite while rises grow, or where there was no iteration before; zero where a rise is rounding
    (``allowance``). Nats, total. Source: Böhning et al. (1994), Ann. Inst. Statist. Math. 46, section 4 (Aitken).
    """
    size, earlier = jnp.abs(rise), jnp.abs(before)
    slows = (size < earlier) & jnp.isfinite(earlier)
    left = size * size / jnp.where(slows, earlier - size, 1.0)
    return jnp.where(size <= allowance, 0.0, jnp.where(slows, left, jnp.inf))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stopping:
    """A rule of convergence, and a pytree of numbers: other numbers compile nothing. This rule never stops.

    A fit ends with the bound of its parameters, so a rule that looks at a whole iteration (``after``) costs an E
    half-step more. A rule of your own is a subclass, a frozen dataclass under ``jax.tree_util.register_dataclass``.
    """

    def promise(self, weight: Float[Array, ""]) -> Float[Array, ""]:
        """The most nats that a fit of rows of this weight may promise, total over the rows; infinite for most rules."""
        return jnp.full_like(weight, jnp.inf)

    def at_once(self, progress: Progress) -> Bool[Array, ""]:
        """Whether ``before``, whose objective the E half-step has just computed, is final."""
        del progress
        return jnp.asarray(False)

    def after(self, progress: Progress) -> Bool[Array, ""]:
        """Whether ``params`` are final, once their objective is known."""
        del progress
        return jnp.asarray(False)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RelativeRise(Stopping):
    """Converged when the objective rises by at most so much in an iteration, and is not expected to rise by more in all
    iterations that would follow.

    The rows count by their weight. In another unit of the data, F is shifted by a constant, and its rises are the same.
    Where EM is slow a small step is no sign of a maximum: at a rate of 0.99 a hundred times as much is still to come.
    A rise of less than an eighth of a rounding of the terms that cancel in the objective is none.
    Point-mass assignments do not ask it: they converge exactly, when no row moves.

    Parameters
    ----------
    tolerance : nats per row; at 0 a fit never converges by this rule
    """

    tolerance: Any = 1e-10

    def promise(self, weight: Float[Array, ""]) -> Float[Array, ""]:
        return self.tolerance * weight

    def at_once(self, progress: Progress) -> Bool[Array, ""]:
        objective, before = progress.objectives
        least = self.promise(progress.weight)
        # An objective that is computed twice may be rounded otherwise: at a maximum it would rise for ever. A fall that
        # is judged is rounding here; one that is not (a spread that was widened) counts as a change.
        rise, rounding = objective - before, progress.allowance * (_AGAIN / ROUNDINGS)
        settled = (rise <= jnp.maximum(least, rounding)) & (rise >= -jnp.maximum(least, progress.allowance))
        return (self.tolerance > 0) & settled & (progress.promised <= least)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundChange(Stopping):
    """Converged when the objective changes by less than ``tolerance`` between two iterations.

    These are the rules of scikit-learn's ``GaussianMixture`` (``per_row``, after the E half-step) and
    ``BayesianGaussianMixture`` (after the M half-step).

    Parameters
    ----------
    tolerance : nats, total over the rows; nats per row if ``per_row``
    start : the objective before the first step, nats, total over the rows, if it is known
    per_row : whether the change is divided by the weight of all rows
    half : ``"E"`` or ``"M"``, the half-step after which the objective is compared
    """

    tolerance: Any
    start: Any = -float("inf")
    per_row: bool = dataclasses.field(default=False, metadata={"static": True})
    half: Literal["E", "M"] = dataclasses.field(default="E", metadata={"static": True})

    def after(self, progress: Progress) -> Bool[Array, ""]:
        objective, before = progress.objectives if self.half == "E" else progress.lasts
        change = jnp.abs(objective - jnp.where(jnp.isfinite(before), before, self.start))
        return change < self.tolerance * (progress.weight if self.per_row else 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ParameterShift(Stopping):
    """Converged when sum_i (theta_i - theta_i,before)^2 over the entries of all parameters is at most ``tolerance``.

    For k-means that is the rule of scikit-learn's ``KMeans``, whose tolerance is a fraction of the variance.

    Parameters
    ----------
    tolerance : in the squared units of the parameters
    """

    tolerance: Any

    def after(self, progress: Progress) -> Bool[Array, ""]:
        moved = jax.tree.map(lambda new, old: ((new - old) ** 2).sum(), progress.params, progress.before)
        return sum(jax.tree.leaves(moved), jnp.zeros(())) <= self.tolerance


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Averages(Stopping):
    """For assignments that are drawn (``probem.Sampled``): the answer is an average over iterations, and a fit has
    converged when that is stationary.

    The first quarter of the iterations, or up to a half, is left out. Of the others the parameters are averaged, and so
    is F under the posterior of the assignments, which is cut into at least 16 batches of 8, 16, 32, ... iterations. A
    fit has converged when the error of the average of F by these batches is at most ``tolerance``, and their later half
    differs from the earlier by no more than twice the error of the difference, or a tenth of the tolerance. Then, or
    where ``max_steps`` leave no other iteration (of at least 18), the parameters are moved to their average, and the
    last E half-step finds F there, under the posterior itself.

    The average is one of values, entry by entry (of a full posterior, of the numbers that describe it): proportions
    stay proportions, and covariance matrices such. Only Cholesky factors of correlations are averaged in unconstrained
    coordinates. Where F is concave, F at the average is higher than the average of F: not between maxima, nor where
    components trade places. Source: Nielsen (2000), Bernoulli 6, section 4; for batches Flegal & Jones (2010), Ann.
    Statist. 38, section 3.

    Parameters
    ----------
    tolerance : nats, the error of the average of F, total over the rows; at 0 a fit takes ``max_steps``
    """

    tolerance: Any = 0.1


def rule_for(tolerance: Any, draws: bool) -> Stopping:
    """The rule that ``tolerance`` asks for, ``Averages`` in the place of the default where assignments are drawn.

    Raises
    ------
    InputError
        If it is none, or one of averages where nothing is drawn.
    """
    rule = check_stopping(tolerance)
    if isinstance(rule, Averages) and not draws:
        raise InputError(
            f"tolerance={rule!r} for assignments that are not drawn",
            "a family that draws, such as probem.Sampled()",
            "pass a number, or another rule",
        )
    number = rule.tolerance if type(rule) is RelativeRise else None
    is_default = isinstance(number, float) and number == RelativeRise().tolerance
    return Averages() if draws and is_default else rule


def _within(number: Any, limit: float) -> bool:
    """Whether a number, or all of an array, is known to be from 0 to below ``limit``, or not known yet."""
    value = numeric(number, "a tolerance")
    return isinstance(value, Tracer) or bool(((value >= 0) & (value < limit)).all())


def check_stopping(tolerance: Any) -> Stopping:
    """The rule that ``tolerance`` asks for: a number is a rise relative to the number of rows.

    Raises
    ------
    InputError
        If it is neither a rule nor a number in [0, 1).
    """
    if isinstance(tolerance, Stopping):
        name = type(tolerance).__name__
        if any(leaf is tolerance for leaf in jax.tree.leaves(tolerance)):
            raise InputError(
                f"the rule {name}, which is no pytree",
                "a frozen dataclass that JAX knows",
                "decorate it with jax.tree_util.register_dataclass",
            )
        if isinstance(tolerance, BoundChange) and tolerance.half not in ("E", "M"):
            raise InputError(f"half={tolerance.half!r} in {name}", "'E' or 'M'", "change it")
        for field in dataclasses.fields(tolerance) if dataclasses.is_dataclass(tolerance) else ():
            if not field.metadata.get("static"):
                numeric(getattr(tolerance, field.name), f"{field.name} in {name}")
        number = getattr(tolerance, "tolerance", 0.0)
        if not _within(number, np.inf):
            raise InputError(f"tolerance={number!r} in {name}", "a finite number from 0", "change it")
        return tolerance
    if not (isinstance(tolerance, numbers.Real | jax.Array) and _within(tolerance, 1.0)):
        raise InputError(f"tolerance={tolerance!r}", "a number in [0, 1), or a rule of probem.stopping", "change it")
    return RelativeRise(tolerance)
