"""Whether a location is a linear predictor, proved on random parameters and random rows.

A location that differs from row to row is run, with its derivatives in every entry of every parameter, at several
random values of all parameters, small and large. It is affine with slopes that data alone decide where in all of them
the derivatives are the same, and so is what is left of the location without them. An entry that no row of the proof
shows may stand beside data that it does not hold (an index beyond those tried): then nothing is claimed. Rows are of
several sizes too, so that a location which is bent far out is seen to be.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpyro.distributions import constraints

from probem.form.layout import located
from probem.form.predictor import LinearPredictor
from probem.form.sites import ExponentialSite
from probem.jit.compilation import concrete
from probem.program.program import Program
from probem.program.sites import Params

# Two numbers in float64 that are the same, but for how they were computed.
_SAME = 1e-9
# Random parameters, and by how much those without a constraint are larger than random ones.
_LARGER = (1.0, 1.0, 1.0, 30.0, 1e3, 1e6)
# Sizes of random rows, how many of each, and how many have to be usable: a program may take logarithms.
_ROW_SIZES, _ROWS_EACH, _FEWEST_ROWS = (1.0, 1.0, 30.0, 1e3, 1e6), 8, 10
# Whole numbers are below these, by as many rows each; and all below the other stand in some row.
_WHOLE_SIZES, _SMALL = (2, 16, 16, 128, 10**5), 16
# The most derivatives that are formed, and the most covariates: all products of two are statistics.
_MOST_DERIVATIVES, _MOST_COVARIATES = 2**24, 256


def find_predictor(program: Program, site: str, copies: int) -> tuple[LinearPredictor, bool] | None:
    """How the location of a site follows from data and parameters if it is a linear predictor, else None; and whether
    it has an intercept.
    """
    shapes = {other.name: other.shape for other in program.globals}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    rows = len(_ROW_SIZES) * _ROWS_EACH
    if not 0 < sum(sizes.values()) * program.num_components * copies * rows <= _MOST_DERIVATIVES:
        return None
    with jax.enable_x64(True), jax.debug_nans(False):
        draws = [_draw(program, seed, larger) for seed, larger in enumerate(_LARGER)]
        data = _random_rows(program)
        try:
            runs = [_run(program, draw, data, site, copies) for draw in draws]
        except (TypeError, ValueError, NotImplementedError):
            return None  # forward mode refuses a program with jax.custom_vjp, or a callback
        slopes = np.stack([run.slopes for run in runs])
        owners = np.repeat(np.arange(len(sizes)), list(sizes.values()))
        linear = [name for number, name in enumerate(sizes) if (slopes[..., owners == number] != 0).any()]
        draws.append({**draws[0], **{name: np.zeros_like(draws[0][name]) for name in linear}})
        runs.append(_run(program, draws[-1], data, site, copies))
    kept = _usable(runs)
    if kept is None or not linear or not _is_affine(kept, [_flat(program, draw) for draw in draws]):
        return None
    offset, slopes = kept[-1].location, kept[-1].slopes[..., np.isin(owners, [list(sizes).index(n) for n in linear])]
    if not _same(offset, offset[:1]).all() or not (slopes != 0).any((0, 1, 2)).all():
        return None
    return _predictor(slopes, {name: shapes[name] for name in linear}, draws[0])


def departs(program: Program, term: ExponentialSite, params: Params, data: tuple[Any, ...] | None = None) -> bool:
    """Whether a location is, at these parameters, something else than its linear predictor, in random rows and in some
    of the ``data``: a program may clip a value far from those of the proof.
    """
    assert term.predictor is not None
    random = np.random.default_rng(0)
    there = {name: np.asarray(value, np.float64) for name, value in params.items()}
    # A coefficient of zero hides its covariate.
    beside = {
        name: value + (1.0 + np.abs(value)) * random.normal(size=value.shape) if name in term.predictor.sites else value
        for name, value in there.items()
    }
    with jax.enable_x64(True), jax.debug_nans(False):
        rows = [_random_rows(program), *([] if data is None else [_some_rows(data)])]
        return any(_is_apart(program, term, values, some) for values in (there, beside) for some in rows)


def _is_apart(program: Program, term: ExponentialSite, params: Params, rows: tuple[Any, ...]) -> bool:
    location, said, size = _beside_predictor(
        program, params, rows, site=term.site, copies=term.copies, predictor=term.predictor
    )
    finite = np.isfinite(location) & np.isfinite(said)
    return not _same(location[finite], said[finite], size[finite]).all()


@concrete
def _beside_predictor(
    program: Program, params: Params, data: tuple[Any, ...], *, site: str, copies: int, predictor: LinearPredictor
) -> tuple[Float[Array, "K n C"], Float[Array, "K n C"], Float[Array, "K n C"]]:
    """A location, what its predictor makes of it, and the size of what is summed up there."""
    sites = program.enumerated_trace(params, data)
    location = located(program, sites[site], copies, program.enumeration_shape)
    events = predictor.events(program, site, jnp.zeros(location.shape[1:]), data)
    offset, covariates = -events[..., 0], events[..., 1:]
    coefficients = predictor.coefficients(sites)
    slopes, intercepts = jnp.split(coefficients, [covariates.shape[-1]], axis=-1)

    def summed(offset: Float[Array, "n C"], covariates: Float[Array, "n C P"], *parts: Array) -> Float[Array, "K n C"]:
        return offset + jnp.einsum("ncp,kcp->knc", covariates, parts[0]) + parts[1].sum(-1)[:, None]

    said = summed(offset, covariates, slopes, intercepts)
    return location, said, summed(*(jnp.abs(part) for part in (offset, covariates, slopes, intercepts)))


def _some_rows(data: tuple[Any, ...]) -> tuple[Any, ...]:
    """As many rows of the data as there are random ones, in float64: some from everywhere, and those farthest out."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(data)]
    num_rows, count = len(leaves[0]), len(_ROW_SIZES) * _ROWS_EACH
    distance = np.zeros(num_rows)
    for leaf in leaves:
        columns = np.asarray(leaf, np.float64).reshape(num_rows, -1)
        spread = columns.std(0)
        away = np.abs(columns - columns.mean(0)) / np.where(spread > 0, spread, 1.0)
        distance = np.maximum(distance, away.max(1, initial=0.0))
    farthest = np.argsort(-distance)[: count // 2]
    index = np.resize(np.append(farthest, np.linspace(0, num_rows - 1, count - len(farthest)).astype(int)), count)

    def taken(leaf: Any) -> np.ndarray:
        rows = np.asarray(leaf)[index]
        return rows.astype(np.float64) if np.issubdtype(rows.dtype, np.floating) else rows

    return jax.tree.map(taken, data)


def _flat(program: Program, params: Params) -> Float[np.ndarray, " E"]:
    return np.concatenate([np.ravel(params[site.name]) for site in program.globals])


class _Run(NamedTuple):
    """A location, and its derivatives in every entry of every parameter."""

    location: Float[np.ndarray, "K n C"]
    slopes: Float[np.ndarray, "K n C E"]

    @property
    def is_finite(self) -> Bool[np.ndarray, " n"]:
        """Which rows are numbers."""
        return np.asarray(np.isfinite(self.location).all((0, 2)) & np.isfinite(self.slopes).all((0, 2, 3)))


def _usable(runs: list[_Run]) -> list[_Run] | None:
    """The rows that are numbers in all runs; None where they are few."""
    usable = np.all([run.is_finite for run in runs], axis=0)
    if usable.sum() < _FEWEST_ROWS:
        return None
    return [_Run(run.location[:, usable], run.slopes[:, usable]) for run in runs]


def _run(program: Program, params: Params, data: tuple[Any, ...], site: str, copies: int) -> _Run:
    return _Run(*_linearised(program, params, data, site=site, copies=copies))


@concrete
def _linearised(
    program: Program, params: Params, data: tuple[Any, ...], *, site: str, copies: int
) -> tuple[Float[Array, "K n C"], Float[Array, "K n C E"]]:
    names = [other.name for other in program.globals]
    shapes = [jnp.shape(params[name]) for name in names]
    flat = jnp.concatenate([jnp.ravel(params[name]) for name in names])
    cuts = np.cumsum([math.prod(shape) for shape in shapes])[:-1]

    def location(flat: Float[Array, " E"]) -> Float[Array, "K n C"]:
        parts = zip(names, shapes, jnp.split(flat, cuts), strict=True)
        sites = program.enumerated_trace({name: part.reshape(shape) for name, shape, part in parts}, data)
        return located(program, sites[site], copies, program.enumeration_shape)

    value, slopes = jax.vmap(lambda step: jax.jvp(location, (flat,), (step,)), out_axes=(None, -1))(jnp.eye(len(flat)))
    return value, slopes


def _draw(program: Program, seed: int, larger: float) -> Params:
    """Random parameters; real ones are ``larger``."""
    params = program.random_params(61 + seed)
    free = [site.name for site in program.globals if _is_real(site.constraint)]
    return {name: np.asarray(value * larger if name in free else value) for name, value in params.items()}


def _is_real(constraint: Any) -> bool:
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return constraint is constraints.real


def _random_rows(program: Program) -> tuple[Any, ...]:
    """Rows of several sizes, in float64: fractions, numbers of both signs, positive ones."""
    random = np.random.default_rng(0)
    num_rows = len(_ROW_SIZES) * _ROWS_EACH

    def leaf_of(leaf: Any) -> np.ndarray:
        shape = (num_rows, *leaf.shape[1:])
        if leaf.dtype == bool:
            return random.random(shape) < 0.5
        if not np.issubdtype(leaf.dtype, np.floating):
            values = random.integers(0, _WHOLE_SIZES[-1], shape)
            for number, most in enumerate(_WHOLE_SIZES):
                values[number * _ROWS_EACH : (number + 1) * _ROWS_EACH] %= most
            # Every one of the small ones, in an order of its own for each entry.
            small = slice(_ROWS_EACH, _ROWS_EACH + _SMALL)
            values[small] = random.permuted(
                np.broadcast_to(np.arange(_SMALL), (*shape[1:], _SMALL)), axis=-1
            ).T.reshape(_SMALL, *shape[1:])
            return np.minimum(values, np.iinfo(leaf.dtype).max).astype(leaf.dtype)
        size = np.repeat(_ROW_SIZES, _ROWS_EACH).reshape(-1, *(1,) * (len(shape) - 1))
        values = size * random.normal(size=shape)
        values[:_ROWS_EACH] = random.uniform(0.05, 0.95, size=(_ROWS_EACH, *shape[1:]))
        # Half of the large ones are positive.
        values[2 * _ROWS_EACH :: 2] = np.abs(values[2 * _ROWS_EACH :: 2])
        return values

    return jax.tree.map(leaf_of, program.spec.abstract(num_rows))


def _same(
    first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."], size: Any = 0.0
) -> Bool[np.ndarray, "..."]:
    """Which numbers are the same, beside others of a ``size`` that cancelled in them."""
    return np.abs(first - second) <= _SAME * np.maximum(np.maximum(np.abs(first), np.abs(second)), size)


def _is_affine(runs: list[_Run], flat: list[Float[np.ndarray, " E"]]) -> bool:
    """Whether all runs have the same slopes and, without what these explain, the same location."""
    offset, slopes = runs[-1]
    for run, values in zip(runs, flat, strict=True):
        explained, size = run.slopes @ values, np.abs(run.slopes) @ np.abs(values)
        if not (_same(run.slopes, slopes).all() and _same(run.location, offset + explained, size).all()):
            return False
    return True


def _predictor(
    slopes: Float[np.ndarray, "K n C E"], shapes: dict[str, tuple[int, ...]], point: Params
) -> tuple[LinearPredictor, bool] | None:
    """Covariates are the columns of derivatives that are not the same; a column of ones is that of the intercept."""
    count, _, copies, _ = slopes.shape
    found: list[_Columns] = [_Columns([], [], []) for _ in range(copies)]
    for component in range(count):
        for copy in range(copies):
            for entry in np.flatnonzero((slopes[component, :, copy] != 0).any(0)).tolist():
                column = slopes[component, :, copy, entry]
                number = (
                    -1 if (np.abs(column - 1.0) <= 1e-12).all() else found[copy].number_of(column, component, entry)
                )
                found[copy].uses.append((component, number, entry))
    num_covariates = max(len(columns.values) for columns in found)
    has_intercept = any(number < 0 for columns in found for _, number, _ in columns.uses)
    if num_covariates > _MOST_COVARIATES:
        return None
    entries = _entries(found, (count, copies, num_covariates + has_intercept))
    components, directions, place = _directions(found, slopes, num_covariates)
    predictor = LinearPredictor(
        tuple(shapes), tuple(shapes.values()), entries, components, directions, place, {**point}
    )
    return predictor, has_intercept


class _Columns(NamedTuple):
    """The covariates of one copy: their ``values`` in the rows, a component and an entry of which each is the
    derivative; and the ``uses`` of them, by component, number of the column (-1: the intercept) and entry.
    """

    values: list[Float[np.ndarray, " n"]]
    sources: list[tuple[int, int]]
    uses: list[tuple[int, int, int]]

    def number_of(self, column: Float[np.ndarray, " n"], component: int, entry: int) -> int:
        """The number of this column, which is new if no other is the same."""
        if self.values:
            same = _same(np.stack(self.values), column[None]).all(1)
            if same.any():
                return int(np.argmax(same))
        self.values.append(column)
        self.sources.append((component, entry))
        return len(self.values) - 1


def _entries(found: list[_Columns], shape: tuple[int, int, int]) -> Int[np.ndarray, "K C Q M"]:
    """The entries that each coefficient is the sum of."""
    lists: dict[tuple[int, int, int], list[int]] = {}
    for copy, columns in enumerate(found):
        for component, number, entry in columns.uses:
            place = (component, copy, shape[2] - 1 if number < 0 else number)
            lists.setdefault(place, []).append(entry)
    entries = np.full((*shape, max(len(each) for each in lists.values())), -1)
    for place, each in lists.items():
        entries[place][: len(each)] = each
    return entries


def _directions(
    found: list[_Columns], slopes: Float[np.ndarray, "K n C E"], num_covariates: int
) -> tuple[tuple[int, ...], Int[np.ndarray, "G m"], Int[np.ndarray, "C P"]]:
    """Directions along which derivatives are covariates, one for all copies where that may be, and which is which."""
    components: list[int] = []
    directions: list[list[int]] = []
    place = np.full((len(found), num_covariates), -1)
    for number in range(num_covariates):
        sources = {copy: columns.sources[number] for copy, columns in enumerate(found) if number < len(columns.values)}
        component = min(component for component, _ in sources.values())
        together = sorted({entry for _, entry in sources.values()})
        alike = all(
            _same(slopes[component, :, copy][:, together].sum(1), found[copy].values[number]).all() for copy in sources
        )
        groups = (
            [(component, together, list(sources))]
            if alike
            else [(component, [entry], [copy]) for copy, (component, entry) in sources.items()]
        )
        for of_group, entries, copies in groups:
            place[copies, number] = len(directions)
            components.append(of_group)
            directions.append(entries)
    width = max((len(each) for each in directions), default=1)
    packed = np.full((len(directions), width), -1)
    for row, each in enumerate(directions):
        packed[row, : len(each)] = each
    return tuple(components), packed, place
