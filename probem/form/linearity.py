"""Whether a location is a linear predictor: read off the code of the program (``affine.py``)."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from probem.form.affine import ONE, ZERO, NotAffine, affine_in_parameters
from probem.form.layout import located
from probem.form.predictor import LinearPredictor
from probem.program.program import Program

# The most covariates: all products of two are statistics.
_MOST_COVARIATES = 256
# What is seen of a trace of one row, under every component and in every copy.
_Look = Callable[[Mapping[str, dict[str, Any]]], Shaped[Array, "K 1 C"]]


def find_predictor(
    program: Program, site: str, copies: int, argument: str = "loc"
) -> tuple[LinearPredictor, bool] | None:
    """How an argument of a site follows from data and parameters if it is a linear predictor, else None; and whether
    it has an intercept.
    """

    def look(sites: Mapping[str, dict[str, Any]]) -> Float[Array, "K 1 C"]:
        return located(program, sites[site], copies, program.enumeration_shape, argument)

    forms = _forms(program, look)
    if forms is None:
        return None

    sizes = {each.name: math.prod(each.shape) for each in program.globals}
    owners = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    used = np.isin(np.arange(len(owners)), sorted({entry for form in forms.flat for entry in form.slopes}))
    linear = [name for number, name in enumerate(sizes) if used[owners == number].any()]
    of_linear = np.isin(owners, [list(sizes).index(name) for name in linear])
    if not linear or not used[of_linear].all():
        return None
    if any(form.offset != first.offset for row in forms for form, first in zip(row, forms[0], strict=True)):
        return None
    place = np.cumsum(of_linear) - 1
    renumbered = [[{int(place[e]): slope for e, slope in form.slopes.items()} for form in row] for row in forms]
    shapes = {each.name: each.shape for each in program.globals if each.name in linear}
    starts_at_zero = all(form.offset == ZERO for form in forms.flat)
    return _predictor(renumbered, shapes, program.random_params(61), argument, starts_at_zero)


def is_known(program: Program, look: _Look) -> bool:
    """Whether what ``look`` sees ``[K, 1, C]`` follows from the data, and is the same under all components."""
    forms = _forms(program, look)
    return forms is not None and all(
        form == first and not form.slopes for row in forms for form, first in zip(row, forms[0], strict=True)
    )


def is_one(program: Program, look: _Look) -> bool:
    """Whether what ``look`` sees is one, or true, in every row."""
    forms = _forms(program, look)
    return forms is not None and all(form.offset == ONE and not form.slopes for form in forms.flat)


def _forms(program: Program, look: _Look) -> np.ndarray | None:
    """What is seen under every component and in every copy, as affine in the parameters; None where it is not."""

    def seen(params: Mapping[str, Array], data: tuple[Any, ...]) -> Shaped[Array, "K 1 C"]:
        return look(program.enumerated_trace(params, data))

    dtype = jnp.result_type(float)
    params = {each.name: jax.ShapeDtypeStruct(each.shape, dtype) for each in program.globals}
    try:
        # Rows do not depend on each other: of one all can be said.
        return affine_in_parameters(seen, params, program.spec.abstract(1))[:, 0]
    except NotAffine:
        return None


# The slope of a copy under a component in each entry, by the number of its expression.
_Slopes = list[list[dict[int, int]]]


def _predictor(
    slopes: _Slopes,
    shapes: dict[str, tuple[int, ...]],
    point: Mapping[str, Float[np.ndarray, "..."]],
    argument: str,
    starts_at_zero: bool,
) -> tuple[LinearPredictor, bool] | None:
    """Covariates are the slopes that are not the same expression; 1 is that of the intercept."""
    columns = [_Columns([], [], []) for _ in slopes[0]]
    for component, row in enumerate(slopes):
        for copy, form in enumerate(row):
            for entry, slope in sorted(form.items()):
                number = -1 if slope == ONE else columns[copy].number_of(slope, component, entry)
                columns[copy].uses.append((component, number, entry))
    num_covariates = max(len(each.expressions) for each in columns)
    has_intercept = any(number < 0 for each in columns for _, number, _ in each.uses)
    if num_covariates > _MOST_COVARIATES:
        return None
    entries = _entries(columns, (len(slopes), len(columns), num_covariates + has_intercept))
    directed = _directions(columns, slopes, num_covariates)
    given = {**point}, argument, starts_at_zero
    predictor = LinearPredictor(tuple(shapes), tuple(shapes.values()), entries, *directed, *given)
    return predictor, has_intercept


class _Columns(NamedTuple):
    """The covariates of one copy: the ``expressions`` that they are, a component and an entry of which each is the
    slope; and the ``uses`` of them, by component, number of the column (-1: the intercept) and entry.
    """

    expressions: list[int]
    sources: list[tuple[int, int]]
    uses: list[tuple[int, int, int]]

    def number_of(self, expression: int, component: int, entry: int) -> int:
        """The number of this column, which is new if no other is the same."""
        if expression not in self.expressions:
            self.expressions.append(expression)
            self.sources.append((component, entry))
        return self.expressions.index(expression)


def _entries(columns: list[_Columns], shape: tuple[int, int, int]) -> Int[np.ndarray, "K C Q M"]:
    """The entries that each coefficient is the sum of."""
    lists: dict[tuple[int, int, int], list[int]] = {}
    for copy, each in enumerate(columns):
        for component, number, entry in each.uses:
            place = (component, copy, shape[2] - 1 if number < 0 else number)
            lists.setdefault(place, []).append(entry)
    entries = np.full((*shape, max(len(each) for each in lists.values())), -1)
    for place, each in lists.items():
        entries[place][: len(each)] = each
    return entries


def _directions(
    columns: list[_Columns], slopes: _Slopes, num_covariates: int
) -> tuple[tuple[int, ...], Int[np.ndarray, "G m"], Int[np.ndarray, "C P"]]:
    """Directions along which derivatives are covariates, one for all copies where that may be, and which is which."""
    components: list[int] = []
    directions: list[list[int]] = []
    place = np.full((len(columns), num_covariates), -1)
    for number in range(num_covariates):
        sources = {copy: each.sources[number] for copy, each in enumerate(columns) if number < len(each.expressions)}
        component = min(component for component, _ in sources.values())
        together = sorted({entry for _, entry in sources.values()})
        alike = all(
            [slope for entry, slope in slopes[component][copy].items() if entry in together]
            == [columns[copy].expressions[number]]
            for copy in sources
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
