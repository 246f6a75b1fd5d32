"""G16: the fourteen models of the package mclust, beside what mclust itself says of them.

``experiments/data/mclust.csv`` has its numbers. What a structure is, is read off the fitted covariances, and the log
density is SciPy's: neither knows the programs.
"""

import csv
import dataclasses
import functools
import importlib.resources
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import probem
from probem.checking.residuals import SAME, excess
from probem.experiments.claims.claim import NO_DATASET, Check, Claim, Dataset
from probem.experiments.claims.datasets import load
from probem.experiments.claims.drawing import FAINT
from probem.plotting.fit import SERIES
from probem.selection.criteria import BIC, Measures, num_parameters

from .volume_shape_orientation import NAMES, contrasts, program, rotation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Relative; mclust stops where an iteration raises the log likelihood by less than 1e-5 of it, and so lower.
BELOW, STOPPED = 1e-6, 2e-5
#: One structure with a closed form that is fitted by default, and one without.
FEW = ("EVI", "VVV")
#: K of the two data sets for which mclust's labels are there; in how many models F ends far above mclust.
LABELLED, FAR_ABOVE = {"old_faithful": 2, "iris": 3}, {"old_faithful": 1, "iris": 4}
#: With a closed form: for these all K are fitted, from so many starts where there are no labels.
CLOSED, STARTS, EVERY = ("EII", "VII", "EEI", "VVI", "EEE", "VVV"), 20, (1, 2, 3, 4, 5)


@dataclasses.dataclass(frozen=True)
class Reported:
    """What mclust 6.0.0 reports, NaN where it says nothing: BIC in its sign, log likelihood (nats), free parameters.

    ``tight`` is the log likelihood at its strictest tolerance.
    """

    bic: float
    log_likelihood: float
    parameters: float
    tight: float


@functools.cache
def reported() -> dict[tuple[str, int, str], Reported]:
    """By data, number of components and model."""
    table = {}
    for data, components, model, *values in _lines("mclust.csv")[1:]:
        table[data, int(components), model] = Reported(*(float(value or "nan") for value in values))
    return table


@functools.cache
def labels(data: str) -> dict[tuple[str, int], Int[np.ndarray, " N"]]:
    """mclust's classifications of a data set by model and K, from 0."""
    (header, *lines) = _lines(f"mclust_{data}_labels.csv")
    names = [(model, int(components)) for model, components in map(str.split, header)]
    return dict(zip(names, np.array(lines, int).T - 1, strict=True))


def _lines(name: str) -> list[list[str]]:
    folder = importlib.resources.files("probem.experiments")
    with folder.joinpath("data", name).open(encoding="utf-8") as file:
        return list(csv.reader(file))


def starts(data: str, num_components: int, model: str) -> list[Int[np.ndarray, " N"]]:
    """mclust's labels for this model, or all that it has for this K: what it starts from itself is not reported."""
    given = labels(data)
    if num_components == 1:
        return [np.zeros_like(given["EEE", LABELLED[data]])]
    if (model, num_components) in given:
        return [given[model, num_components]]
    return [values for (_, components), values in given.items() if components == num_components]


@dataclasses.dataclass(frozen=True)
class Compared:
    """A fit, with its covariances ``[K, D, D]``, its log likelihood by SciPy, and what mclust reports."""

    name: str
    model: str
    fit: probem.Fit
    covariances: Float[np.ndarray, "K D D"]
    log_likelihood: float
    bic: float
    reported: Reported

    @property
    def parameters(self) -> int:
        assert self.fit.plan is not None
        return num_parameters(self.fit.plan)

    @property
    def reference(self) -> float:
        """mclust's log likelihood, nats: of its own table, or from its BIC = 2 L - P log N."""
        if not math.isnan(self.reported.log_likelihood):
            return self.reported.log_likelihood
        return (self.reported.bic + self.parameters * math.log(self.fit.total_weight)) / 2

    @property
    def above(self) -> float:
        """By how much F is above mclust's log likelihood, relative."""
        return (self.fit.elbo - self.reference) / abs(self.reference)


