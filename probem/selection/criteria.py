"""Criteria that choose among fitted programs: each an object with a name, which end is the better, and its value."""

import abc
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Float, Int

from probem.analysis.options import FitOptions
from probem.data.blocks import Block
from probem.e_step.bound import row_gap
from probem.e_step.evaluation import At, evaluate_rows, natural_parameters
from probem.errors import InputError, nearest
from probem.families.assignments import Delta
from probem.form.statistics import DataTotals
from probem.jit.compilation import by_plan
from probem.plan.plan import Plan
from probem.program.dependence import dependents
from probem.program.fixed import num_free
from probem.program.sites import Params
from probem.results.answers import log_density
from probem.results.fit import Fit
from probem.selection.symmetry import log_relabellings


def num_parameters(plan: Plan) -> int:
    """P, the number of free parameters that log p(X | theta) depends on, fitted as points.

    Every site counts in unconstrained space: a simplex of K has K - 1, a covariance matrix D (D + 1) / 2. A site that
    reaches the data through the prior of another alone is no parameter of log p(X | theta), nor is one with a full
    posterior, nor what is fixed.
    """
    depends, local = dependents(plan.program), set(plan.program.local)
    return sum(num_free(plan.program, plan.fixed, site.name) for site in plan.point_sites if depends[site.name] & local)


@dataclasses.dataclass(frozen=True)
class Measures:
    """A fit and its data, and what criteria are made of: L, P and N; nats, totals over the rows.

    Attributes
    ----------
    fit, data : the fit, and the arrays that it was fitted to
    row_weights : ``[N]``, how often each row counts; None where each counts once
    labels : ``[N]``, the components that are known, -1 elsewhere; None where none is
    """

    fit: Fit
    data: tuple[Any, ...]
    row_weights: Float[np.ndarray, " N"] | None = None
    labels: Int[np.ndarray, " N"] | None = None

    @functools.cached_property
    def log_likelihood(self) -> float:
        """L = sum_n w_n log p(x_n | params), of p(x_n, t_n | params) where t_n is known."""
        return _total(
            self.fit._rows(log_density.whole, self.fit.params, self.data, labels=self.labels), self.row_weights
        )

    @functools.cached_property
    def log_mode(self) -> float:
        """sum_n w_n log max_k p(t_n = k | x_n, params): whatever the family of the fit, the program's posterior."""
        gaps = self.fit._rows(_gap_of_mode, self.fit.variational, self.data, labels=self.labels)
        return -_total(gaps, self.row_weights)

    @property
    def num_parameters(self) -> int:
        """P, the number of free parameters."""
        assert self.fit.plan is not None
        return num_parameters(self.fit.plan)

    @property
    def total_weight(self) -> float:
        """N, the number of rows, or the sum of their weights."""
        return self.fit.total_weight


class Criterion(abc.ABC):
    """A number of every fit, by which programs are compared; a subclass of your own goes to ``select(criterion=...)``.

    Attributes
    ----------
    name : the attribute of a ``Candidate`` that has its value
    label : its name in tables and figures
    lower_is_better : which end of it is the better
    counts_parameters : whether it is of points alone, since it counts the free parameters
    needs_rows : whether its value takes a pass over the data
    only_if_chosen : whether it is computed only where it is the criterion
    """

    name: ClassVar[str]
    label: ClassVar[str]
    lower_is_better: ClassVar[bool] = True
    counts_parameters: ClassVar[bool] = True
    needs_rows: ClassVar[bool] = True
    only_if_chosen: ClassVar[bool] = False

    @abc.abstractmethod
    def value(self, measures: Measures) -> float:
        """The criterion of a fit, nats, total over the rows."""

    def refusal(self, plan: Plan, options: FitOptions) -> InputError | None:
        """Why it means nothing for a fit under this plan, which then has NaN; None where it means something."""
        if not (self.counts_parameters and plan.mean_field.is_bayesian):
            return None
        return InputError(
            f"criterion='{self.name}' for full posteriors of {', '.join(map(repr, plan.mean_field.full))}",
            "points, of which it counts the free parameters",
            "use criterion='elbo', which is below log p(X), or points (families=probem.EM)",
        )

    def check(self, plans: Sequence[Plan], options: FitOptions) -> None:
        """Refuse what it does not compare, before anything is fitted.

        Raises
        ------
        InputError
            For a plan under which it means nothing, or plans between which it does not.
        """
        for plan in plans:
            if (error := self.refusal(plan, options)) is not None:
                raise error


