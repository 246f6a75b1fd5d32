"""How sites with a full posterior reach the densities of a program.

A density whose log is linear in functions of its arguments (``argument_statistics``, or a location and its square)
takes a conjugate prior exactly where these functions are affine in the sufficient statistics of that prior. The
program is run with random values, in float64, and every entry is matched: as an index map with a factor and an offset
where one statistic explains it (a gathered precision, 1 / scale^2, 0.1 * precision), else as a sum of several (the
sticks of a stick-breaking weight). Source: Winn & Bishop (2005), Variational Message Passing, section 2.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probem.errors import InputError
from probem.exponential import Arguments, Density, Prior
from probem.form.form import ExponentialForm
from probem.jit.compilation import concrete
from probem.mean_field.factors import AffineMap, ConjugateFactor, prior_arguments, prior_view, source
from probem.program.program import Program
from probem.program.sites import Params

# Scales of the random values in which an affine relation has to show, and how exactly.
_SCALES = (1.0, 1.0, 1.0, 0.3, 2.0, 1.0)
_NUM_DRAWS = len(_SCALES)
_TOLERANCE = 1e-8
# An offset below this part of the largest value is rounding; where a smaller one matters, a fit is held against it.
_NO_OFFSET = 1e-12
# Sums of statistics are looked for among this many pairs of an argument and a statistic: sticks of 150 components.
_MOST_SUMMED = 2**23


def refuse(site: str, reason: str, gaussian: bool = True) -> None:
    """One sentence for what is not conjugate; ``gaussian`` says whether a Gaussian q would do."""
    instead = f"families=probem.VARIATIONAL_BAYES | {{'{site}': probem.Gaussian()}}, a Gaussian q, " if gaussian else ""
    raise InputError(
        f"the family Conjugate() on '{site}', {reason}",
        "a prior that is conjugate to every density that depends on it",
        f"use {instead}Delta() on '{site}' (MAP), or draw it by NUTS from probem.marginalize(program)",
    )


def _prior_sites(program: Program) -> list[str]:
    return [site.name for site in program.globals if site.has_prior]


def arguments_and_sources(
    form: ExponentialForm, conjugate: Mapping[str, Density], params: Params
) -> tuple[dict[str, dict[str, Float[Array, "..."]]], dict[str, Float[Array, " _"]]]:
    """At values of all sites: the arguments of every density in their groups, and the source of every conjugate site.

    The program itself, to hold its edges against.
    """
    program = form.program
    sites = program.enumerated_trace(params, program.spec.zeros(1))
    arguments = {}
    for term in form.terms:
        arguments[term.site] = _groups(term.view, form.arguments_in(sites)[term.site])
    for name, site in sites.items():
        if site["type"] == "sample" and name not in program.local:
            view = conjugate.get(name) or (prior_view(site) if name in _prior_sites(program) else None)
            arguments[name] = _groups(view, prior_arguments(site, view)) if view is not None else {}
            if not arguments[name]:
                leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(site["fn"])]
                arguments[name] = {"opaque": jnp.concatenate([jnp.zeros(0), *leaves])}
    return arguments, {name: source(conjugate[name], params[name]) for name in conjugate}


@concrete
def evaluate(
    form: ExponentialForm, params: Params, *, conjugate: Mapping[str, Density]
) -> tuple[dict[str, dict[str, Float[Array, "..."]]], dict[str, Float[Array, " _"]]]:
    """``arguments_and_sources``, compiled by itself."""
    return arguments_and_sources(form, conjugate, params)


def find_factors(form: ExponentialForm, conjugate: Mapping[str, Density]) -> dict[str, ConjugateFactor]:
    """Every density of the program in which a site with a full posterior takes part, as value or through an argument.

    Raises
    ------
    InputError
        Where such a site reaches a density in a way that is not conjugate.
    """
    program = form.program
    prior_sites = _prior_sites(program)
    with jax.enable_x64(True):
        run = functools.partial(evaluate, form, conjugate=dict(sorted(conjugate.items())))
        draws = [program.random_params(41 + number, scale) for number, scale in enumerate(_SCALES)]
        runs = [run(draw) for draw in draws]
        changed = {site.name: run({**draws[0], site.name: draws[1][site.name]})[0] for site in program.globals}
        views: dict[str, Density] = {term.site: term.view for term in form.terms}
        sites = program.abstract_trace(lambda sites: {name: prior_view(sites[name]) for name in prior_sites}, 1)
        views |= {name: view for name, view in sites.items() if view is not None} | dict(conjugate)
        factors = {}
        for name, groups in runs[0][0].items():
            edges = {}
            for group, values in groups.items():
                moving = {site: bool(np.any(values != other[name][group])) for site, other in changed.items()}
                depends = [site for site in conjugate if moving[site]]
                if not depends:
                    continue
                others = [site for site in moving if moving[site] and site not in conjugate]
                _check(name, group, depends, others, conjugate)
                kept = [site for site in conjugate if (site in depends)]

                def again(number: int, name: str = name, group: str = group, kept: list[str] = kept) -> tuple[Any, Any]:
                    while number >= len(runs):
                        draws.append(program.random_params(41 + len(runs)))
                        runs.append(run(draws[-1]))
                    arguments, sources = runs[number]
                    target = arguments[name][group].reshape(-1)
                    return target, np.concatenate([sources[site].reshape(-1) for site in kept])

                match = _match(again, is_location=group == "location")
                if match is None:
                    refuse(depends[0], f"on which {_spoken(group)} of '{name}' depends in a way that is not conjugate")
                assert match is not None
                edges[group] = AffineMap.of(tuple(kept), values.shape, match, for_good=not program.numbers)
            if edges or name in conjugate:
                factors[name] = ConjugateFactor(name, views[name], edges.get("location"), edges.get("statistics"))
    return factors


def _groups(view: Density, arguments: Arguments) -> dict[str, Float[Array, "..."]]:
    """The arguments of a density in the groups in which they may be uncertain."""
    statistics = view.argument_statistics(arguments)
    groups = {"location": arguments[view.location_argument]} if view.is_location else {}
    if statistics is None:
        certain = [name for name in view.argument_names if name in arguments]
    else:
        groups["statistics"] = statistics
        certain = list(view.certain)
    leaves = [arguments[name].reshape(-1) for name in certain]
    return {**groups, "certain": jnp.concatenate([jnp.zeros(0), *leaves])}


def _check(name: str, group: str, depends: list[str], others: list[str], conjugate: Mapping[str, Density]) -> None:
    """Refuse what no edge can say."""
    first = depends[0]
    if group in ("opaque", "certain"):
        refuse(first, f"on which '{name}' depends in a way that has no conjugate prior")
    if others:
        refuse(first, f"which '{name}' depends on together with '{others[0]}', a site without Conjugate()")
    for site in depends:
        if isinstance(conjugate[site], Prior) == (group == "location"):
            prior = type(conjugate[site]).__name__.removesuffix("Prior")
            refuse(site, f"with a {prior} prior, on which {_spoken(group)} of '{name}' depends")


def _spoken(group: str) -> str:
    return "the location" if group == "location" else "the spread, rate or probability"


def _match(
    again: Any, is_location: bool
) -> tuple[Int[np.ndarray, "E M"], Float[np.ndarray, "E M"], Float[np.ndarray, " E"]] | None:
    """Index, coefficient and offset of every entry; None where an entry is not affine in the sources."""
    runs = [again(number) for number in range(_NUM_DRAWS)]
    targets, sources = (np.stack(part) for part in zip(*runs, strict=True))
    if not (np.isfinite(targets).all() and np.isfinite(sources).all()):
        return None
    index, coefficient, offset = _match_one(targets, sources)
    left = ~_holds(targets, sources, index[:, None], coefficient[:, None], offset)
    if not left.any():
        return index[:, None], coefficient[:, None], offset
    count = sources.shape[1]
    if is_location:
        return None
    if count * int(left.sum()) > _MOST_SUMMED:
        raise InputError(
            f"{left.sum()} arguments that may be sums over {count} uncertain statistics",
            f"at most {_MOST_SUMMED} pairs of them",
            "use fewer components, or write the arguments as entries of the sites",
        )
    runs = [again(number) for number in range(count + _NUM_DRAWS)]
    targets, sources = (np.stack(part) for part in zip(*runs, strict=True))
    design = np.concatenate([sources, np.ones((len(sources), 1))], 1)
    solution = np.linalg.lstsq(design[: count + 2], targets[: count + 2, left], rcond=None)[0].T
    solution[np.abs(solution) < 1e-9 * np.abs(solution).max(initial=1.0)] = 0.0
    width = max(1, int((solution[:, :-1] != 0).sum(1).max()))
    # The entries of most statistics first, zeros after them.
    order = np.argsort(solution[:, :-1] == 0, axis=1, kind="stable")[:, :width]
    wide_index = np.repeat(index[:, None], width, 1)
    wide = np.concatenate([coefficient[:, None], np.zeros((len(index), width - 1))], 1)
    wide_index[left], wide[left] = order, np.take_along_axis(solution[:, :-1], order, 1)
    offset[left] = solution[:, -1]
    last = slice(-_NUM_DRAWS, None)
    holds = _holds(targets[last], sources[last], wide_index, wide, offset).all()
    return (wide_index, wide, offset) if holds else None


def _match_one(
    targets: Float[np.ndarray, "draws E"], sources: Float[np.ndarray, "draws U"]
) -> tuple[Int[np.ndarray, " E"], Float[np.ndarray, " E"], Float[np.ndarray, " E"]]:
    """For every entry the source of which it may be an affine function: its index, the coefficient and the offset."""
    from scipy.spatial import KDTree

    def shape_of(values: Float[np.ndarray, "draws U"]) -> Float[np.ndarray, "U _"]:
        """What an affine function leaves as it is: the differences between draws, of length one, the first positive."""
        differences = values[1:] - values[:1]
        length = np.linalg.norm(differences, axis=0)
        return (np.sign(differences[0]) * differences / np.where(length > 0, length, 1.0)).T

    index = np.asarray(KDTree(shape_of(sources)).query(shape_of(targets))[1])
    nearest = sources[:, index]
    step = nearest - nearest[:1]
    scale = (step**2).sum(0)
    coefficient = (step * (targets - targets[:1])).sum(0) / np.where(scale > 0, scale, 1.0)
    # Exact where it is: what is gathered has the factor one.
    coefficient = np.where((targets == nearest).all(0), 1.0, coefficient)
    offset = np.where((targets == nearest).all(0), 0.0, targets[0] - coefficient * nearest[0])
    # What is left by rounding of the random values, which are of size one, is not small beside values in any unit.
    return index, coefficient, np.where(np.abs(offset) <= _NO_OFFSET * np.abs(targets).max(0), 0.0, offset)


def _holds(
    targets: Float[np.ndarray, "draws E"],
    sources: Float[np.ndarray, "draws U"],
    index: Int[np.ndarray, "E M"],
    coefficient: Float[np.ndarray, "E M"],
    offset: Float[np.ndarray, " E"],
) -> Bool[np.ndarray, " E"]:
    """Which entries are what the edge says, in all draws."""
    prediction = offset + (coefficient[None] * sources[:, index]).sum(2)
    size = np.abs(targets).max(0) + (np.abs(coefficient)[None] * np.abs(sources[:, index])).sum(2).max(0)
    return (np.abs(prediction - targets) <= _TOLERANCE * size).all(0)
