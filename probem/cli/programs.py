"""From what the options say to a program and a family."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from probem import models
from probem.errors import InputError, nearest
from probem.families import AssignmentFamily, Categorical, Conjugate, Delta, ParameterFamily, Tempered, TopC
from probem.models import covariance as covariances
from probem.models import weights as mixing
from probem.runs.programs import MODELS, function_among, function_in_file, functions_of, home, model_named
from probem.solver.accelerations import ACCELERATIONS
from probem.solver.state import Acceleration

_FAMILIES = ("categorical", "delta", "tempered", "top")


def program_of(model: str, components: int | None, covariance: str | None, weights: str | None) -> Callable[..., Any]:
    """The program that ``--model`` names, with the other options bound to its arguments.

    Raises
    ------
    InputError : the name, the file or the function does not exist, or the program does not take an option given
    """
    function = function_in_file(model) if ".py" in model else model_named(model)
    taken = inspect.signature(function).parameters
    structures = functions_of(home(taken, "covariance", covariances))
    given = {
        "num_components": ("--components", components),
        "covariance": ("--covariance", covariance and function_among(structures, covariance, "--covariance")),
        "weights": ("--weights", weights and function_among(functions_of(mixing), weights, "--weights")),
    }
    fixed = function.keywords if isinstance(function, functools.partial) else {}
    for name, (option, value) in given.items():
        if value is not None and (name not in taken or name in fixed):
            reason = f"{model} fixes it" if name in fixed else f"{model} has no argument {name}"
            raise InputError(f"{option} for {model}", f"a program that takes it ({reason})", f"leave {option} out")
    if components is None and "num_components" in taken and taken["num_components"].default is inspect.Parameter.empty:
        raise InputError(f"no number of components for {model}", "how many to fit", "add --components 3, say")
    return functools.partial(function, **{name: value for name, (_, value) in given.items() if value is not None})


def with_prior(program: Callable[..., Any], rows: np.ndarray) -> Callable[..., Any]:
    """The program with a weakly informative prior from the scale of the rows bound to an argument ``prior``, if it has
    one of a class of ``probem.models`` that is still open.
    """
    argument = inspect.signature(program).parameters.get("prior")
    if argument is None or argument.default is not inspect.Parameter.empty:
        return program
    if argument.annotation not in (models.GaussianPrior, models.RatePrior):
        raise InputError(
            "a program with an open argument 'prior'",
            "one annotated as GaussianPrior or RatePrior of probem.models",
            "give it a default in the file",
        )
    bound = program.keywords if isinstance(program, functools.partial) else {}
    arguments = {"x": jnp.asarray(rows), **bound}
    make = argument.annotation.from_data
    prior = make(**{name: arguments[name] for name in inspect.signature(make).parameters})
    return functools.partial(program, prior=prior)


def parameters_of(text: str | None, model: str) -> ParameterFamily:
    """The family of sites with a prior that ``--parameters`` names: ``delta`` (MAP) or ``conjugate``."""
    bayesian = model in MODELS and "prior" in inspect.signature(getattr(models, model)).parameters
    text = text or ("conjugate" if bayesian else "delta")
    families = {"delta": Delta(), "conjugate": Conjugate()}
    if text not in families:
        raise InputError(f"--parameters {text}", "delta or conjugate", nearest(text, families))
    return families[text]


def acceleration_of(text: str | None) -> Acceleration | None:
    """The acceleration that ``--acceleration`` names: ``squarem`` or ``anderson``."""
    if text is not None and text not in ACCELERATIONS:
        raise InputError(f"--acceleration {text}", " or ".join(ACCELERATIONS), nearest(text, ACCELERATIONS))
    return None if text is None else ACCELERATIONS[text]()


def family_of(text: str | None, model: str) -> AssignmentFamily:
    """The family that ``--family`` names: ``categorical``, ``delta``, ``tempered:0.5``, ``top:2``."""
    if text is None:
        return Delta() if model == "kmeans" else Categorical()
    name, _, argument = text.partition(":")
    if name not in _FAMILIES:
        raise InputError(f"the family '{name}'", f"one of {', '.join(_FAMILIES)}", nearest(name, _FAMILIES))
    if name in ("categorical", "delta"):
        if argument:
            raise InputError(f"the family '{text}'", f"'{name}' without a number", "leave the number out")
        return Categorical() if name == "categorical" else Delta()
    try:
        return Tempered(float(argument)) if name == "tempered" else TopC(int(argument))
    except InputError:
        raise
    except ValueError:
        example = "tempered:0.5" if name == "tempered" else "top:2"
        raise InputError(f"the family '{text}'", f"'{name}' with a number after a colon", f"write {example}") from None
