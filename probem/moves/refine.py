"""``refine``: birth, merge and delete moves from a fit, each accepted only if F rises.

The program stays as it is, its K the most components that there may be. A move is another start of the same compiled
loop: a q of the rows in which a component was emptied into another one (merge), left out (delete), or in which an empty
one took a part of another (birth). Source: Hughes & Sudderth (2013), Memoized online variational inference for
Dirichlet process mixture models, sections 3.2-3.3; Ueda, Nakano, Ghahramani & Hinton (2000), SMEM algorithm for mixture
models, for both at once.
"""

import dataclasses
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from probem.analysis.options import FitOptions, check_options
from probem.analysis.problem import observe
from probem.data.checks import check_data
from probem.data.observations import Observations
from probem.e_step.initial_q import InitialQ
from probem.e_step.summary import all_statistics
from probem.errors import InputError, nearest
from probem.fitting.certify import certified
from probem.fitting.run import begin
from probem.moves.candidates import Candidate, View, candidates
from probem.moves.rows import fingerprint, is_nearly, row_shares
from probem.moves.scores import Sums
from probem.moves.trial import Trial
from probem.plan.plan import Plan
from probem.program.as_fitted import as_fitted
from probem.results import failures
from probem.results.fit import Fit
from probem.results.moves import KINDS, Move, Moves
from probem.solver.initialisers import Parameters
from probem.solver.result import Result
from probem.solver.start import observed_rows_of
from probem.solver.state import Limits
from probem.solver.step import no_memory, visit
from probem.stopping import RelativeRise, Stopping, rule_for

# Results of posteriors that are not those of the program, so that F says nothing.
_NOT_THOSE_OF_THE_PROGRAM = (Result.NOT_CONJUGATE, Result.UNRESOLVED)
# Nats a row that F may still be expected to rise by when moves are compared.
_SETTLED = 1e-6
# Nats a row that count as no rise: the iterations that follow would bring them as well.
_NO_RISE = 1e-5
# Steps after which a move that is better is left as it is, for the next one to go on from.
_ENOUGH = 64
# How many roundings of F count as none.
_ROUNDINGS = 64
# F of the same rows differs by this many of those, at most.
_OTHERWISE = 64
# Directions along which the rows of sparse data are told apart.
_DIRECTIONS = 16


