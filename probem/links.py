"""Which entries of a distribution's argument are which entries of a parameter.

The program is run with several random parameter values. An entry of an argument that equals, bit for bit and in every
run, an entry of a parameter *is* that entry: broadcast, gathered by an assignment or shared. An entry with the same
value in every run is a constant of the program. If that explains the whole argument, the link is a known index map.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from .compiled import concrete
from .errors import InputError
from .linear import Form
from .program import Params, Program


@dataclasses.dataclass(frozen=True, eq=False)
class Link:
    """The argument ``argument`` of ``site`` as an index map of parameters.

    ``group`` numbers the entries of the argument ``[K * copies * event]`` by the parameter entry they are (-1: a
    constant); ``zero`` marks the constants that are zero; ``source[name]`` says, for every entry of the parameter,
    at which entry of the argument to read it.
    """

    site: str
    argument: str
    shape: tuple[int, ...]
    group: np.ndarray
    zero: np.ndarray
    source: Mapping[str, np.ndarray]

    @property
    def is_pooled(self) -> bool:
        """Whether several entries of the argument are one entry of a parameter, so that their moments are averaged."""
        linked = self.group[self.group >= 0]
        return len(np.unique(linked)) < len(linked)


def find_links(form: Form) -> tuple[Link, ...]:
    """Every argument that is an index map of parameters, in the order in which a maximisation updates them."""
    draws = [sample.params for sample in form.samples]
    runs = [sample.arguments for sample in form.samples]
    # An entry of a parameter is known by its values; those repeated together (a symmetric matrix) are one entry.
    known: dict[tuple[float, ...], int] = {}
    entries: dict[str, np.ndarray] = {}
    for site in form.program.globals:
        columns = zip(*(np.asarray(draw[site.name]).reshape(-1).tolist() for draw in draws), strict=True)
        entries[site.name] = np.array([known.setdefault(values, len(known)) for values in columns], int)
    links = []
    for term in form.terms:
        for name in term.view.argument_names:
            seen = np.stack([np.asarray(run[term.site][name]).reshape(-1) for run in runs], 1)
            group = np.array([known.get(tuple(values), -1) for values in seen.tolist()], int)
            constant = (seen == seen[:, :1]).all(1)
            if ((group < 0) & ~constant).any() or not (group >= 0).any():
                continue
            where = {int(entry): index for index, entry in reversed(list(enumerate(group)))}
            source = {
                parameter: np.array([where[int(entry)] for entry in own], int)
                for parameter, own in entries.items()
                if len(own) and all(int(entry) in where for entry in own)
            }
            covered = {int(entry) for parameter in source for entry in entries[parameter]}
            if {int(entry) for entry in group if entry >= 0} <= covered:
                zero = constant & (seen[:, 0] == 0)
                links.append(Link(term.site, name, runs[0][term.site][name].shape, group, zero, source))
    return tuple(links)


@functools.lru_cache(maxsize=256)
def row_tables(program: Program) -> Callable[[Params, tuple[Any, ...]], dict[str, np.ndarray]]:
    """A compiled function of (parameters, rows): the table ``[n, K]`` of every site in the data plate by its name, and
    the log prior as ``"prior"``, nats.
    """

    def outputs(params: Params, data: tuple[Any, ...]) -> dict[str, Array]:
        sites = program.enumerated_trace(params, data)
        tables = {name: program.table(sites, (name,)) for name in program.local}
        return {**tables, "prior": program.log_prior(params, sites)}

    return concrete(outputs)


@functools.lru_cache(maxsize=256)
def dependents(program: Program) -> dict[str, frozenset[str]]:
    """For every global site, what depends on it: names of sites, and ``"prior"``; found by poisoning it with NaN.

    Raises
    ------
    InputError
        If the density of one row depends on other rows, or a prior on the data: then chunks would change the answer.
    """

    def poison(leaf: np.ndarray) -> np.ndarray:
        poisoned = leaf.copy()
        poisoned[1] = np.nan if np.issubdtype(leaf.dtype, np.floating) else 1 - leaf[1].astype(int)
        return poisoned

    run = row_tables(program)
    params = program.random_params(0)
    close = functools.partial(np.allclose, rtol=1e-3, atol=1e-3, equal_nan=True)
    with jax.debug_nans(False):
        for data in program.spec.examples():
            clean = run(params, data)
            poisoned = run(params, jax.tree.map(poison, data))
            _refuse_dependent([name for name in clean if _differ(_rows(clean[name], [0]), _rows(poisoned[name], [0]))])
            # Two rows, in another order: nothing may depend on the first row, the place of a row or their number.
            fewer = run(params, jax.tree.map(lambda leaf: leaf[[2, 0]], data))
            _refuse_dependent([name for name in clean if not close(_rows(clean[name], [2, 0]), fewer[name])])
        found = {}
        for site in program.globals:
            poisoned = run({**params, site.name: np.full_like(params[site.name], np.nan)}, data)
            found[site.name] = frozenset(name for name in clean if _differ(clean[name], poisoned[name]))
    return found


def _rows(value: np.ndarray, rows: list[int]) -> np.ndarray:
    return value[rows] if value.ndim else value


def _refuse_dependent(names: list[str]) -> None:
    remedy = "compute it from the data beforehand and bind it with functools.partial"
    if "prior" in names:
        raise InputError(
            "a prior that depends on the rows of the data", "priors that are the same for every chunk of rows", remedy
        )
    if names:
        raise InputError(
            f"the site '{names[0]}' whose density of one row depends on other rows",
            "rows that are independent given the parameters",
            remedy,
        )


def _differ(clean: np.ndarray, poisoned: np.ndarray) -> bool:
    # Not only NaN: a program, or NumPyro, may turn a NaN into minus infinity.
    return not np.array_equal(clean, poisoned, equal_nan=True)
