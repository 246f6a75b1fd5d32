"""Arguments that data look up among parameters: ``probs[t, previous]``, ``theta[document]``, ``where(x > 0, a, b)``.

An argument that follows from data by such look-ups alone has one value for each of finitely many cells, and a row is in
one of them. That this is so is read off the program (``affine.py``): every index that data decide is an expression of
the data, of which an array says how many values there are.
"""

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jaxtyping import Array, Int

from probem.form.affine import BY_ENTRY, CALLS, INDICES, MOVES, Reader, Symbols
from probem.form.equations import PLACED, bound, gathered_from, needed
from probem.form.expressions import Affine, Entries, NotAffine, filled
from probem.jit.live import live
from probem.program.program import Program

# What is looked up: arguments of a density, from a trace of one row.
Look = Callable[[Program, Mapping[str, dict[str, Any]]], Mapping[str, Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class Lookup:
    """The look-ups in the arguments of a site, of which every copy is in a cell of its own.

    ``slots[i]`` belongs to the i-th look-up: which index of the cell stands in each entry of its own index, or -1 where
    that does not depend on the data. ``sizes`` says how many values each index of the cell has; the cells are all
    combinations, the last index first to change. Index j of the cell of copy c is the entry ``places[c, j]`` of look-up
    ``numbers[c, j]``.
    """

    slots: tuple[Int[np.ndarray, "..."], ...]
    sizes: tuple[int, ...]
    numbers: Int[np.ndarray, "C m"]
    places: Int[np.ndarray, "C m"]

    @property
    def num_cells(self) -> int:
        return math.prod(self.sizes)

    @property
    def is_common(self) -> bool:
        """Whether all copies of a row are in the same cell."""
        return bool((self.numbers == self.numbers[0]).all() and (self.places == self.places[0]).all())

    def arguments(self, look: Look, program: Program, params: Mapping[str, Array]) -> dict[str, Array]:
        """What ``look`` sees in every cell, each with the cells first."""
        data = program.spec.zeros(1)
        traced = _traced(look, program, params, data)

        def at(cell: Int[Array, " m"]) -> Mapping[str, Array]:
            def replaced(number: int, index: Array) -> Array:
                slots = self.slots[number]
                return jnp.where(slots >= 0, cell[np.maximum(slots, 0)].astype(index.dtype), index)

            return traced(params, data, replaced)

        cells = np.indices(self.sizes).reshape(len(self.sizes), -1).T
        return dict(jax.vmap(at)(jnp.asarray(cells)))

    def cells(self, look: Look, program: Program, data: tuple[Any, ...]) -> Int[Array, "n C"]:
        """The cell that every copy of a row is in; what is beyond the last value of an index counts as the last."""
        params = {site.name: jnp.zeros(site.shape) for site in program.globals}

        def of_row(row: tuple[Any, ...]) -> Int[Array, " C"]:
            row = jax.tree.map(lambda leaf: leaf[None], row)
            seen: list[Array] = []

            def noted(number: int, index: Array) -> Array:
                assert number == len(seen)
                seen.append(index.ravel().astype(jnp.int32))
                return index

            _traced(look, program, params, row)(params, row, noted)
            starts = np.cumsum([0, *(slots.size for slots in self.slots)])
            values = jnp.concatenate(seen)[starts[self.numbers] + self.places]
            cell = jnp.zeros(len(values), jnp.int32)
            for number, size in enumerate(self.sizes):
                cell = cell * size + jnp.clip(values[:, number], 0, size - 1)
            return cell

        return live(lambda data: jax.vmap(of_row)(data))(data)


def find_lookup(look: Look, program: Program) -> Lookup | None:
    """The look-ups by which what ``look`` sees follows from data and parameters; None if data decide it otherwise."""
    dtype = jnp.result_type(float)
    params = {each.name: jax.ShapeDtypeStruct(each.shape, dtype) for each in program.globals}
    data = program.spec.abstract(1)
    closed = jax.make_jaxpr(functools.partial(_seen, look, program))(params, data)
    reader = _LookupReader()
    arguments: list[Any] = [reader.untouched(leaf.shape) for leaf in jax.tree.leaves(params)]
    arguments += reader.of_data(data)
    try:
        with jax.ensure_compile_time_eval():
            results = reader.run(closed.jaxpr, closed.consts, arguments)
    except NotAffine:
        return None
    if any(isinstance(result, Symbols) for result in results):
        return None
    return _lookup(reader, [result.reached for result in results if isinstance(result, _FromParameters)])


def _lookup(reader: "_LookupReader", reached: list[np.ndarray]) -> Lookup | None:
    """Which index of its cell every entry of an index is, from the entries ``[K, C, ...]`` that arguments follow from;
    None if copies have not as many cells, or look up the same entry differently.
    """
    copies = max((each.shape[1] for each in reached), default=0)
    slots, sizes = [np.full(shape, -1) for shape in reader.shapes], None
    numbers, places = [], []
    for copy in range(copies):
        bits = functools.reduce(operator.or_, (bit for each in reached for bit in each[:, copy].flat), 0)
        entries = [entry for number, entry in enumerate(reader.noted) if bits >> number & 1]
        expressions = list(dict.fromkeys(entry.key for entry in entries))
        for entry in entries:
            slot = expressions.index(entry.key)
            if slots[entry.lookup].flat[entry.place] not in (-1, slot):
                return None
            slots[entry.lookup].flat[entry.place] = slot
        firsts = [next(entry for entry in entries if entry.key == key) for key in expressions]
        here = tuple(entry.size for entry in firsts)
        if not here or sizes not in (None, here):
            return None
        sizes = here
        numbers.append([entry.lookup for entry in firsts])
        places.append([entry.place for entry in firsts])
    if sizes is None:
        return None
    return Lookup(tuple(slots), sizes, np.array(numbers), np.array(places))


def _seen(look: Look, program: Program, params: Mapping[str, Array], data: tuple[Any, ...]) -> Mapping[str, Array]:
    return look(program, program.enumerated_trace(params, data))


class _Noted(NamedTuple):
    """An entry of the index of a look-up that is an ``expression`` of the data with so many values."""

    lookup: int
    place: int
    expression: int
    size: int

    @property
    def key(self) -> tuple[int, int]:
        """Equal for entries that always have the same value."""
        return self.expression, self.size


class _FromParameters(NamedTuple):
    """An array that depends on the parameters, and on data by look-ups alone: by which entries of their indices, as
    bits, each of its own does.
    """

    reached: np.ndarray


class _LookupReader(Reader):
    """Goes through equations for the look-ups by data, in the order in which ``_run`` meets them."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[_Noted] = []
        #: Of the index of every look-up.
        self.shapes: list[tuple[int, ...]] = []

    def untouched(self, shape: tuple[int, ...]) -> _FromParameters:
        """An array that depends on no data."""
        self.count(math.prod(shape))
        return _FromParameters(filled(shape, itertools.repeat(0, math.prod(shape))))

    def _apply(self, equation: Any, operands: list[Any]) -> list[Any]:
        if not any(isinstance(operand, _FromParameters) for operand in operands):
            return super()._apply(equation, operands)
        name, params = equation.primitive.name, equation.params
        by_data = [number for number, operand in enumerate(operands) if isinstance(operand, Symbols)]
        inner = params[CALLS[name]] if name in CALLS else None
        if name == "custom_jvp_call" and not by_data:
            inner = params["call_jaxpr"]
        if inner is not None:
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
        if by_data and by_data != [_INDEX.get(name)]:
            raise NotAffine
        shapes = [tuple(var.aval.shape) for var in equation.outvars]
        self.count(sum(math.prod(shape) for shape in shapes))
        chosen = self._note(equation, operands[by_data[0]].entries) if by_data else None
        # An index that follows from parameters may be any.
        is_known = name not in INDICES or not any(isinstance(each, _FromParameters) for each in operands[INDICES[name]])
        reached = [
            operand.reached if isinstance(operand, _FromParameters) else np.zeros(atom.aval.shape, object)
            for operand, atom in zip(operands, equation.invars, strict=True)
        ]
        if name == "gather" and is_known:
            return [_FromParameters(_gathered(equation, reached[0], operands[1], chosen))]
        if name in PLACED:
            return [_FromParameters(PLACED[name](params, *reached))]
        if name in MOVES and is_known and (moved := self._moved(equation, operands)) is not None:
            # Numbers, and what is filled in, follow from nothing.
            return [_FromParameters(np.asarray(_bits(each), object)) for each in moved]
        if chosen is not None:
            reached[_INDEX[name]] = chosen
        if name in BY_ENTRY or name == "select_n":
            return [_FromParameters(np.asarray(functools.reduce(np.bitwise_or, np.broadcast_arrays(*reached)), object))]
        if name in _REDUCTIONS:
            reduced = np.bitwise_or.reduce(reached[0], tuple(params["axes"]), keepdims=True)
            return [_FromParameters(reduced.reshape(shapes[0]))]
        every = functools.reduce(operator.or_, (bit for each in reached for bit in each.flat), 0)
        return [_FromParameters(filled(shape, itertools.repeat(every, math.prod(shape)))) for shape in shapes]

    def entries(self, array: Any) -> Entries:
        """What stands for the entries where they are moved."""
        return array.reached if isinstance(array, _FromParameters) else super().entries(array)

    def _note(self, equation: Any, entries: Entries) -> np.ndarray:
        """The entries of the index of a look-up, as bits. One that has some value of its own for what is out of bounds
        has more cells than entries.
        """
        if "FILL" in str(equation.params.get("mode")):
            raise NotAffine
        bits = np.zeros(entries.shape, object)
        for place, entry in enumerate(entries.flat):
            if not isinstance(entry, Affine):
                raise NotAffine
            if entry.offset not in self.constants:
                bits.flat[place] = 1 << len(self.noted)
                coordinate = place % entries.shape[-1] if entries.ndim else 0
                size = _num_values(equation, coordinate)
                self.noted.append(_Noted(len(self.shapes), place, entry.offset, size))
        self.shapes.append(entries.shape)
        return bits


_bits = np.frompyfunc(lambda entry: entry if isinstance(entry, int) else 0, 1, 1)
# The operand by which data may look something up.
_INDEX = {"gather": 1, "select_n": 0}
# Primitives whose result has the entries of one operand along some axes together.
_REDUCTIONS = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"})


def _num_values(equation: Any, coordinate: int) -> int:
    """How many values an entry of an index may have."""
    if equation.primitive.name == "select_n":
        return len(equation.invars) - 1
    dim = equation.params["dimension_numbers"].start_index_map[coordinate]
    return equation.invars[0].aval.shape[dim] - equation.params["slice_sizes"][dim] + 1


def _gathered(equation: Any, reached: np.ndarray, index: Any, chosen: np.ndarray | None) -> np.ndarray:
    """What every entry of the result of a gather follows from."""
    params = equation.params
    if chosen is None:
        where = gathered_from(reached.shape, np.asarray(index), params)
        return reached.ravel()[np.maximum(where, 0)]
    where = gathered_from(reached.shape, np.zeros(chosen.shape, np.int64), params)
    rows = np.bitwise_or.reduce(chosen, -1)
    everything = functools.reduce(operator.or_, reached.flat, 0)
    offset_dims = params["dimension_numbers"].offset_dims
    return np.broadcast_to(np.expand_dims(rows, offset_dims), where.shape) | everything


class _Value(NamedTuple):
    """A value, and whether it depends on parameters and on data."""

    value: Any
    by_params: bool
    by_data: bool


# What the index of a look-up is, by its number and as it follows from the data.
_Replace = Callable[[int, Array], Array]


def _traced(
    look: Look, program: Program, params: Mapping[str, Array], data: tuple[Any, ...]
) -> Callable[[Mapping[str, Array], tuple[Any, ...], _Replace], Mapping[str, Array]]:
    """What ``look`` sees, as a function in which the indices of look-ups may be others."""
    closed, shapes = jax.make_jaxpr(functools.partial(_seen, look, program), return_shape=True)(params, data)

    def call(params: Mapping[str, Array], data: tuple[Any, ...], replace: _Replace) -> Mapping[str, Array]:
        arguments = [_Value(leaf, True, False) for leaf in jax.tree.leaves(params)]
        arguments += [_Value(leaf, False, True) for leaf in jax.tree.leaves(data)]
        results = _run(closed.jaxpr, closed.consts, arguments, replace, [0])
        return jax.tree.unflatten(jax.tree.structure(shapes), [jnp.asarray(result.value) for result in results])

    return call


def _run(jaxpr: Any, consts: Any, arguments: list[_Value], replace: _Replace, met: list[int]) -> list[_Value]:
    """The results of equations; ``met`` counts the look-ups by data."""
    values: dict[Any, _Value] = {}
    values.update((var, _Value(const, False, False)) for var, const in zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> _Value:
        return _Value(atom.val, False, False) if isinstance(atom, Literal) else values[atom]

    for equation in needed(jaxpr):
        operands = [read(atom) for atom in equation.invars]
        name = equation.primitive.name
        if name in CALLS:
            inner = equation.params[CALLS[name]]
            results = _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands, replace, met)
            values.update(zip(equation.outvars, results, strict=True))
            continue
        by_params = any(operand.by_params for operand in operands)
        by_data = any(operand.by_data and not operand.by_params for operand in operands)
        if by_params and by_data:
            index = _INDEX[name]
            operands[index] = operands[index]._replace(value=replace(met[0], operands[index].value))
            met[0] += 1
        made = bound(equation, [operand.value for operand in operands])
        marks = (by_params, by_data and not by_params)
        values.update((var, _Value(value, *marks)) for var, value in zip(equation.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