class BIC(Criterion):
    """-2 L + P log N. Source: Schwarz (1978), Estimating the dimension of a model."""

    name, label = "bic", "BIC"

    def value(self, measures: Measures) -> float:
        return -2 * measures.log_likelihood + measures.num_parameters * math.log(measures.total_weight)


class AIC(Criterion):
    """-2 L + 2 P. Source: Akaike (1974)."""

    name, label = "aic", "AIC"

    def value(self, measures: Measures) -> float:
        return -2 * measures.log_likelihood + 2 * measures.num_parameters


class ICL(BIC):
    """BIC - 2 sum_n w_n log max_k p(t_n = k | x_n, theta): with every row assigned to its mode, not with the entropy of
    the posterior; it prefers components that are apart.

    Source: Biernacki, Celeux & Govaert (2000), Assessing a mixture model for clustering with the integrated completed
    likelihood, section 2 and eq. 8.
    """

    name, label = "icl", "ICL"

    def value(self, measures: Measures) -> float:
        return super().value(measures) - 2 * measures.log_mode


class ELBO(Criterion):
    """F, the bound on log p(X), of full posteriors. Source: Beal (2003), section 2.4.

    Between fits with points on sites of different shapes F decides nothing, and for maximum likelihood it grows with
    every component.
    """

    name, label, lower_is_better, counts_parameters, needs_rows = "elbo", "F", False, False, False

    def value(self, measures: Measures) -> float:
        return measures.fit.elbo

    def check(self, plans: Sequence[Plan], options: FitOptions) -> None:
        super().check(plans, options)
        points = [{site.name: (site.shape, site.has_prior) for site in plan.point_sites} for plan in plans]
        for each in points:
            differing = [name for name in {**points[0], **each} if points[0].get(name) != each.get(name)]
            if differing:
                sites = [some.get(differing[0]) for some in (points[0], each)]
                with_prior = any(site is not None and site[1] for site in sites)
                shapes = " and ".join("none" if site is None else str(site[0]) for site in sites)
                reason = (
                    "where F holds densities in different units" if with_prior else "where F grows with every parameter"
                )
                raise InputError(
                    f"criterion='{self.name}' for {'points' if with_prior else 'maximum likelihood'} on"
                    f" '{differing[0]}' of different shapes ({shapes}), {reason}",
                    "points on the same sites in every program, or none",
                    "use full posteriors (families=probem.VARIATIONAL_BAYES), or criterion='bic', 'aic' or 'icl'",
                )


class LogEvidence(ELBO):
    """F + log K!, an estimate of log p(X), and no bound. Source: Bishop (2006), Pattern Recognition and Machine
    Learning, section 10.2.4.

    The posterior of K exchangeable components has K! modes, one for every numbering of them, and q sits in one: where
    the modes are apart, F is too low by log K!, which grows with K, so that F alone prefers too few. Where components
    coincide (or are empty) modes do too, and it is too much. It is defined for full posteriors under which every
    numbering is as probable, without ``labels`` and ``fixed``.
    """

    name, label, only_if_chosen = "log_evidence", "F + log K!", True

    def value(self, measures: Measures) -> float:
        assert measures.fit.plan is not None
        return measures.fit.elbo + log_relabellings(measures.fit.plan.program)

    def refusal(self, plan: Plan, options: FitOptions) -> InputError | None:
        if points := plan.point_sites:
            return InputError(
                f"criterion='log_evidence' for a point on '{points[0].name}'",
                "full posteriors of all parameters, of which F bounds log p(X)",
                "use families=probem.VARIATIONAL_BAYES, or criterion='bic', 'aic' or 'icl'",
            )
        for name in ("labels", "fixed"):
            if getattr(options, name) is not None:
                return InputError(
                    f"criterion='log_evidence' beside {name}=",
                    "components of which none is known, so that every numbering of them is as probable",
                    f"leave out {name}=, or use criterion='elbo'",
                )
        try:
            log_relabellings(plan.program)
        except InputError as error:
            return error
        return None


