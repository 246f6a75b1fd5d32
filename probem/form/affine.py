"""A function of parameters and data as affine in the parameters, proved by going through its code.

JAX traces the function for one row, and its equations are gone through entry by entry. What an entry has of the data is
an expression, of which no value is known; what it has of the parameters is a slope for each entry of theirs, an
expression of the data too. Sums, products with data, and whatever moves entries keep that; a product of two
parameters, a comparison, a function that is not listed do not, and what follows from them is not affine. So what is
read holds for every row and every value of the parameters, not for those that somebody tried. Two expressions that are
written alike are one; two that are not may still have equal values, which costs a column and no more.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jaxtyping import Shaped


class Affine(NamedTuple):
    """offset + sum_e slopes[e] theta_e, with expressions of the data by their number; entries not there have none."""

    offset: int
    slopes: Mapping[int, int]


class NotAffine(Exception):
    """Some entry of the result depends on the parameters in another way, or there are too many to go through."""


#: The numbers of two expressions.
ZERO, ONE = 0, 1

# Entries that are gone through at most: of a program with more nothing is said.
_MOST_ENTRIES = 2**19
# Values of an index from data that are told apart at most.
_MOST_VALUES = 256

# What stands for an entry that is not affine.
_BENT = None
_Entries = np.ndarray  # of Affine or _BENT, dtype object

# Primitives whose result has the entries of its operands in other places.
_MOVES = frozenset({
    "broadcast_in_dim", "concatenate", "copy", "copy_p", "dynamic_slice", "expand_dims", "gather", "pad", "reshape",
    "rev", "scatter", "slice", "split", "squeeze", "transpose",
})  # fmt: skip
# Which of their operands say where.
_INDICES = {"dynamic_slice": slice(1, None), "gather": slice(1, None), "scatter": slice(1, 2)}
# Primitives that work on each entry by itself, beside those that are affine.
_BY_ENTRY = frozenset({
    "abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp",
    "convert_element_type", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1",
    "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "nextafter", "not", "or", "pow", "reduce_precision", "rem", "round", "rsqrt", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh",
    "xor",
})  # fmt: skip
# Primitives that stand for a function of JAX's.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr"}


def affine_in_parameters(
    function: Callable[[Mapping[str, Any], Any], Any], params: Mapping[str, Any], data: Any
) -> Shaped[np.ndarray, "..."]:
    """The entries of the array that a function of parameters and data returns, each as ``Affine``.

    Entries of the parameters are numbered one after another, in the order of ``params``. Both arguments are arrays, or
    stand for some by shape and dtype.

    Raises
    ------
    NotAffine
        If an entry may depend on the parameters otherwise.
    """
    closed = jax.make_jaxpr(function)(params, data)
    reader = _Reader()
    leaves = jax.tree.leaves(params)
    # JAX sorts a mapping by its keys.
    sizes = {name: math.prod(jnp.shape(value)) for name, value in params.items()}
    starts = dict(zip(sizes, itertools.accumulate([0, *sizes.values()]), strict=False))
    arguments: list[Any] = [
        _filled(jnp.shape(params[name]), (Affine(ZERO, {starts[name] + n: ONE}) for n in range(sizes[name])))
        for name in sorted(params)
    ]
    assert len(arguments) == len(leaves)
    for number, leaf in enumerate(jax.tree.leaves(data)):
        size = math.prod(jnp.shape(leaf))
        entries = (Affine(reader.number("data", number, n), {}) for n in range(size))
        arguments.append(_filled(jnp.shape(leaf), entries))
    with jax.ensure_compile_time_eval():
        (result,) = reader.run(closed.jaxpr, closed.consts, arguments)
        entries = reader.entries(result)
    if any(entry is _BENT for entry in entries.flat):
        raise NotAffine
    return entries


class _Reader:
    """Expressions by number, and what the primitives make of them."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        #: The values of expressions that are the same in every row.
        self.constants: dict[int, Any] = {}
        self._left = _MOST_ENTRIES
        self._fresh = itertools.count()
        assert self.constant(0.0) == ZERO
        assert self.constant(1.0) == ONE

    def number(self, *key: Any) -> int:
        """The number of an expression, by what it is made of."""
        return self._numbers.setdefault(key, len(self._numbers))

    def constant(self, value: float | int) -> int:
        number = self.number("constant", value)
        self.constants[number] = value
        return number

    def sum(self, *numbers: int) -> int:
        terms = sorted(number for number in numbers if number != ZERO)
        if not terms:
            return ZERO
        if all(number in self.constants for number in terms):
            return self.constant(math.fsum(self.constants[number] for number in terms))
        return terms[0] if len(terms) == 1 else self.number("sum", *terms)

    def product(self, first: int, second: int) -> int:
        if ZERO in (first, second):
            return ZERO
        if ONE in (first, second):
            return second if first == ONE else first
        if first in self.constants and second in self.constants:
            return self.constant(self.constants[first] * self.constants[second])
        return self.number("product", *sorted((first, second)))

    def entries(self, array: Any) -> _Entries:
        """An array whose values are known, as one of expressions; what is one already as it is."""
        if isinstance(array, _Symbols):
            return array.entries
        values = np.asarray(array)
        self.count(values.size)
        return _filled(values.shape, (Affine(self.constant(value), {}) for value in values.ravel().tolist()))

    def count(self, size: int) -> None:
        """So many entries more are gone through."""
        self._left -= size
        if self._left < 0:
            raise NotAffine

    # Equations

    def run(self, jaxpr: Any, consts: Any, arguments: list[Any]) -> list[Any]:
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(
            (var, _Symbols(value) if isinstance(value, np.ndarray) and value.dtype == object else value)
            for var, value in zip(jaxpr.invars, arguments, strict=True)
        )

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            values.update(zip(equation.outvars, self._apply(equation, operands), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _apply(self, equation: Any, operands: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        if not any(isinstance(operand, _Symbols) for operand in operands):
            made = _bound(equation, operands)
            return list(made) if equation.primitive.multiple_results else [made]
        shapes = [tuple(var.aval.shape) for var in equation.outvars]
        self.count(sum(math.prod(shape) for shape in shapes))
        if name in _CALLS:
            inner = params[_CALLS[name]]
            return self.run(inner.jaxpr, inner.consts, operands)
        bent = any(entry is _BENT or entry.slopes for each in operands for entry in self._symbols(each))
        if name == "custom_jvp_call" and not bent:
            return self.run(params["call_jaxpr"].jaxpr, params["call_jaxpr"].consts, operands)
        if name in _MOVES:
            moved = self._moved(equation, operands)
            if moved is not None:
                return [_Symbols(each) for each in moved]
        if np.issubdtype(equation.outvars[0].aval.dtype, np.floating) or name == "select_n":
            rule = _RULES.get(name)
            if rule is not None:
                made = rule(self, equation, [self.entries(operand) for operand in operands])
                return [_Symbols(made.reshape(shapes[0]))]
        if name in _BY_ENTRY:
            return [_Symbols(self.by_itself(equation, operands))]
        # Every entry of the result may depend on every entry of the operands.
        key = (name, next(self._fresh))
        return [
            _Symbols(_filled(shape, (_BENT if bent else Affine(self.number(key, which, n), {}) for n in _range(shape))))
            for which, shape in enumerate(shapes)
        ]

    def _symbols(self, operand: Any) -> Any:
        return operand.entries.flat if isinstance(operand, _Symbols) else ()

    def by_itself(self, equation: Any, operands: list[Any]) -> _Entries:
        """A function of every entry by itself that is not affine."""
        key = (
            equation.primitive.name,
            str(equation.outvars[0].aval.dtype),
            str(sorted((key, str(value)) for key, value in equation.params.items())),
        )
        entries = np.broadcast_arrays(*(self.entries(operand) for operand in operands))
        made = []
        for parts in zip(*(part.flat for part in entries), strict=True):
            if any(part is _BENT or part.slopes for part in parts):
                made.append(_BENT)
            else:
                made.append(Affine(self.number(key, *(part.offset for part in parts)), {}))
        return _filled(entries[0].shape, iter(made))

    def _moved(self, equation: Any, operands: list[Any]) -> list[_Entries] | None:
        """The entries in their new places: the primitive is asked to move their positions. None if it takes indices
        that follow from data.
        """
        name = equation.primitive.name
        here = _INDICES.get(name, slice(0, 0))
        if any(isinstance(operand, _Symbols) for operand in operands[here]):
            return self._looked_up(equation, operands) if name == "gather" else None
        places = self._positions(equation, operands, operands[here])
        moving = [operand for number, operand in enumerate(operands) if number not in range(len(operands))[here]]
        return [self._placed(moving, where) for where in places]

    def _positions(self, equation: Any, operands: list[Any], indices: list[Any]) -> list[np.ndarray]:
        """Where every entry of the results comes from, in all operands but the indices one after another."""
        here = range(len(operands))[_INDICES.get(equation.primitive.name, slice(0, 0))]
        arguments, start, given = [], 0, iter(indices)
        for number, operand in enumerate(operands):
            if number in here:
                arguments.append(next(given))
                continue
            shape = np.shape(_entries_or_values(operand))
            positions = start + np.arange(math.prod(shape)).reshape(shape)
            # A scatter goes by the dtype that it was traced for, in which these numbers are exact.
            dtype = equation.outvars[0].aval.dtype if equation.primitive.name == "scatter" else np.dtype(np.int32)
            arguments.append(jnp.asarray(positions, dtype))
            start += math.prod(shape)
        made = _bound(equation, arguments)
        return [np.asarray(each).astype(int) for each in (made if equation.primitive.multiple_results else [made])]

    def _placed(self, moving: list[Any], where: np.ndarray) -> _Entries:
        flat = np.concatenate([self.entries(each).ravel() for each in moving])
        # An index that is out of bounds, for which the primitive fills something in.
        inside = (where >= 0) & (where < flat.size)
        placed = flat[np.where(inside, where, 0).ravel()]
        placed[~inside.ravel()] = _BENT
        return placed.reshape(where.shape)

    def _looked_up(self, equation: Any, operands: list[Any]) -> list[_Entries] | None:
        """Entries at indices that follow from data: each that may be meant, times the indicator that it is."""
        numbers = equation.params["dimension_numbers"]
        operand, entries = operands[0], operands[1].entries
        if any(entry is _BENT or entry.slopes for entry in entries.flat):
            return None
        known = np.array([entry.offset in self.constants for entry in entries.flat], bool).reshape(entries.shape)
        free = [axis for axis in range(entries.shape[-1]) if not known[..., axis].all()]
        shape = np.shape(_entries_or_values(operand))
        sizes = [
            shape[numbers.start_index_map[axis]] - equation.params["slice_sizes"][numbers.start_index_map[axis]] + 1
            for axis in free
        ]
        if math.prod(sizes) > _MOST_VALUES:
            return None
        values = [self.constants.get(entry.offset, 0.0) for entry in entries.flat]
        fixed = np.array(values).astype(np.int64).reshape(entries.shape)
        batch = np.expand_dims(
            np.arange(math.prod(entries.shape[:-1])).reshape(entries.shape[:-1]), numbers.offset_dims
        )
        rows = entries.reshape(-1, entries.shape[-1])
        # What is beyond the last value may count as the last.
        key = ("is", tuple(sizes), str(equation.params["mode"]))
        picked = []
        for choice in np.ndindex(*sizes):
            at = fixed.copy()
            at[..., free] = choice
            (where,) = self._positions(equation, operands, [jnp.asarray(at, jnp.int32)])
            self.count(where.size)
            which = np.broadcast_to(batch, where.shape)
            indicators = [self.number(*key, choice, *(rows[n, axis].offset for axis in free)) for n in range(len(rows))]
            picked.append((self._placed([operand], where), which, indicators))
        made = []
        for parts in zip(*(part.flat for part, _, _ in picked), *(which.flat for _, which, _ in picked), strict=True):
            choices, where = parts[: len(picked)], parts[len(picked) :]
            made.append(
                self.chosen([(e, picked[n][2][w]) for n, (e, w) in enumerate(zip(choices, where, strict=True))])
            )
        return [_filled(picked[0][0].shape, iter(made))]

    def chosen(self, choices: list[tuple[Any, int]]) -> Affine | None:
        """sum_j indicator_j entry_j, where one indicator is 1."""
        if any(entry is _BENT for entry, _ in choices):
            return _BENT
        first = choices[0][0]
        if all(entry == first for entry, _ in choices):
            return first
        return self.add(*(self.scaled(entry, indicator) for entry, indicator in choices))

    # Entries

    def add(self, *entries: Affine | None) -> Affine | None:
        if any(entry is _BENT for entry in entries):
            return _BENT
        slopes: dict[int, list[int]] = {}
        for entry in entries:
            for name, slope in entry.slopes.items():  # type: ignore[union-attr]
                slopes.setdefault(name, []).append(slope)
        added = {name: self.sum(*parts) for name, parts in slopes.items()}
        offset = self.sum(*(entry.offset for entry in entries))  # type: ignore[union-attr]
        return Affine(offset, {name: slope for name, slope in added.items() if slope != ZERO})

    def scaled(self, entry: Affine | None, factor: int) -> Affine | None:
        if entry is _BENT:
            return _BENT
        if factor == ZERO:
            return Affine(ZERO, {})
        slopes = {name: self.product(slope, factor) for name, slope in entry.slopes.items()}
        return Affine(self.product(entry.offset, factor), slopes)

    def times(self, first: Affine | None, second: Affine | None) -> Affine | None:
        if first is _BENT or second is _BENT:
            return _BENT
        if first.slopes and second.slopes:
            return _BENT
        return self.scaled(first, second.offset) if first.slopes else self.scaled(second, first.offset)


class _Symbols(NamedTuple):
    """An array of which the values are not known."""

    entries: _Entries


def _filled(shape: tuple[int, ...], entries: Any) -> _Entries:
    array = np.empty(math.prod(shape), object)
    for number, entry in enumerate(entries):
        array[number] = entry
    return array.reshape(shape)


def _range(shape: tuple[int, ...]) -> range:
    return range(math.prod(shape))


def _entries_or_values(operand: Any) -> Any:
    return operand.entries if isinstance(operand, _Symbols) else operand


def _bound(equation: Any, operands: list[Any]) -> Any:
    """What the primitive makes of values."""
    return equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))


_Rule = Callable[[_Reader, Any, list[_Entries]], _Entries]


def _by_entry(combine: Callable[..., Any]) -> _Rule:
    def rule(reader: _Reader, equation: Any, operands: list[_Entries]) -> _Entries:
        del equation
        entries = np.broadcast_arrays(*operands)
        made = [combine(reader, *each) for each in zip(*(part.flat for part in entries), strict=True)]
        return _filled(entries[0].shape, iter(made))

    return rule


def _negative(reader: _Reader, entry: Affine | None) -> Affine | None:
    return reader.scaled(entry, reader.constant(-1.0))


def _divided(reader: _Reader, entry: Affine | None, divisor: Affine | None) -> Affine | None:
    if entry is _BENT or divisor is _BENT or divisor.slopes:
        return _BENT
    value = reader.constants.get(divisor.offset)
    known = reader.constant(1.0 / value) if value else reader.number("reciprocal", divisor.offset)
    return reader.scaled(entry, known)


def _selected(reader: _Reader, predicate: Affine | None, *cases: Affine | None) -> Affine | None:
    """One of the cases; where data decide, each times its indicator."""
    if predicate is _BENT or predicate.slopes:
        return _BENT
    if predicate.offset in reader.constants:
        return cases[int(reader.constants[predicate.offset])]
    return reader.chosen([(case, reader.number("is", (n,), predicate.offset)) for n, case in enumerate(cases)])


def _converted(reader: _Reader, equation: Any, operands: list[_Entries]) -> _Entries:
    """Numbers with more digits are these numbers; with fewer they are others."""
    before, after = equation.invars[0].aval.dtype, equation.outvars[0].aval.dtype
    if np.issubdtype(before, np.floating) and jnp.finfo(after).nmant < jnp.finfo(before).nmant:
        return reader.by_itself(equation, [_Symbols(entries) for entries in operands])
    return operands[0]


def _totalled(reader: _Reader, equation: Any, operands: list[_Entries]) -> _Entries:
    (entries,) = operands
    axes = tuple(equation.params["axes"])
    kept = [axis for axis in range(entries.ndim) if axis not in axes]
    rows = entries.transpose(*kept, *axes).reshape(math.prod(entries.shape[axis] for axis in kept), -1)
    return _filled((len(rows),), (reader.add(Affine(ZERO, {}), *row) for row in rows))


def _accumulated(reader: _Reader, equation: Any, operands: list[_Entries]) -> _Entries:
    (entries,) = operands
    made = np.moveaxis(entries, equation.params["axis"], 0).copy()
    order = list(range(len(made)))[:: -1 if equation.params["reverse"] else 1]
    for before, now in itertools.pairwise(order):
        pair = [made[before : before + 1], made[now : now + 1]]
        made[now : now + 1] = _by_entry(_Reader.add)(reader, None, pair)
    return np.moveaxis(made, 0, equation.params["axis"])


def _contracted(reader: _Reader, equation: Any, operands: list[_Entries]) -> _Entries:
    (summed, batched) = equation.params["dimension_numbers"]
    sides = []
    for entries, contracting, batch in zip(operands, summed, batched, strict=True):
        free = [axis for axis in range(entries.ndim) if axis not in (*contracting, *batch)]
        moved = entries.transpose(*batch, *free, *contracting)
        sizes = [math.prod(entries.shape[axis] for axis in axes) for axes in (batch, free, contracting)]
        sides.append(moved.reshape(sizes))
    first, second = sides
    reader.count(first.size * second.shape[1])
    products = (
        reader.add(Affine(ZERO, {}), *map(reader.times, row, column))
        for left, right in zip(first, second, strict=True)
        for row in left
        for column in right
    )
    return _filled((len(first) * first.shape[1] * second.shape[1],), products)


def _raised(reader: _Reader, equation: Any, operands: list[_Entries]) -> _Entries:
    whole = [_Symbols(entries) for entries in operands]
    return operands[0] if equation.params["y"] == 1 else reader.by_itself(equation, whole)


_RULES: dict[str, _Rule] = {
    "add": _by_entry(_Reader.add),
    "add_any": _by_entry(_Reader.add),
    "sub": _by_entry(lambda reader, first, second: reader.add(first, _negative(reader, second))),
    "mul": _by_entry(_Reader.times),
    "div": _by_entry(_divided),
    "neg": _by_entry(_negative),
    "select_n": _by_entry(_selected),
    "convert_element_type": _converted,
    "integer_pow": _raised,
    "reduce_sum": _totalled,
    "cumsum": _accumulated,
    "dot_general": _contracted,
}