def refine(
    fit: Fit,
    *data: Any,
    moves: Sequence[str] = KINDS,
    tries: int = 3,
    max_moves: int = 100,
    row_weights: Any = None,
    labels: Any = None,
    max_steps: int = 1000,
    tolerance: int | float | Stopping = 1e-10,
    throw: bool = True,
) -> Fit:
    """A fit with another number of occupied components, and a higher F, by moves that no iteration makes.

    For mixtures whose number of components is unknown: K of the program is the most there may be, and under a prior
    that empties components (a stick-breaking or a sparse Dirichlet one, as full posteriors or as points) F decides how
    many have rows. Iterations lead to a local maximum, where two components may share a cluster, or one cover two. A
    move is another start of the same program, from the q of the rows at the fit:

    - ``"merge"`` gives all rows of a component to another one;
    - ``"delete"`` shares the rows of a component among the others, by their posterior without it;
    - ``"birth"`` gives a part of the rows of a component to an empty one: the farther side of two means;
    - ``"relabel"`` numbers the components by size, where their order counts, as under stick-breaking.

    From there the iterations of ``fit`` go on, and the move is accepted if they end at a higher F, all of its terms
    counted, than the fit before it had and promised. It is given up once F is below that by several times what it is
    still expected to rise by. Where no component is empty, or the program has no prior (maximum likelihood, where a
    merge or a delete alone gains nothing), a merge and a birth are one move, and the number of components stays.

    Candidates are scored first: F after the first M half-step follows from sums of statistics, without a pass over the
    rows for each (of relabellings, merges and births, where all densities are of exponential families). The best
    ``tries`` of each kind are tried, relabellings first, births last, and where one is accepted, candidates are sought
    again. A search costs two passes over the rows, a delete one more, a move the iterations that its line in ``moves``
    counts; q of all rows is in memory, ``[N, K]``. The first call for a program compiles eight functions beside those
    of ``fit``, some seconds; no move compiles anything, nor does another call with a program and data of these shapes.
    Source: Hughes & Sudderth (2013), Memoized online variational inference for Dirichlet process mixture models,
    sections 3.2-3.3; Ueda et al. (2000), SMEM algorithm for mixture models.

    Parameters
    ----------
    fit : a fit of ``probem.fit``, its F that of these rows. Of families that maximise F: ``Categorical``, ``Delta``,
        ``TopC``
    data : the data arguments as they were fitted; NaN is a missing value
    moves : the kinds of moves that are tried
    tries : how many candidates of each kind are tried from one fit
    max_moves : the most moves that are tried in all
    row_weights, labels : ``[N]``, as in ``probem.fit``: those of the fit. A component with rows of a known assignment
        is neither emptied nor numbered anew
    max_steps, tolerance : as in ``probem.fit``, for the iterations after a move. A move has to be better than what the
        fit before it promised, and by 1e-5 nats a row; the last fit ends by the tolerance
    throw : raise ``FitError`` for every result but CONVERGED and INTERRUPTED; False returns the fit with its ``result``

    Returns
    -------
    Fit : of the same program, its F (nats, total) no lower than that of ``fit``; its ``history`` is that of the
        iterations since the last move that was accepted. ``moves`` has every move that was tried, and prints as a
        table. Where none was accepted it is ``fit`` itself. Ctrl-C ends with the best fit so far, INTERRUPTED

    Raises
    ------
    InputError
        Before any move: for rows on which the fit has another F, for a fit that has no F or ended badly, for families
        that do not maximise F, and for unknown moves.
    FitError
        For a fit that ended badly; its ``fit`` holds the last good state.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import RatePrior, bayesian_poisson_mixture, stick_breaking
    >>> numpyro.enable_x64()
    >>> x = np.repeat([[0, 30], [1, 28], [50, 2], [49, 3], [20, 20]], 8, axis=0)
    >>> process = partial(bayesian_poisson_mixture, weights=stick_breaking, prior=RatePrior(1.0, np.full(2, 0.1)))
    >>> program = partial(process, num_components=5)
    >>> fit = probem.fit(program, x, families=probem.VARIATIONAL_BAYES, init=probem.Labels(np.arange(40) // 10))
    >>> better = probem.refine(fit, x)
    >>> better.elbo > fit.elbo, np.round(better.counts).tolist()
    (True, [16.0, 16.0, 8.0, 0.0, 0.0])
    """
    kinds = _checked_kinds(moves)
    for name, number in (("tries", tries), ("max_moves", max_moves)):
        if not isinstance(number, numbers.Integral) or isinstance(number, bool) or number < 1:
            raise InputError(f"{name}={number!r}", "a whole number of at least 1", "change it")
    asked = _options(fit, max_steps, tolerance, row_weights, labels)
    search = _Search.of(fit, data, asked, tries)
    best, interrupted = search.best, False
    try:
        search.run(kinds, int(max_moves))
        best = search.best
        if best is not search.given or fit.result is not Result.CONVERGED:
            best.go_on(search.final_limits)
    except KeyboardInterrupt:
        interrupted, best = True, search.best
    chosen = fit
    if best is not search.given or best.elbo > fit.elbo:
        reached = best.fit()
        chosen = reached if interrupted else certified(failures.judged(reached), search.data, asked)
        chosen = fit if chosen.elbo < fit.elbo or chosen.result in _NOT_THOSE_OF_THE_PROGRAM else chosen
    if interrupted:
        chosen = dataclasses.replace(chosen, result=Result.INTERRUPTED)
    chosen = dataclasses.replace(chosen, moves=Moves(tuple(search.tried)))
    if throw:
        failures.throw(chosen)
    return chosen


def _checked_kinds(moves: Any) -> tuple[str, ...]:
    """The kinds that are asked for, in the order in which they are tried."""
    if isinstance(moves, str) or not isinstance(moves, Sequence):
        raise InputError(f"moves={moves!r}", "a sequence of names", f"write moves={KINDS!r}, or some of them")
    for kind in moves:
        if kind not in KINDS:
            raise InputError(f"the move {kind!r}", f"one of {', '.join(KINDS)}", nearest(str(kind), KINDS))
    if not moves:
        raise InputError("no moves", f"some of {', '.join(KINDS)}", "leave moves out")
    return tuple(kind for kind in KINDS if kind in moves)