def covariances_of(model: str, params: dict[str, np.ndarray], num_components: int, dim: int) -> np.ndarray:
    """[K, D, D], from the parameters of a program."""
    if "covariance" in params:
        return np.broadcast_to(params["covariance"], (num_components, dim, dim))
    if "scale" in params:
        scale = params["scale"]
        scale = scale[:, None] if model == "VII" else scale
        return np.broadcast_to(scale, (num_components, dim))[..., None] ** 2 * np.eye(dim)
    volume = np.broadcast_to(params["volume"], num_components)[:, None, None]
    log_shape = np.broadcast_to(params["shape"] @ contrasts(dim).T, (num_components, dim))
    if "below" in params:
        factor = np.exp(log_shape)[:, None] * np.eye(dim)
        factor[(slice(None), *np.tril_indices(dim, -1))] = params["below"]
        return volume * factor @ np.swapaxes(factor, 1, 2)
    axes = np.asarray(rotation(params["angles"], dim)) if "angles" in params else np.eye(dim)
    return volume * (axes * np.exp(log_shape)[:, None]) @ np.swapaxes(axes, -1, -2)


@functools.cache
def compared(data: str, num_components: int, model: str, seed: int = 0) -> Compared:
    """The fit from mclust's labels or, where there are none for this K, from k-means++ starts: of those that are not
    below mclust the one that is least above, and the highest where all are below.
    """
    rows = load(data).rows
    if num_components in (1, LABELLED[data]):
        inits: list[probem.Labels | None] = [probem.Labels(each) for each in starts(data, num_components, model)]
    else:
        inits = [None] * STARTS
    fits = [_fitted(data, num_components, model, init, seed + number) for number, init in enumerate(inits)]
    # A start may lose a component to a single row: what has no maximum is not compared.
    candidates = [
        _compared(data, rows, num_components, model, fit) for fit in fits if fit.result is probem.Result.CONVERGED
    ]
    if not candidates:
        raise ValueError(f"none of {len(fits)} fits of {model} with {num_components} components to {data} converged")
    reached = [each for each in candidates if each.above >= -BELOW]
    if reached:
        return reached[int(np.argmin([each.above for each in reached]))]
    return candidates[int(np.argmax([each.above for each in candidates]))]


def _fitted(data: str, num_components: int, model: str, init: probem.Labels | None, key: int) -> probem.Fit:
    options = {"tolerance": 1e-13, "max_steps": 3000, "throw": False}
    return probem.fit(program(model, num_components), load(data).rows, init=init, key=key, **options)


def _compared(data: str, rows: np.ndarray, num_components: int, model: str, fit: probem.Fit) -> Compared:
    params = {name: np.asarray(value) for name, value in fit.params.items()}
    covariances = covariances_of(model, params, num_components, rows.shape[1])
    densities = [
        np.log(weight) + multivariate_normal.logpdf(rows, loc, covariance)
        for weight, loc, covariance in zip(params["weights"], params["loc"], covariances, strict=True)
    ]
    log_likelihood = float(np.asarray(logsumexp(densities, axis=0)).sum())
    bic = -BIC().value(Measures(fit, (rows,)))
    said = reported()[data, num_components, model]
    return Compared(f"{data}, K = {num_components}", model, fit, covariances, log_likelihood, bic, said)


