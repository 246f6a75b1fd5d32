"""What a density depends on that is uncertain under q, and whether its average over q has a closed form."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from probem.errors import InputError
from probem.form.sites import ExponentialSite
from probem.mean_field.factors import AffineMap, ConjugateFactor
from probem.mean_field.locations import TiedLocation
from probem.mean_field.mean_field import MeanField
from probem.mean_field.naturals import NaturalSite


class Parents(NamedTuple):
    """The one site and cell that the spread, rate or probabilities of every component and copy follow from, and the
    statistic there for each of theirs.
    """

    site: NaturalSite
    cell: Int[np.ndarray, "K C"]
    position: Int[np.ndarray, "K C A"]

    @property
    def is_shared(self) -> bool:
        """Whether all copies follow from one cell."""
        return bool((self.cell == self.cell[:, :1]).all())


def check_closed_form(mean_field: MeanField) -> None:
    """Raise an ``InputError`` for a density whose average over q has no closed form."""
    _check_assignments(mean_field)
    used: set[tuple[int, str, int]] = set()
    for term in mean_field.form.data_terms:
        factor = uncertain(mean_field, term.site)
        if factor is None:
            continue
        reason, cells = None, _location_cells(mean_field, factor.location)
        if any(_repeats(cell, term) for cell in cells.values()):
            reason = "features that share, or are correlated by, an uncertain location"
        if factor.statistics is not None:
            parents = parents_of(mean_field, factor.statistics)
            locations = [site for site in mean_field.locations if site.name in cells]
            if parents is None:
                reason = "arguments that do not each follow from one uncertain value"
            elif not parents.is_shared and _repeats(parents.cell, term):
                reason = "features of which some, but not all, share an uncertain value"
            elif any(not isinstance(site, TiedLocation) or site.parent != parents.site.name for site in locations):
                reason = "a location and a precision that are independent under q"
            else:
                cells[parents.site.name] = parents.cell
        sources = {(k, name, cell) for name, rows in cells.items() for k, row in enumerate(rows) for cell in set(row)}
        if reason is None and sources & used:
            reason = "an uncertain value that another observed site shares"
        used |= sources
        if reason:
            raise InputError(
                f"the posterior predictive density of '{term.site}', with {reason}",
                "one with a closed form",
                "pass plug_in=True for the density at fit.params, or average over draws from fit.guide()",
            )


def _check_assignments(mean_field: MeanField) -> None:
    """Raise an ``InputError`` for shares that are looked up and that another assignment has as well."""
    behind: dict[str, set[str]] = {}
    for term in mean_field.form.terms:
        factor = uncertain(mean_field, term.site)
        if term.is_assignment and factor is not None and factor.statistics is not None:
            behind[term.site] = set(factor.statistics.sites)
    for term in mean_field.form.column_terms:
        shared = [name for name, sites in behind.items() if name != term.site and sites & behind.get(term.site, set())]
        if term.is_assignment and shared:
            raise InputError(
                f"the posterior predictive density of rows whose '{term.site}' and '{shared[0]}' may share an uncertain"
                " probability",
                "one with a closed form",
                "pass plug_in=True for the density at fit.params, or average over draws from fit.guide()",
            )


def natural_of(mean_field: MeanField, name: str) -> NaturalSite:
    """The site of this name, which reaches densities by its statistics."""
    return next(site for site in mean_field.naturals if site.name == name)


def uncertain(mean_field: MeanField, name: str) -> ConjugateFactor | None:
    """The density of a site without the edges that start at points; None where nothing is uncertain."""
    factor = mean_field.factors.get(name)
    if factor is None:
        return None

    def kept(edge: AffineMap | None) -> AffineMap | None:
        points = edge is None or all(mean_field.by_name[site].is_point for site in edge.sites)
        return None if points else edge

    factor = dataclasses.replace(factor, location=kept(factor.location), statistics=kept(factor.statistics))
    return factor if factor.is_uncertain else None


def _location_cells(mean_field: MeanField, edge: AffineMap | None) -> dict[str, Int[np.ndarray, "K C"]]:
    """For every uncertain location behind an edge, its cells (-1: none)."""
    cells: dict[str, np.ndarray] = {}
    if edge is None:
        return cells
    used = np.where(edge.used[:, 0], edge.index[:, 0], -1).reshape(*edge.shape[:2], -1)
    start = 0
    for name in edge.sites:
        site = next(site for site in mean_field.locations if site.name == name)
        inside = (used >= start) & (used < start + site.cells * site.dim)
        if not site.is_point:
            cells[name] = np.where(inside, (used - start) // site.dim, -1).max(2)
        start += site.cells * site.dim
    return cells


def parents_of(mean_field: MeanField, edge: AffineMap) -> Parents | None:
    """Where every argument follows from one cell of one site, which; None otherwise."""
    if edge.index.shape[1] != 1 or len(edge.sites) != 1 or len(edge.shape) != 3:
        return None
    site = natural_of(mean_field, edge.sites[0])
    index = edge.index[:, 0].reshape(edge.shape)
    # A constant follows from nothing, and so from whatever the others follow from.
    used = edge.used[:, 0].reshape(edge.shape)
    cell, position = index // site.num_statistics, index % site.num_statistics
    parent_cell = np.where(used, cell, -1).max(2)
    if (parent_cell < 0).any() or (used & (cell != parent_cell[:, :, None])).any():
        return None
    return Parents(site, parent_cell, np.where(used, position, 0))


def _repeats(cells: Int[np.ndarray, "K C"], term: ExponentialSite) -> bool:
    """Whether two copies that one row may have together have the same cell of q under one component."""
    lookup = None if term.presence is None else term.presence.lookup
    for row in cells.reshape(len(cells), -1, term.num_cells):
        if lookup is None or lookup.is_common:
            if any(len(np.unique(each)) < len(each) for each in (copies[copies >= 0] for copies in row.T)):
                return True
            continue
        # Each copy may be in any of its cells, whatever those of the others are.
        used = [np.unique(copy[copy >= 0]) for copy in row]
        if sum(map(len, used)) > len(np.unique(np.concatenate(used))):
            return True
    return False
