"""Reading a NumPyro program: which site plays which role, or one sentence about why it is not a mixture."""

import dataclasses
import functools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax.numpy as jnp
import numpy as np

from probem.errors import InputError
from probem.jit.structure import Structure, interned
from probem.program.abstract import AbstractSite, abstract_sites
from probem.program.fingerprint import Lifted, lift, number_key
from probem.program.program import Program
from probem.program.sites import Assignment, Global, RowSpec
from probem.program.traceable import refused_numbers

# Programs are read at these numbers of rows, whatever the data has: a plate that follows the data follows both, and
# a new number of rows needs no new reading. Primes, so that no other size in a program is mistaken for the rows.
_READING_SIZES = (4099, 5003)


def _read(function: Callable[..., Any], spec: RowSpec) -> Program:
    sites, again = (abstract_sites(function, spec, num_rows) for num_rows in _READING_SIZES)
    plate, plate_dim = _data_plate(sites, again)
    nesting = max(-frame.dim for site in sites.values() for frame in site.stack)
    assignments, observed, global_sites = [], [], []
    for name, site in sites.items():
        inside = any(frame.name == plate for frame in site.stack)
        if site.given and not inside:
            continue
        if site.type == "param" or (site.type == "sample" and not inside and not site.observed):
            if site.shape != again[name].shape:
                flat = " (data with one dimension has no columns: pass x[:, None])"
                raise InputError(
                    f"the parameter '{name}' with one entry per row (shape {site.shape} at {_READING_SIZES[0]} rows)",
                    "parameters whose size does not follow the data",
                    "give it a fixed size" + (flat if any(not shape for shape, _ in spec.rows) else ""),
                )
        if site.type == "param":
            global_sites.append(Global(name, site.shape, False, site.constraint))
        elif site.type != "sample":
            continue
        elif inside:
            if len(site.batch_shape) > nesting:
                raise InputError(
                    f"the site '{name}' with batch shape {site.batch_shape}",
                    f"batch dimensions that are plates ({nesting} of them here)",
                    "declare the remaining ones with .to_event(...)",
                )
            if site.given:
                raise InputError(
                    f"values of the assignment '{name}' put in by a handler",
                    "an assignment that is latent, or observed",
                    "pass known assignments as labels=, or use handlers.condition",
                )
            if site.observed:
                _check_shape(name, site, again[name])
                observed.append(name)
            else:
                assignments.append(_assignment(name, site, plate, -nesting - 1 - len(assignments)))
        elif site.observed and site.shape == again[name].shape:
            # Its density is a constant, or a function of the other parameters: a term of F like a prior.
            continue
        elif site.observed and not site.factor:
            raise InputError(
                f"the observation '{name}' outside the data plate",
                "every observed site inside it",
                f"indent it into the block of plate '{plate}'",
            )
        elif not site.observed:
            if site.discrete:
                raise InputError(
                    f"the discrete latent site '{name}' outside the data plate",
                    "discrete latent sites inside it, one value per row",
                    f"move it into plate '{plate}', or bind its value with handlers.condition",
                )
            plates = tuple((frame.name, frame.size, frame.dim) for frame in site.stack)
            global_sites.append(Global(name, site.shape, True, site.constraint, len(site.event_shape), plates))
    summed = [name for name, site in sites.items() if site.is_mixture]
    if not assignments and summed:
        raise InputError(
            f"the observation '{summed[0]}' of a mixture that sums over its assignment",
            "the assignment as a site, such as numpyro.sample('t', dist.Categorical(weights))",
            "fit probem.with_assignments(program), which writes it out, or write it yourself",
        )
    if not assignments:
        raise InputError(
            f"no discrete latent site in plate '{plate}'",
            "at least one assignment site such as numpyro.sample('t', dist.Categorical(weights))",
            "add one; a program without assignments needs no EM",
        )
    if not observed:
        raise InputError(
            f"no observed site in plate '{plate}'",
            "at least one numpyro.sample(..., obs=...)",
            "condition one of its sites on the data with obs=",
        )
    return Program(
        lambda _: function,
        (),
        (),
        spec,
        interned(()),
        plate,
        plate_dim,
        tuple(assignments),
        tuple(observed),
        tuple(global_sites),
        {name: len(sites[name].event_shape) for name in observed},
    )