def departures(model: str, covariances: Float[np.ndarray, "K D D"]) -> list[float]:
    """How far covariances are from volumes, shapes and orientations that are equal (E) or those of the identity (I).

    Where only shapes or orientations are equal, one determines whether the other is: eigenvalues of |C| = 1 are the
    shape, and matrices of equal orientation commute.
    """
    dim = covariances.shape[1]
    volumes = np.linalg.det(covariances) ** (1 / dim)
    unit = covariances / volumes[:, None, None]
    shapes = np.linalg.eigvalsh(unit)
    values = [0.0]
    volume, shape, orientation = model
    if volume == "E":
        values.append(np.ptp(volumes) / volumes.max())
    if shape == "I":
        values.append(np.abs(unit - np.eye(dim)).max())
    if shape == "E" and orientation in "EV":
        values.append(np.ptp(shapes / shapes[0], axis=0).max())
    if orientation == "I":
        values.append(np.abs(unit * (1 - np.eye(dim))).max())
    if shape == "E" and orientation == "I":
        values.append(np.ptp(np.diagonal(unit, axis1=1, axis2=2) / np.diagonal(unit[0]), axis=0).max())
    if orientation == "E":
        pairs = itertools.combinations(unit, 2)
        values.extend(np.abs(a @ b - b @ a).max() / np.abs(a @ b).max() for a, b in pairs)
    return [float(value) for value in values]


def few(seed: int) -> Iterator[Check]:
    """G16 for two models."""
    del seed
    yield from _checks([compared("old_faithful", 2, model) for model in FEW], 0)


def all_models(seed: int) -> Iterator[Check]:
    """G16 for all models where there are labels to start from, and for all K where there is a closed form."""
    for data, num_components in LABELLED.items():
        yield from _checks([compared(data, num_components, model) for model in NAMES], FAR_ABOVE[data])
        for other in EVERY:
            if other != num_components:
                yield from _checks([compared(data, other, model, seed) for model in CLOSED], None)


def _checks(fits: Sequence[Compared], num_off: int | None) -> Iterator[Check]:
    """Of several models on one data set; of how many F may be far above mclust, and None where there is no saying."""
    yield Check(
        "G16",
        NO_DATASET,
        f"{_listed(fits)}: by how much F is below mclust’s log likelihood, relative",
        excess([-each.above for each in fits]),
        BELOW,
        {f"{each.model}: F, and mclust’s": f"{each.fit.elbo:.6f}, {each.reference:.6f}" for each in fits},
    )
    off = [each for each in fits if each.above > STOPPED]
    if num_off is not None:
        yield Check(
            "G16",
            NO_DATASET,
            f"{_listed(fits)}: for how many models F is further above than mclust’s tolerance leaves, beyond {num_off}",
            excess(len(off), num_off),
            0,
            {f"{each.model}: F above mclust (nats)": each.fit.elbo - each.reference for each in off},
        )
    yield Check(
        "G16",
        NO_DATASET,
        f"{_listed(fits)}: F, and log p(X) by SciPy at the same parameters, relative",
        [abs(each.fit.elbo / each.log_likelihood - 1) for each in fits],
        SAME,
    )
    yield Check(
        "G16",
        NO_DATASET,
        f"{_listed(fits)}: what volumes, shapes and orientations lack to be equal where the name says so, relative",
        np.concatenate([departures(each.model, each.covariances) for each in fits]),
        # Eigenvalues of 1e-3 beside 1, and sums of a hundred products on the way to them.
        1e-9,
    )
    # -2 log L + P log N, and mclust's 2 log L - P log N: the number of parameters differs by whole numbers.
    yield Check(
        "G16",
        NO_DATASET,
        f"{_listed(fits)}: BIC, less twice F, and mclust’s less twice its log likelihood (nats)",
        [abs((each.bic - 2 * each.fit.elbo) - (each.reported.bic - 2 * each.reference)) for each in fits],
        # mclust's numbers have nine digits, of thousands.
        1e-4,
        {f"{each.model}: BIC, and mclust’s": f"{each.bic:.4f}, {each.reported.bic:.4f}" for each in fits},
    )
    if counted := [each for each in fits if not math.isnan(each.reported.parameters)]:
        yield Check(
            "G16",
            NO_DATASET,
            f"{_listed(counted)}: number of free parameters, and mclust’s degrees of freedom",
            [abs(each.parameters - each.reported.parameters) for each in counted],
            0,
            {each.model: each.parameters for each in counted},
        )
    if tight := [each for each in fits if not math.isnan(each.reported.tight)]:
        yield Check(
            "G16",
            NO_DATASET,
            f"{_listed(tight)}: F, and mclust’s log likelihood at its strictest tolerance, relative",
            [abs(each.fit.elbo / each.reported.tight - 1) for each in tight],
            SAME,
        )


