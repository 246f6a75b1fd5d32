"""The accelerations by name, and which are refused for what."""

import math
import numbers
from typing import Any

from jax.core import Tracer

from probem.errors import InputError
from probem.mean_field.sites import SitePosterior
from probem.plan.plan import Plan
from probem.solver.anderson import Anderson
from probem.solver.squarem import SQUAREM
from probem.solver.state import Acceleration

#: By the names that files and the command line have for them.
ACCELERATIONS = {"squarem": SQUAREM, "anderson": Anderson}


def check_acceleration(acceleration: Any, plan: Plan, has_variance: bool) -> Any:
    """The acceleration, or None.

    Raises
    ------
    InputError
        For what is none, and where steps are no smooth map of the parameters that climbs F.
    """
    if acceleration is None:
        return None
    if not isinstance(acceleration, Acceleration) or isinstance(acceleration, type):
        raise InputError(
            f"acceleration={acceleration!r}", "probem.SQUAREM(), probem.Anderson() or None", "pass one of them"
        )
    check_numbers(acceleration)
    name = type(acceleration).__name__
    if plan.is_point:
        raise InputError(
            f"{name} for assignments that are point masses",
            "a family under which a step moves the parameters smoothly: with point masses it is constant until a row"
            " moves, and ends after finitely many",
            "leave it out",
        )
    if plan.is_stochastic:
        raise InputError(
            f"{name} for the family {type(plan.family).__name__}, which draws",
            "a family without chance in it, whose steps are a map with a fixed point",
            "leave it out",
        )
    if has_variance:
        raise InputError(
            f"{name} with added_variance",
            "M half-steps that maximise F, which guards every move",
            "leave one of them out",
        )
    if plan.gradient and not plan.gradient_is_multinomial:
        raise InputError(
            f"{name} for '{plan.gradient[0]}', which is climbed to along its gradient",
            "parameters with a maximum of their own in every M half-step: such a climb has an acceleration in it",
            "leave it out",
        )
    for site in plan.mean_field.sites:
        if not site.is_point and type(site).coordinates is SitePosterior.coordinates:
            raise InputError(
                f"{name} for q of '{site.name}', a {type(site).__name__}",
                "a q with natural parameters",
                f"define coordinates, from_coordinates and is_inside in {type(site).__name__}",
            )
    return acceleration


def check_numbers(acceleration: Any) -> None:
    """Refuse numbers that an acceleration of probem cannot use; traced ones are not known.

    Raises
    ------
    InputError
        For a memory, a farthest step or a growth that cannot be.
    """
    if isinstance(acceleration, Anderson):
        memory = acceleration.memory
        if not isinstance(memory, int) or isinstance(memory, bool) or memory < 1:
            raise InputError(f"memory={memory!r} in Anderson", "a whole number of at least 1", "change it")
    if isinstance(acceleration, SQUAREM):
        for name, least in (("farthest", "at least"), ("growth", "above")):
            value = getattr(acceleration, name)
            if isinstance(value, Tracer):
                continue
            is_number = isinstance(value, numbers.Real) and math.isfinite(value)
            if not is_number or value < 1 or (name == "growth" and value == 1):
                raise InputError(f"{name}={value!r} in SQUAREM", f"a number {least} 1", "change it")