# Programs that were read, by their structure, those used last at the end; and by what a structure is without any of its
# numbers those that the program asks for while it is traced, which are a part of it.
_programs: "OrderedDict[Hashable, Program]" = OrderedDict()
_refused: dict[Hashable, frozenset[int]] = {}
_MOST_PROGRAMS = 256
_lock = threading.Lock()


def _with_numbers(program: Program, lifted: Lifted, refused: frozenset[int], precision: str) -> Program:
    """What was read, with the numbers that are not ``refused`` as arguments of what is compiled."""
    every = lifted.numbers
    fixed = {place: every[place] for place in refused}

    def rebuild(numbers: tuple[Any, ...]) -> Callable[..., Any]:
        others = iter(numbers)
        return lifted.function([fixed[place] if place in fixed else next(others) for place in range(len(every))])

    places = tuple(place for place in range(len(every)) if place not in refused)
    numbers = tuple(every[place] for place in places)
    structure = _structure(lifted, refused, program.spec, precision)
    return dataclasses.replace(program, rebuild=rebuild, numbers=numbers, places=places, structure=structure)


def _structure(lifted: Lifted, refused: frozenset[int], spec: RowSpec, precision: str) -> Structure:
    fixed = tuple((place, number_key(lifted.numbers[place])) for place in sorted(refused))
    return interned((lifted.structure, fixed, spec, precision))


def read(function: Callable[..., Any], data: tuple[Any, ...]) -> Program:
    """Read the program, given its data arguments (only their shapes and dtypes are looked at).

    Raises
    ------
    InputError
        If it is not a program with one plate over the rows, discrete latent sites and observed sites inside it, and
        nothing else inside it; the message names the site and the remedy.
    """
    if not callable(function):
        raise InputError(f"a program of type {type(function).__name__}", "a NumPyro program (a function)", "pass it")
    if not data:
        raise InputError(
            "no data argument",
            "the program's positional arguments, arrays with one row per observation",
            "write the program as a function of its data, and pass the data after it",
        )
    function = _traceable(function)
    lifted, spec, precision = lift(function), RowSpec.of(data), str(jnp.result_type(float))
    whatever = _structure(lifted, frozenset(), spec, precision)
    refused = _refused.get(whatever, frozenset())
    structure = _structure(lifted, refused, spec, precision)
    with _lock:
        program = _programs.get(structure)
        if program is not None:
            _programs.move_to_end(structure)
    if program is not None:
        again = dataclasses.replace(program, numbers=tuple(lifted.numbers[place] for place in program.places))
        return program if again == program else again
    program = _with_numbers(_read(lifted.function(lifted.numbers), spec), lifted, refused, precision)
    while more := refused_numbers(program):
        # What is asked for with these numbers is a part of the program with others, too.
        refused = refused | {program.places[number] for number in more}
        program = _with_numbers(program, lifted, refused, precision)
    with _lock:
        _refused[whatever] = refused
        _programs[program.structure] = program
        if len(_programs) > _MOST_PROGRAMS:
            _programs.popitem(last=False)
    return program