def _options(fit: Any, max_steps: Any, tolerance: Any, row_weights: Any, labels: Any) -> FitOptions:
    """What the fit was asked for, as its plan has it, and when the iterations are to end.

    Raises
    ------
    InputError
        For a fit that no move can start from.
    """
    if not isinstance(fit, Fit):
        raise InputError(f"a fit of type {type(fit).__name__}", "what probem.fit returns", "fit the program first")
    plan, totals = fit.plan, fit.totals
    if plan is None or totals is None:
        raise InputError(
            "a fit that was loaded without its program", "the program it was fitted with", "probem.load(path, program)"
        )
    family = plan.family
    if family.is_stochastic or float(family.entropy_weight) != 1.0 or not bool(family.is_final(jnp.asarray(0))):
        raise InputError(
            f"moves under {family!r}, which does not maximise F in every iteration",
            "a family that does, such as Categorical(), Delta() or TopC()",
            "fit it again with one, from init=probem.Parameters(fit.variational)",
        )
    if fit.result in (*failures.FAILURES, *_NOT_THOSE_OF_THE_PROGRAM) or not np.isfinite(fit.elbo):
        ended = "has no F" if fit.result is None or not np.isfinite(fit.elbo) else f"ended as {fit.result.name}"
        raise InputError(f"a fit that {ended}", "a fit whose F can be compared", "start elsewhere (key=, init=)")
    values = {name: np.asarray(fit.variational[name]) for name, _ in plan.fixed}
    masks = {name: np.frombuffer(mask, bool).reshape(values[name].shape) for name, mask in plan.fixed}
    options = FitOptions(
        families=fit.families,
        init=Parameters(dict(fit.variational)),
        max_steps=max_steps,
        tolerance=tolerance,
        row_weights=row_weights,
        labels=labels,
        fixed={name: np.where(masks[name], value, np.nan) for name, value in values.items()} or None,
        added_variance=0.0 if totals.added_variance is None else np.asarray(totals.added_variance),
        record_gap=plan.record_gap,
        modes=plan.families.modes,
        predictors=plan.families.predictors,
    )
    check_options(options)
    return options


