"""Sites with a Gaussian q: which of their entries meet in a density, and over which nodes each density is averaged.

Entries of a site that meet in some density form a cell, in which q has a full covariance. Two entries meet where the
mixed derivative of the density (and, for the prior of the site, of the volume of its bijection) in their unconstrained
values is not zero. A density in which two entries do not meet is a sum of functions without one of them each, so that
both may have the same number at a node: its average is over as many numbers as entries meet.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probem.analysis.random_statistics import Draws, draw_rows, random_statistics
from probem.errors import InputError
from probem.families.corners import Families
from probem.form.statistics import expected_term
from probem.jit.compilation import concrete
from probem.mean_field.gaussians import GaussianSite
from probem.mean_field.mean_field import MeanField
from probem.mean_field.moments import density
from probem.mean_field.naturals import point_statistics
from probem.mean_field.quadrature import MOST_IN_GRID, NodeSet, grid, quasi_random
from probem.program.sites import Params

# The most unconstrained entries of all sites: their mixed derivatives are one matrix for every density.
_MOST_ENTRIES = 1024
# Random points, and the size of a step from them; a change of a slope that is a smaller part of slopes is rounding.
_NUM_POINTS, _STEP, _ROUNDED = 8, 2.0, 1e-9


class _Meeting(NamedTuple):
    """Of every density ``[T]``: which of the P entries reach it, and which of them meet there; and which entries reach
    the rows of every component.
    """

    reaching: Bool[np.ndarray, "T P"]
    meeting: Bool[np.ndarray, "T P P"]
    components: Bool[np.ndarray, "K P"]


def with_gaussians(mean_field: MeanField, families: Families, depends: Mapping[str, frozenset[str]]) -> MeanField:
    """The sites with a conjugate prior, and those with a Gaussian q. ``depends`` says which densities depend on a site.

    Raises
    ------
    InputError
        For a site that a density without an exponential-family form depends on, with no entries, or with too many.
    """
    form, names = mean_field.form, families.gaussian
    sites = []
    for parameter in (site for site in form.program.globals if site.name in names):
        name = parameter.name
        if generic := sorted(depends[name] & set(form.generic)):
            raise InputError(
                f"the family {families.of(name)!r} on '{name}', on which '{generic[0]}' depends, a density without an"
                " exponential-family form",
                "densities that reach the data through sufficient statistics",
                f"use Delta() on '{name}' (MAP), or draw it by NUTS from probem.marginalize(program)",
            )
        if 0 in parameter.shape:
            raise InputError(
                f"the site '{name}' of shape {parameter.shape} with no entries",
                "at least one",
                "ask for more components",
            )
        family: Any = families.of(name)
        sites.append(GaussianSite.in_cells(name, family, parameter.shape, parameter.constraint))
    size = sum(site.cells for site in sites)
    if size > _MOST_ENTRIES:
        raise InputError(
            f"Gaussian posteriors of {size} unconstrained entries",
            f"at most {_MOST_ENTRIES}",
            "use Delta() on the largest",
        )
    densities, seen = _meetings(mean_field, tuple(sites))
    cut = tuple(_cut(site, seen, place) for site, place in zip(sites, _places(sites), strict=True))
    return dataclasses.replace(
        mean_field,
        gaussians=cut,
        node_sets=_node_sets(cut, densities, seen),
        predictive_nodes=_predictive_nodes(cut, seen.components),
    )


def _places(sites: Sequence[GaussianSite]) -> list[slice]:
    """Where the entries of each site are among all."""
    ends = np.cumsum([site.cells * site.dim for site in sites])
    return [slice(end - site.cells * site.dim, end) for site, end in zip(sites, ends.tolist(), strict=True)]


def _cut(site: GaussianSite, seen: _Meeting, place: slice) -> GaussianSite:
    """The finest cut of a site into cells of neighbouring entries that do not meet in any density."""
    meeting = np.asarray(seen.meeting[:, place, place].any(0))
    size = len(meeting)
    sizes = np.cumprod([1, *site.unconstrained_shape[::-1]]).tolist()
    for dim in dict.fromkeys(sizes):
        cell = np.arange(size) // dim
        if not (meeting & (cell[:, None] != cell)).any():
            return GaussianSite.in_cells(site.name, site.gaussian, site.shape, site.constraint_of_site, dim)
    raise AssertionError("all entries together are a cell")


def _node_sets(sites: tuple[GaussianSite, ...], densities: tuple[str, ...], seen: _Meeting) -> tuple[NodeSet, ...]:
    """The nodes of every density: of two with the same numbers for the same entries, together."""
    together: dict[Any, tuple[list[str], dict[str, Int[np.ndarray, "C D"]], int, int, int]] = {}
    for name, reaching, meeting in zip(densities, seen.reaching, seen.meeting, strict=True):
        if reaching.any():
            columns, count = _columns(sites, reaching, meeting)
            families = [site.gaussian for site in sites if site.name in columns]
            nodes, draws = max(family.nodes for family in families), max(family.draws for family in families)
            key = nodes, draws, count, tuple((site, each.tobytes()) for site, each in columns.items())
            together.setdefault(key, ([], columns, count, nodes, draws))[0].append(name)
    sets = []
    for names, columns, count, nodes, draws in together.values():
        rule = grid(nodes, count) if count <= MOST_IN_GRID else quasi_random(draws, count)
        sets.append(NodeSet(tuple(names), columns, *rule))
    return tuple(sets)


def _predictive_nodes(sites: tuple[GaussianSite, ...], components: Bool[np.ndarray, "K P"]) -> NodeSet | None:
    """The nodes of the density of a new row: of entries that reach one component the product is averaged."""
    if not components.any():
        return None
    reaching = np.asarray(components.any(0))[None]
    meeting = np.asarray((components[:, :, None] & components[:, None, :]).any(0))[None]
    (nodes,) = _node_sets(sites, ("",), _Meeting(reaching, meeting, components))
    return nodes


def _columns(
    sites: tuple[GaussianSite, ...], reaching: Bool[np.ndarray, " P"], meeting: Bool[np.ndarray, "P P"]
) -> tuple[dict[str, Int[np.ndarray, "C D"]], int]:
    """The number that each entry has at a node, and how many there are: other ones for entries that meet, and for those
    of one cell.
    """
    cells = [
        (site, cell, np.arange(place.start + cell * site.dim, place.start + (cell + 1) * site.dim))
        for site, place in zip(sites, _places(sites), strict=True)
        for cell in range(site.cells)
    ]
    taken: list[tuple[Int[np.ndarray, " D"], set[int]]] = []
    columns: dict[str, Int[np.ndarray, "C D"]] = {}
    for site, cell, entries in cells:
        if site.name not in columns and not any(reaching[each].any() for other, _, each in cells if other is site):
            continue
        barred = {number for others, numbers in taken if meeting[np.ix_(entries, others)].any() for number in numbers}
        free = [number for number in range(len(barred) + site.dim) if number not in barred][: site.dim]
        columns.setdefault(site.name, np.zeros((site.cells, site.dim), int))[cell] = free
        taken.append((entries, set(free)))
    return columns, 1 + max(int(each.max()) for each in columns.values())


def _meetings(mean_field: MeanField, sites: tuple[GaussianSite, ...]) -> tuple[tuple[str, ...], _Meeting]:
    """The densities of the program by name, and which entries reach and meet in each; a few random points tell.

    Entry by entry a point is moved by a large step: an entry meets those in which the slope changes. So a density that
    is made of pieces (an order, a maximum, a condition) shows what it depends on, whose mixed derivatives are zero.
    """
    form = mean_field.form
    seen = []
    with jax.enable_x64(True):
        for seed in range(81, 81 + _NUM_POINTS):
            params, others = form.program.random_params(seed), form.program.random_params(seed + 10)
            steps = np.random.default_rng(seed).normal(scale=_STEP, size=sum(site.cells * site.dim for site in sites))
            moves = _moves(mean_field, params, others, steps, draw_rows(form, 81 + seed % 2), sites=sites)
            names, met = tuple(moves.slopes), [_meeting(moves, name) for name in moves.slopes]
            reaching, meeting = (np.stack(part) for part in zip(*met, strict=True))
            components = np.asarray(moves.components)
            seen.append((reaching, meeting, ~(components[1:] == components[:1]).T))
    return names, _Meeting(*(np.any(np.stack(part), axis=0) for part in zip(*seen, strict=True)))


class _Moves(NamedTuple):
    """At a point, and with each of P entries moved, ``[1 + P]``: the slope of every density in all entries, its value;
    and the log joint of the rows of every component.
    """

    slopes: Mapping[str, Float[Array | np.ndarray, "*moves P"]]
    values: Mapping[str, Float[Array | np.ndarray, "*moves"]]
    components: Float[Array | np.ndarray, "*moves K"]


def _meeting(moves: _Moves, name: str) -> tuple[Bool[np.ndarray, " P"], Bool[np.ndarray, "P P"]]:
    """Which entries reach a density, and which meet; what is not finite counts as both."""
    slopes, values = np.asarray(moves.slopes[name]), np.asarray(moves.values[name])
    with np.errstate(invalid="ignore"):
        size = np.abs(slopes[1:]) + np.abs(slopes[:1])
        alone = np.abs(slopes[1:] - slopes[:1]) <= _ROUNDED * (size + np.abs(slopes).max(initial=0.0))
    jumps = ~(values[1:] == values[0]) & (slopes == 0).all(0)
    reaching = ~(slopes == 0).all(0) | jumps
    meeting = ~alone | ~alone.T
    # What reaches it by jumps alone shows no slope that would change.
    meeting |= (jumps[:, None] | jumps[None, :]) & reaching[:, None] & reaching[None, :]
    return reaching, meeting | (np.eye(len(meeting), dtype=bool) & reaching)


@concrete
def _moves(
    mean_field: MeanField,
    params: Params,
    others: Params,
    steps: Float[Array, " P"],
    draws: Draws,
    *,
    sites: tuple[GaussianSite, ...],
) -> _Moves:
    """Densities at a point and random statistics of the rest, and with every unconstrained entry moved by its step."""
    form = mean_field.form
    statistics = random_statistics(form, draws)
    q = mean_field.start(params)
    naturals = {site.name: point_statistics(site.view, others[site.name]) for site in mean_field.naturals}
    places = _places(sites)
    parts = [jnp.ravel(site.bijection.inv(params[site.name])) for site in sites]
    start = jnp.concatenate(parts)

    def placed(entries: Float[Array, " P"]) -> tuple[Params, Params]:
        parts = {
            site.name: entries[place].reshape(site.unconstrained_shape)
            for site, place in zip(sites, places, strict=True)
        }
        return parts, {site.name: site.bijection(parts[site.name]) for site in sites}

    def components(entries: Float[Array, " P"]) -> Float[Array, " K"]:
        natural = mean_field.natural({**q, **placed(entries)[1]}, statistics.shifts)
        return (natural.weight * statistics.sums).sum(1) + natural.offset * statistics.counts

    def values(entries: Float[Array, " P"]) -> dict[str, Float[Array, ""]]:
        parts, at = placed(entries)
        moments = mean_field.moments({**q, **at})._replace(naturals=naturals)
        every = {name: term.total for name, term in mean_field.terms({**q, **at}).items()}
        for site in sites:
            volume = site.bijection.log_abs_det_jacobian(parts[site.name], at[site.name])
            every[site.name] = every[site.name] + jnp.sum(volume)
        for term in form.terms:
            natural = density(term, mean_field.factors.get(term.site), moments, statistics.shifts)
            every[term.site] = expected_term(form, statistics, term, natural)
        return every

    def at(entries: Float[Array, " P"]) -> _Moves:
        return _Moves(jax.jacrev(values)(entries), values(entries), components(entries))

    # To the other side of zero, where many conditions change.
    beyond = -start - jnp.where(start > 0, 1.0, -1.0) * jnp.abs(jnp.asarray(steps, start.dtype))
    moved = start + jnp.concatenate([jnp.zeros((1, len(start))), jnp.diag(beyond)])
    return jax.lax.map(at, moved)