def _listed(fits: Iterable[Compared]) -> str:
    models = [each.model for each in fits]
    where = next(each.name for each in fits)
    return f"{where}: {', '.join(models) if len(models) < len(NAMES) else 'all 14 models'}"


def ellipses_figure(dataset: Dataset, seed: int) -> "Figure":
    """G16: the covariances of both models on the rows, and how much mclust's BIC of all models is below its best."""
    del dataset, seed
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    ellipses, table = figure.subplots(1, 2)
    rows = load("old_faithful").rows
    ellipses.scatter(*rows.T, s=6, color=FAINT)
    angle = np.linspace(0, 2 * np.pi, 200)
    for model, colour, style in zip(FEW, SERIES, ("-", "--"), strict=False):
        each = compared("old_faithful", 2, model)
        for number, (loc, covariance) in enumerate(zip(each.fit.params["loc"], each.covariances, strict=True)):
            outline = np.asarray(loc)[:, None] + 2 * np.linalg.cholesky(covariance) @ [np.cos(angle), np.sin(angle)]
            ellipses.plot(*outline, color=colour, linestyle=style, label=None if number else model)
    ellipses.set(xlabel="eruption, minutes", ylabel="waiting, minutes", title="two standard deviations, K = 2")
    ellipses.legend(fontsize=8)
    places = np.arange(len(NAMES))
    bic = np.array([reported()["old_faithful", 2, model].bic for model in NAMES])
    table.plot(
        places, bic, color=FAINT, marker="s", markersize=7, markerfacecolor="none", linestyle="none", label="mclust"
    )
    for model, colour, marker in zip(FEW, SERIES, "o^", strict=False):
        here = compared("old_faithful", 2, model).bic
        table.plot(NAMES.index(model), here, color=colour, marker=marker, markersize=4, linestyle="none", label=model)
    table.set_xticks(places, NAMES, rotation=90)
    table.set(ylabel="BIC = 2 log L − P log N", ylim=(-2365, -2310), title="the two spherical models are far below")
    table.legend(fontsize=8)
    return figure


CLAIMS = (
    Claim(
        id="G16",
        together="G16",
        title="mclust’s fourteen models, as NumPyro programs",
        statement=(
            "The R package mclust has code of its own for fourteen kinds of covariances: volume, shape and "
            "orientation of the clusters equal, different, or those of a sphere or of the axes. Here each is a few "
            "lines of NumPyro, and what has no closed form is found numerically. From mclust’s own labels F is never "
            "below its log likelihood by more than a millionth; at its strictest tolerance they agree to ten digits. "
            "Parameters and BIC, in its sign, are counted alike. mclust stops early, at a rise of 1e-5 of the log "
            "likelihood, and so mostly a little lower. In a few models it ends at a lower maximum, or before any: "
            "EVE, EEV, VVE and EVV with three components on iris, where F is 17 to 24 nats above (its EVE is even "
            "below its own EEE, which is a special case of it). That F is a log likelihood is SciPy’s word, and that "
            "a covariance is what its three letters say is read off its eigenvalues. By default two models are "
            "fitted; --full takes all fourteen with the number of components for which there are labels, and the six "
            "with a closed form for one to five: where there are no labels, one of twenty starts reaches mclust’s "
            "likelihood or more."
        ),
        formula=r"\Sigma_k = \lambda_k D_k A_k D_k^\top, \qquad \mathrm{BIC} = 2 \log L - P \log N",
        source="Scrucca et al. 2016; Celeux & Govaert 1995",
        check=None,
        by_itself=few,
        full_by_itself=all_models,
        figure=ellipses_figure,
        figure_dataset="old_faithful",
        figure_caption=(
            r"Left, Old Faithful with the clusters of EVI (equal volumes, different shapes, along the axes) and VVV "
            r"(nothing equal). Right, BIC of twelve of mclust’s models (squares), and ours of these two."
        ),
    ),
)