#: What ``select`` chooses by, and computes of every fit, by name.
CRITERIA: Mapping[str, Criterion] = {each.name: each for each in (BIC(), AIC(), ICL(), ELBO(), LogEvidence())}


#: What a ``Candidate`` and its table have beside criteria, and the labels of such columns.
_TAKEN_NAMES = {
    "settings",
    "num_parameters",
    "log_likelihood",
    "criteria",
    "result",
    "fit",
    "message",
    "ended_well",
    "best",
}
_TAKEN_LABELS = {"log p(X)"}


def criterion_of(criterion: Any) -> Criterion:
    """The criterion of a name, or one of the user's own.

    Raises
    ------
    InputError
        For what is neither, and for a name or label that stands for something else in the table.
    """
    if isinstance(criterion, Criterion):
        _check_words(criterion)
        return criterion
    if isinstance(criterion, type) and issubclass(criterion, Criterion):
        name = criterion.__name__
        raise InputError(f"criterion={name}, which is a class", "an instance of it", f"write criterion={name}()")
    if not isinstance(criterion, str) or criterion not in CRITERIA:
        names = ", ".join(f"'{name}'" for name in CRITERIA)
        raise InputError(f"criterion={criterion!r}", f"one of {names}", nearest(str(criterion), CRITERIA))
    return CRITERIA[criterion]


def _check_words(criterion: Criterion) -> None:
    """Refuse a name or a label that is none, or that is that of something else."""
    kind = type(criterion).__name__
    for attribute in ("name", "label"):
        word = getattr(criterion, attribute, None)
        if not isinstance(word, str) or not word:
            what = f"without a {attribute}" if word is None else f"with {attribute}={word!r}"
            raise InputError(f"a criterion {kind} {what}", "text", f"write {attribute} = '...' in its class")
    if criterion.name in _TAKEN_NAMES or criterion.name.startswith("_"):
        raise InputError(
            f"a criterion {kind} with name='{criterion.name}', which a candidate has for something else",
            "a name of its own",
            "give it another name",
        )
    labels = {each.label for name, each in CRITERIA.items() if name != criterion.name}
    if criterion.label in labels | _TAKEN_LABELS:
        raise InputError(
            f"a criterion {kind} with label='{criterion.label}', which another column of the table has",
            "a label of its own",
            "give it another label",
        )


def value_of(criterion: Criterion, measures: Measures) -> float:
    """The criterion of a fit, nats, total over the rows.

    Raises
    ------
    InputError
        If it raises, or is not one number.
    """
    try:
        value = criterion.value(measures)
        number = np.asarray(value)
    except Exception as error:
        raise InputError(
            f"criterion='{criterion.name}', whose value raises {type(error).__name__} ({' '.join(str(error).split())})",
            "one number (nats)",
            f"mend {type(criterion).__name__}.value",
        ) from error
    if number.shape or number.dtype.kind not in "iuf":
        kind = f"an array of shape {number.shape}" if number.shape else f"{type(value).__name__}"
        raise InputError(
            f"criterion='{criterion.name}', whose value is {'None' if value is None else kind}",
            "one number (nats)",
            f"return a float from {type(criterion).__name__}.value",
        )
    return float(number)


def _total(rows: Float[np.ndarray | Array, " N"], row_weights: Float[np.ndarray, " N"] | None) -> float:
    """sum_n w_n rows_n in float64; a row that does not count may be anything."""
    values = np.asarray(rows, float)
    if row_weights is None:
        return float(values.sum())
    return float(row_weights[row_weights > 0] @ values[row_weights > 0])


@by_plan
def _gap_of_mode(plan: Plan, params: Params, totals: DataTotals, block: Block) -> Float[Array, " n"]:
    """-log max_k p(t_n = k | x_n) = KL(point mass at the mode || posterior), nats."""
    table = evaluate_rows(plan, block, At(params, natural_parameters(plan, params, totals)), totals).table
    return row_gap(table, Delta().project(table))