def _traceable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The program under ``jax.jit``, whose sites would be seen the first time only, if at all."""
    if isinstance(function, functools.partial):
        inner = _traceable(function.func)
        return function if inner is function.func else functools.partial(inner, *function.args, **function.keywords)
    if hasattr(function, "lower") and hasattr(function, "__wrapped__"):
        return _traceable(function.__wrapped__)
    return function


def _data_plate(sites: dict[str, AbstractSite], again: dict[str, AbstractSite]) -> tuple[str, int]:
    remedy = "write the program with one 'with numpyro.plate(\"data\", x.shape[0]):' around what belongs to a row"
    plates = {name: site for name, site in sites.items() if site.type == "plate"}
    rows = [
        name
        for name, site in plates.items()
        if (site.size[0], again[name].size[0] if name in again else None) == _READING_SIZES
    ]
    if len(rows) == 1:
        name = rows[0]
        subsample = plates[name].size[1]
        if subsample is not None and subsample != plates[name].size[0]:
            raise InputError(
                f"the data plate '{name}' with subsample_size={subsample}",
                "a plate over all rows",
                "leave subsample_size out: the pass over the data is cut into chunks for you",
            )
        dims = {frame.dim for site in sites.values() for frame in site.stack if frame.name == name}
        if dims:
            return name, dims.pop()
        raise InputError(f"nothing inside the data plate '{name}'", "the assignment and observed sites in it", remedy)
    if rows:
        names = " and ".join(f"'{name}'" for name in rows)
        raise InputError(f"{len(rows)} plates over the rows ({names})", "exactly one", remedy)
    if plates:
        fixed = ", ".join(f"'{name}'" for name in plates)
        raise InputError(
            f"no plate over the rows (the size of {fixed} does not follow the number of rows)", "exactly one", remedy
        )
    latent = [name for name, site in sites.items() if site.type == "sample" and site.discrete and not site.observed]
    if latent:
        raise InputError(
            f"no plate over the rows around the discrete latent site '{latent[0]}'",
            "exactly one, rows being independent given the parameters",
            f"{remedy}; assignments that follow each other (scan, a hidden Markov model) are for NumPyro's enumeration"
            " or for dynamax",
        )
    raise InputError("no plate over the rows", "exactly one", remedy)


def _check_shape(name: str, site: AbstractSite, again: AbstractSite) -> None:
    """Refuse observed values that have more axes, or longer ones, than their distribution."""
    expected = (*site.batch_shape, *site.event_shape)
    try:
        fits = np.broadcast_shapes(site.shape, expected) == expected
    except ValueError:
        fits = False
    if fits:
        return

    def in_words(shape: tuple[int, ...], other: tuple[int, ...]) -> str:
        sizes = ["N" if a != b else str(a) for a, b in zip(shape, other, strict=True)]
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"

    seen = in_words(site.shape, again.shape)
    wanted = in_words(expected, (*again.batch_shape, *again.event_shape))
    remedy = "write the program for rows of this shape, with .to_event(...) around what belongs to one row"
    if len(expected) == 1:
        column = "pass x[:, 0], or " if site.shape[1:] == (1,) else ""
        remedy = f"{column}give every component a value for each column, and the distribution .to_event(1)"
    raise InputError(
        f"values of '{name}' of shape {seen} under a distribution of shape {wanted}",
        "values of the shape of their distribution",
        remedy,
    )


def _assignment(name: str, site: AbstractSite, plate: str, dim: int) -> Assignment:
    if not site.discrete:
        raise InputError(
            f"the continuous latent site '{name}' inside the data plate",
            "only discrete latent sites (the assignments) there",
            "integrate it out by hand, make it a global site, or fit the program with NumPyro's SVI",
        )
    if not site.enumerable:
        raise InputError(
            f"the latent site '{name}' with infinitely many values inside the data plate",
            "assignment sites with finitely many values",
            "truncate it to a Categorical",
        )
    if site.weighted:
        raise InputError(
            f"{site.weighted} over the assignment site '{name}'",
            "an assignment that counts once in every row",
            "leave rows out, or count them several times, with row_weights; a mask or a scale may stand over observed"
            " sites alone",
        )
    if (
        site.event_shape
        or math.prod(site.batch_shape) != site.batch_shape[[f.name for f in _frames(site)].index(plate)]
    ):
        raise InputError(
            f"the assignment site '{name}' with several values per row (shape {site.shape})",
            "one value per row",
            "take it out of the inner plate, or write one site for each value",
        )
    return Assignment(name, site.support, dim)


def _frames(site: AbstractSite) -> list[Any]:
    """The plates of a site from left to right, as its batch shape has them."""
    by_dim = {frame.dim: frame for frame in site.stack}
    missing = next(iter(site.stack))._replace(name="")
    return [by_dim.get(dim, missing) for dim in range(-len(site.batch_shape), 0)]
