"""Which moves are worth a try from a fit, best first.

What is cheap is asked of all: merges, births and orders of the components are scored by their statistics
(``moves/scores.py``), deletes by what the rows would lose. Where a density is generic and has no statistics, merges are
ranked by how much components overlap, births by how well two means explain the rows of a component.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float

from probem.form.statistics import DataTotals
from probem.moves.rearrangement import Rearrangement, by_size
from probem.moves.rows import RowShares, losses
from probem.moves.scores import Sums, entropy_change, values
from probem.moves.splits import two_means
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results.moves import SPLIT_MERGE

# Pairs of components that are scored, those nearest to one another.
_MOST_PAIRS = 32
# Rearrangements that are looked at closely, for each one that may be tried.
_LOOKED_AT = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A move that may be tried: its kind and components as in ``Move``, the F that is expected where it starts (a
    score, NaN where there is none), and the ``q`` that it starts at, ``[N, K]``, made when it is asked for.
    """

    kind: str
    components: tuple[int, ...]
    score: float
    q: Callable[[], Float[np.ndarray, "N K"]]


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """A fit as candidates are sought in it.

    ``params`` are those of the fit, ``sums`` its statistics, ``shares`` the q of its rows and ``natural`` [K, S] the
    natural parameters there; ``weights`` are those of the rows, ``rows`` the numbers by which a component is split;
    ``known`` rows have a known assignment, and ``labelled`` components have such rows, and keep them. A rise of F
    by ``least`` counts as none. ``part_sums`` is asked for the statistics of a part of q, ``without`` for q over the
    components but one.
    """

    plan: Plan
    params: Params
    totals: DataTotals
    sums: Sums
    natural: Float[np.ndarray, "K S"]
    shares: RowShares
    weights: Float[np.ndarray, " N"]
    rows: Float[np.ndarray, "N F"]
    known: Bool[np.ndarray, " N"]
    labelled: Bool[np.ndarray, " K"]
    elbo: float
    least: float
    part_sums: Callable[[Float[np.ndarray, "N K"]], Sums]
    without: Callable[[int], Float[np.ndarray, "N K"]]

    @functools.cached_property
    def occupied(self) -> Bool[np.ndarray, " K"]:
        """The components that have half a row or more."""
        return self.sums.counts > 0.5 * self.weights.sum() / np.count_nonzero(self.weights)

    @functools.cached_property
    def empty(self) -> list[int]:
        """The others, but for those of known labels."""
        return [int(place) for place in np.flatnonzero(~self.occupied & ~self.labelled)]

    @functools.cached_property
    def is_scored(self) -> bool:
        """Whether statistics say all that the rows say of the parameters."""
        return not self.plan.form.generic

    @functools.cached_property
    def value(self) -> float:
        """What the statistics of the fit are worth as they are."""
        return float(values(self.plan, self.params, self.totals, self.sums, [(Rearrangement(), None)])[0])

    @functools.cached_property
    def halves(self) -> dict[int, Float[np.ndarray, " N"]]:
        """By component that is occupied, the shares of the rows that are split off; those first whose two means explain
        most of their variance.
        """
        splits = []
        for component in np.flatnonzero(self.occupied):
            share = np.where(self.known | (self.weights == 0), 0.0, self.shares.q[:, component])
            side, explained = two_means(self.rows, share * self.weights)
            if side.any():
                splits.append((-explained, int(component), np.where(side, share, 0.0)))
        return {component: part for _, component, part in sorted(splits, key=lambda each: each[:2])}

    @functools.cached_property
    def half_sums(self) -> dict[int, Sums]:
        """The statistics of those shares, in one pass for all components."""
        parts = np.zeros_like(self.shares.q)
        for component, part in self.halves.items():
            parts[:, component] = part
        every = self.part_sums(parts)
        return {component: Sums(every.counts[component, ...], every.sums[component]) for component in self.halves}

    def by_score(self, wanted: Sequence[Rearrangement], most: int) -> list[tuple[float, Rearrangement]]:
        """The score of each of the best, ``most`` of them, with the components by size if that is better; without
        scores the first, and NaN.
        """
        if not self.is_scored:
            return [(math.nan, made) for made in wanted[:most]]
        scores = self.scores(wanted)
        # The entropy falls as components become one, so that these are the most that can come of them.
        likely = [int(place) for place in np.argsort(-scores, kind="stable")[: _LOOKED_AT * most]]
        every = [(float(scores[place]), wanted[place]) for place in likely]
        if not self.plan.is_exchangeable:
            ordered = [self.by_size(made) for _, made in every]
            both = zip(every, zip(self.scores(ordered).tolist(), ordered, strict=True), strict=True)
            every = [pair[0] if pair[0][0] >= pair[1][0] else pair[1] for pair in both]
        pairs = {made.merge for _, made in every}
        change = {pair: entropy_change(self.shares.q, self.weights, pair) for pair in pairs}
        exact = [(score + change[made.merge], made) for score, made in every]
        return sorted(exact, key=lambda each: -each[0])[:most]

    def scores(self, wanted: Sequence[Rearrangement]) -> Float[np.ndarray, " A"]:
        """F after the first M half-step from each, if the entropy of the assignments stays, nats."""
        every = [(made, self.half_sums[made.split[0]] if made.split else None) for made in wanted]
        return self.elbo - self.value + values(self.plan, self.params, self.totals, self.sums, every)

    def by_size(self, made: Rearrangement) -> Rearrangement:
        """A rearrangement, and then the components by size, but for those of known labels."""
        part = self.half_sums[made.split[0]].counts if made.split else None
        return made._replace(order=by_size(made.of(self.sums.counts, part), ~self.labelled))

    def start(self, made: Rearrangement) -> Float[np.ndarray, "N K"]:
        """q of the rows after a rearrangement."""
        part = self.halves[made.split[0]] if made.split else None
        return np.ascontiguousarray(made.of(self.shares.q.T, part).T)