class _Search:
    """The search for moves: the best fit so far (``best``), the fit given, and what was tried."""

    def __init__(self, data: tuple[Any, ...], given: Trial, observed: Observations, final: Limits, tries: int) -> None:
        self.data, self.given, self.best, self.observed = data, given, given, observed
        self.final_limits, self.tries = final, tries
        self.tried: list[Move] = []
        self._failed: list[tuple[str, Float[np.ndarray, "J 4"]]] = []
        self._weights = np.ones(observed.num_rows) if observed.weights is None else np.asarray(observed.weights, float)
        self._columns = _columns(given.run.data_pass.plan, observed)

    @classmethod
    def of(cls, fit: Fit, data: tuple[Any, ...], options: FitOptions, tries: int) -> "_Search":
        """The search from a fit, its F evaluated on the data.

        Raises
        ------
        InputError
            For data that cannot be used, or on which the fit has another F.
        """
        assert fit.plan is not None
        data = as_fitted(check_data(data, missing=True, sparse=True), fit.plan.program.spec)
        rule = rule_for(options.tolerance, False)
        loose = _SETTLED
        if isinstance(rule, RelativeRise):
            loose = max(loose, float(rule.tolerance))
        run, state = begin(fit.program, data, options._replace(tolerance=loose))
        plan = run.data_pass.plan
        _, observed, _ = observe(plan, data, options.row_weights, options.labels)
        given = Trial.of(run, state)
        given.evaluate()
        rounding = _ROUNDINGS * float(jnp.finfo(plan.dtype).eps) * (abs(fit.elbo) + fit.total_weight)
        if not abs(given.elbo - fit.elbo) <= _OTHERWISE * rounding:
            raise InputError(
                f"rows on which the fit has F = {given.elbo:.8g} nats",
                f"those on which it was fitted, with F = {fit.elbo:.8g}",
                "pass its data, row_weights and labels",
            )
        final = Limits.of(
            jax.tree.map(lambda number: jnp.asarray(number, plan.dtype), rule),
            jnp.asarray(options.max_steps, jnp.int32),
        )
        return cls(data, given, observed, final, tries)

    def settle(self) -> None:
        """The best fit, until F promises little."""
        self.best.climb()

    def run(self, kinds: Sequence[str], max_moves: int) -> None:
        """Moves, until none of those that are worth a try from a fit that is settled is accepted."""
        self.best.climb(enough=_ENOUGH)
        while len(self.tried) < max_moves:
            if self._moves(kinds, max_moves):
                continue
            if self.best.is_settled:
                return
            self.settle()

    def _moves(self, kinds: Sequence[str], max_moves: int) -> bool:
        """Whether one of the moves that are worth a try from the best fit is accepted."""
        for candidate in candidates(self.view(), kinds, self.tries):
            if len(self.tried) >= max_moves:
                return False
            if not self._is_known(candidate) and self._accepts(candidate):
                return True
        return False

    def view(self) -> View:
        """The best fit, as candidates are sought in it."""
        best, rows = self.best, self.observed
        state, data_pass = best.state, best.run.data_pass
        plan = data_pass.plan
        everything = np.ones(plan.num_components, bool)
        labels = np.full(rows.num_rows, -1) if rows.labels is None else np.asarray(rows.labels)
        labelled = np.isin(np.arange(plan.num_components), labels[self._weights > 0])
        shares = row_shares(data_pass, state.best, everything, rows.num_rows)
        self._shares = shares
        return View(
            plan=plan,
            params=state.best,
            totals=data_pass.totals,
            sums=Sums(np.asarray(state.counts, float), np.asarray(state.sums, float)),
            natural=np.asarray(state.natural.weight, float),
            shares=shares,
            weights=self._weights,
            rows=self._columns,
            known=labels >= 0,
            labelled=labelled,
            elbo=best.elbo,
            least=self._least(best),
            part_sums=self._part_sums,
            without=lambda place: (
                row_shares(data_pass, state.best, np.arange(plan.num_components) != place, rows.num_rows).q
            ),
        )

    def _part_sums(self, q: Float[np.ndarray, "N K"]) -> Sums:
        """The statistics of shares of the rows, which need not sum to 1."""
        data_pass, state = self.best.run.data_pass, self.best.state
        initial = InitialQ(tuple(data_pass.split(jnp.asarray(q, data_pass.plan.dtype))))
        summary, _ = visit(data_pass, state, no_memory(data_pass), initial)
        statistics = data_pass.call(all_statistics, 0, None)(data_pass.plan, summary, data_pass.totals)
        return Sums(np.asarray(statistics.counts, float), np.asarray(statistics.sums, float))

    def _print(self, candidate: Candidate) -> Float[np.ndarray, "J 4"]:
        """Which rows the components of a candidate have."""
        return fingerprint(self._shares.q[:, sorted(set(candidate.components))])

    def _is_known(self, candidate: Candidate) -> bool:
        """Whether a move of the same kind was tried in vain with components of nearly the same rows."""
        rows = self._print(candidate)
        return any(kind == candidate.kind and is_nearly(rows, other) for kind, other in self._failed)

    def _least(self, fit: Trial) -> float:
        """By how much a move has to be better than a fit: what that promises, and more than counts as no rise."""
        promised = fit.promised if np.isfinite(fit.promised) else 0.0
        rounding = _ROUNDINGS * float(jnp.finfo(fit.run.data_pass.plan.dtype).eps) * abs(fit.elbo)
        return float(max(promised, _NO_RISE * self._weights.sum()) + rounding)

    def _accepts(self, candidate: Candidate) -> bool:
        """Try a candidate; the best fit is that from there if F is higher."""
        before = self.best
        target = before.elbo + self._least(before)
        trial = Trial.from_q(before.run, before.state.best, candidate.q())
        try:
            trial.climb(target, _ENOUGH)
        finally:
            # What Ctrl-C leaves behind may be better as well.
            is_better = not trial.ended_badly and trial.elbo > target
            self.best = trial if is_better else before
        self.tried.append(
            Move(candidate.kind, candidate.components, before.elbo, trial.elbo, trial.num_steps, is_better)
        )
        if not is_better:
            self._failed.append((candidate.kind, self._print(candidate)))
        return is_better


def _columns(plan: Plan, rows: Observations) -> Float[np.ndarray, "N F"]:
    """The observed numbers of every row, NaN where they are missing; of sparse rows, where they lie along a few random
    directions.
    """
    if rows.are_sparse:
        matrix = rows.data[0].matrix
        return np.asarray(matrix @ np.random.default_rng(1).standard_normal((matrix.shape[1], _DIRECTIONS)))
    return np.asarray(observed_rows_of(plan, rows.data, rows.missing), float)
