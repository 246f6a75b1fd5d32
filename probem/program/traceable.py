"""Which numbers of a program may be arguments of what is compiled for it.

A number may not where the program asks what it is (``if strength > 0``, ``math.log(alpha)``), or where a support or a
handler is made of it: then it is part of the structure, as a whole number is. Found by running the program with the
number traced: it has to run, and the sites have to look as they do when it is known. A program that asks what kind of
thing a number is (``isinstance(strength, float)``), or computes with it in more digits than JAX does, is found by its
densities, which have to be those of the program with the number as it is.
"""

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from probem.jit.compilation import concrete
from probem.jit.structure import agree, interned, nearby, structural
from probem.program.dependence import Tables, row_tables, tables_in_trace
from probem.program.program import Program
from probem.program.sites import Params

# Rows of the trace: a number of its own, that no other size is mistaken for.
_LOOKING_ROWS = 4099


def refused_numbers(program: Program) -> frozenset[int]:
    """The places of the numbers that have to be known while the program is traced."""
    numbers = program.numbers
    if not numbers:
        return frozenset()
    expected = _look(program, ())
    assert expected is not None
    if any("traced" in expected[site.name] for site in program.globals if site.name in expected):
        # A support that is computed, of which numbers cannot be told here.
        return frozenset(range(len(numbers)))
    accepted: list[int] = []
    refused: list[int] = []

    def sort(places: list[int]) -> None:
        """Accept them together, or else each half by itself."""
        if _look(program, tuple(sorted([*accepted, *places]))) == expected:
            accepted.extend(places)
        elif len(places) == 1:
            refused.extend(places)
        else:
            sort(places[: len(places) // 2])
            sort(places[len(places) // 2 :])

    sort(list(range(len(numbers))))
    if not refused and not _agrees(program):
        return frozenset(range(len(numbers)))
    return frozenset(refused)


def _agrees(program: Program) -> bool:
    """Whether the densities with the numbers as arguments are those with the numbers as a part of the program, here
    and nearby.
    """
    params, data = program.random_params(81), program.spec.examples()[0]
    every = program.numbers, nearby(program.numbers)
    with jax.debug_nans(False):
        try:
            expected = _as_they_are(program, params, data, every=every)
        except Exception:
            # Nearby may be where the program cannot be.
            expected = _as_they_are(program, params, data, every=every[:1])
        lifted = (dataclasses.replace(program, numbers=numbers) for numbers in every[: len(expected)])
        return all(agree(one, row_tables(each, params, data)) for one, each in zip(expected, lifted, strict=True))


@concrete
def _as_they_are(
    program: Program, params: Params, data: tuple[Any, ...], *, every: tuple[tuple[Any, ...], ...]
) -> list[Tables]:
    """The densities with each of these numbers as a part of the program."""
    tables = []
    for numbers in every:
        function = program.rebuild(numbers)
        key = interned(("as it is", program.structure, tuple(map(_bits, numbers))))
        as_it_is = dataclasses.replace(
            program, rebuild=lambda _, function=function: function, numbers=(), places=(), structure=key
        )
        tables.append(tables_in_trace(as_it_is, params, data))
    return tables


def _bits(number: Any) -> Hashable:
    array = np.asarray(number)
    return type(number), array.shape, array.tobytes()


def _look(program: Program, places: tuple[int, ...]) -> Any:
    """How the sites look, and that their densities can be formed, with the numbers at these places traced."""
    seen: list[Any] = []

    def run(traced: tuple[Any, ...], params: Params, data: tuple[Any, ...]) -> None:
        numbers = list(program.numbers)
        for place, number in zip(places, traced, strict=True):
            numbers[place] = number
        copy = program.with_numbers(tuple(numbers))
        sites = copy.enumerated_trace(params, data)
        if places:
            copy.table(sites, copy.local)
            copy.log_prior(params, sites)
        seen.append({name: _site(site) for name, site in sites.items()})

    params = {site.name: jax.ShapeDtypeStruct(site.shape, jnp.result_type(float)) for site in program.globals}
    try:
        traced = tuple(program.numbers[place] for place in places)
        jax.eval_shape(run, traced, params, program.spec.abstract(_LOOKING_ROWS))
    except Exception:
        if not places:
            raise
        return None
    return seen[0]


def _site(site: dict[str, Any]) -> tuple[Hashable, ...]:
    """What may be decided by looking at a site; ``"traced"`` where a bound is."""
    value = (site["type"], site["name"], jnp.shape(site["value"]), jnp.result_type(site["value"]))
    if site["type"] == "param":
        return (*value, *_pattern(site["kwargs"].get("constraint")))
    if site["type"] != "sample":
        return value
    layers, fn = [], site["fn"]
    while fn is not None:
        mask = getattr(fn, "_mask", None)
        layers.append((type(fn), tuple(fn.batch_shape), tuple(fn.event_shape), *_pattern(mask)))
        layers += [] if hasattr(fn, "base_dist") else list(_pattern(fn.support))
        fn = getattr(fn, "base_dist", None)
    flat = (part for layer in layers for part in (layer if isinstance(layer, tuple) else (layer,)))
    return (*value, site["is_observed"], *_pattern(site["scale"]), *flat)


def _pattern(value: Any) -> tuple[Hashable, ...]:
    """The structure and the leaves of a value, ``"traced"`` in the place of one that is."""
    leaves, treedef = jax.tree.flatten(value)
    return treedef, *("traced" if isinstance(leaf, Tracer) else structural(leaf) for leaf in leaves)