def candidates(view: View, kinds: Sequence[str], tries: int) -> Iterator[Candidate]:
    """The moves of these kinds that are worth a try, ``tries`` at most of each, best first."""
    has_priors = view.plan.has_priors
    if "relabel" in kinds:
        yield from _relabellings(view)
    merges = _merges(view, tries) if "merge" in kinds else []
    # Without a prior a component that has no rows costs nothing: to empty one gains nothing.
    if has_priors:
        yield from merges
    if "delete" in kinds and has_priors:
        yield from _deletes(view, tries)
    if "birth" in kinds and view.empty:
        yield from _births(view, tries)
    if "birth" in kinds and merges and not (view.empty and has_priors):
        yield from _both(view, merges, tries)


def _relabellings(view: View) -> list[Candidate]:
    """The components by size, where that order has a higher F."""
    if not view.is_scored or view.plan.is_exchangeable:
        return []
    made = view.by_size(Rearrangement())
    (score,) = view.scores([made])
    assert made.order is not None
    is_higher = score > view.elbo + view.least
    return [_candidate(view, "relabel", made.order, float(score), made)] if is_higher else []


def _candidate(view: View, kind: str, components: tuple[int, ...], score: float, made: Rearrangement) -> Candidate:
    return Candidate(kind, components, score, functools.partial(view.start, made))


def _pairs(view: View) -> list[tuple[int, int]]:
    """Occupied components that may be merged, nearest first; the first of a pair is kept."""
    occupied = [int(place) for place in np.flatnonzero(view.occupied)]
    pairs = []
    for one, other in itertools.combinations(occupied, 2):
        if not view.labelled[other]:
            pairs.append((one, other))
        elif not view.labelled[one]:
            pairs.append((other, one))
    if not pairs:
        return []
    ones, others = np.array(pairs).T
    counts = view.sums.counts
    if view.is_scored:
        # The fall of the expected log density as two components of an exponential family become one, to second order.
        means = view.sums.sums / np.maximum(counts, np.finfo(float).tiny)[:, None]
        with np.errstate(invalid="ignore", over="ignore"):
            apart = ((view.natural[ones] - view.natural[others]) * (means[ones] - means[others])).sum(1)
        far = counts[ones] * counts[others] / (counts[ones] + counts[others]) * np.abs(apart)
    else:
        q = view.shares.q * np.sqrt(view.weights)[:, None]
        sizes = np.sqrt(np.maximum((q**2).sum(0), np.finfo(float).tiny))
        far = -((q.T @ q) / np.outer(sizes, sizes))[ones, others]
    order = np.argsort(np.where(np.isnan(far), np.inf, far), kind="stable")
    return [pairs[place] for place in order[:_MOST_PAIRS]]


def _merges(view: View, tries: int) -> list[Candidate]:
    ranked = view.by_score([Rearrangement(merge=pair) for pair in _pairs(view)], tries)
    return [_candidate(view, "merge", made.merge or (), score, made) for score, made in ranked]


def _deletes(view: View, tries: int) -> list[Candidate]:
    lost = losses(view.shares, view.weights)
    may = np.flatnonzero(view.occupied & ~view.labelled & np.isfinite(lost))
    if view.occupied.sum() < 2:
        return []
    order = may[np.argsort(lost[may], kind="stable")][:tries]
    return [
        Candidate("delete", (int(place),), view.elbo - float(lost[place]), functools.partial(view.without, int(place)))
        for place in order
    ]


def _births(view: View, tries: int) -> list[Candidate]:
    ranked = view.by_score([Rearrangement(split=(component, view.empty[0])) for component in view.halves], tries)
    return [_candidate(view, "birth", made.split or (), score, made) for score, made in ranked]


def _both(view: View, merges: Sequence[Candidate], tries: int) -> list[Candidate]:
    """A component emptied into another, and given a part of a third: as many components as before."""
    likely = list(view.halves)
    if view.is_scored:
        # What a birth adds hardly depends on which component takes the part.
        spare = int(np.argmin(np.where(view.labelled, np.inf, view.sums.counts)))
        alone = [Rearrangement(split=(component, spare)) for component in likely if component != spare]
        likely = [made.split[0] for _, made in view.by_score(alone, len(alone)) if made.split]
    wanted = []
    for kept, emptied in (merge.components for merge in merges):
        free = [component for component in likely if component not in (kept, emptied)][:tries]
        wanted += [Rearrangement((kept, emptied), (component, emptied)) for component in free]
    ranked = view.by_score(wanted, tries)
    return [
        _candidate(view, SPLIT_MERGE, (*(made.merge or ()), *(made.split or ())), score, made) for score, made in ranked
    ]
