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

from probem.form.equations import PLACED, evaluated, gathered_from, moved, needed
from probem.form.expressions import BENT, ONE, ZERO, Affine, Entries, Expressions, NotAffine, filled

# Values of an index from data that are told apart at most.
_MOST_VALUES = 256

#: Primitives whose result has the entries of its operands in other places, and that JAX is asked to move.
MOVES = frozenset({"copy", "copy_p", "dynamic_slice", "expand_dims", "pad", "scatter", "split", "stack", "tile"})
#: Which of their operands say where.
INDICES = {"dynamic_slice": slice(1, None), "gather": slice(1, 2), "scatter": slice(1, 2)}
#: Primitives that work on each entry by itself, beside those that are affine.
BY_ENTRY = frozenset({
    "abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp",
    "convert_element_type", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1",
    "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "nextafter", "not", "or", "pow", "reduce_precision", "rem", "round", "rsqrt", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh",
    "xor",
})  # fmt: skip
#: Primitives that stand for a function of JAX's, and what has its equations.
CALLS = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
}


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
    reader = Reader()
    # JAX sorts a mapping by its keys.
    sizes = {name: math.prod(jnp.shape(value)) for name, value in params.items()}
    starts = dict(zip(sizes, itertools.accumulate([0, *sizes.values()]), strict=False))
    arguments: list[Any] = [
        filled(jnp.shape(params[name]), (Affine(ZERO, {starts[name] + n: ONE}) for n in range(sizes[name])))
        for name in sorted(params)
    ]
    arguments += reader.of_data(data)
    with jax.ensure_compile_time_eval():
        (result,) = reader.run(closed.jaxpr, closed.consts, arguments)
        entries = reader.entries(result)
    if any(entry is BENT for entry in entries.flat):
        raise NotAffine
    return entries


class Reader(Expressions):
    """Expressions by number, and what the primitives make of them."""

    def of_data(self, data: Any) -> list[Entries]:
        """Every entry of data as an expression of its own."""
        return [
            filled(
                jnp.shape(leaf),
                (Affine(self.number("data", number, n), {}) for n in range(math.prod(jnp.shape(leaf)))),
            )
            for number, leaf in enumerate(jax.tree.leaves(data))
        ]

    def entries(self, array: Any) -> Entries:
        """An array whose values are known, as one of expressions; what is one already as it is."""
        if isinstance(array, Symbols):
            return array.entries
        values = np.asarray(array)
        self.count(values.size)
        return filled(values.shape, (Affine(self.constant(value), {}) for value in values.ravel().tolist()))

    def run(self, jaxpr: Any, consts: Any, arguments: list[Any]) -> list[Any]:
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(
            (var, Symbols(value) if isinstance(value, np.ndarray) and value.dtype == object else value)
            for var, value in zip(jaxpr.invars, arguments, strict=True)
        )

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for equation in needed(jaxpr):
            operands = [read(atom) for atom in equation.invars]
            values.update(zip(equation.outvars, self._apply(equation, operands), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _apply(self, equation: Any, operands: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        if not any(isinstance(operand, Symbols) for operand in operands):
            return evaluated(equation, operands)
        shapes = [tuple(var.aval.shape) for var in equation.outvars]
        self.count(sum(math.prod(shape) for shape in shapes))
        if name in CALLS:
            inner = params[CALLS[name]]
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
        bent = any(entry is BENT or entry.slopes for each in operands for entry in self._symbols(each))
        if name == "custom_jvp_call" and not bent:
            return self.run(params["call_jaxpr"].jaxpr, params["call_jaxpr"].consts, operands)
        if name in PLACED:
            return [Symbols(PLACED[name](params, *(self.entries(operand) for operand in operands)))]
        if name == "gather" and (made := self._looked_up(equation, operands)) is not None:
            return [Symbols(made)]
        if name in MOVES and (moved := self._moved(equation, operands)) is not None:
            return [Symbols(each) for each in moved]
        if np.issubdtype(equation.outvars[0].aval.dtype, np.floating) or name == "select_n":
            rule = _RULES.get(name)
            if rule is not None:
                made = rule(self, equation, [self.entries(operand) for operand in operands])
                return [Symbols(made.reshape(shapes[0]))]
        if name in BY_ENTRY:
            return [Symbols(self.by_itself(equation, operands))]
        # Every entry of the result may depend on every entry of the operands.
        key = (name, next(self._fresh))
        return [
            Symbols(filled(shape, (BENT if bent else Affine(self.number(key, which, n), {}) for n in _range(shape))))
            for which, shape in enumerate(shapes)
        ]

    def _symbols(self, operand: Any) -> Any:
        return operand.entries.flat if isinstance(operand, Symbols) else ()

    def by_itself(self, equation: Any, operands: list[Any]) -> Entries:
        """A function of every entry by itself that is not affine."""
        key = (
            equation.primitive.name,
            str(equation.outvars[0].aval.dtype),
            str(sorted((key, str(value)) for key, value in equation.params.items())),
        )
        entries = np.broadcast_arrays(*(self.entries(operand) for operand in operands))
        made = []
        for parts in zip(*(part.flat for part in entries), strict=True):
            if any(part is BENT or part.slopes for part in parts):
                made.append(BENT)
            else:
                made.append(Affine(self.number(key, *(part.offset for part in parts)), {}))
        return filled(entries[0].shape, iter(made))

    def _moved(self, equation: Any, operands: list[Any]) -> list[Entries] | None:
        """The entries in their new places: the primitive is asked to move their positions. None if it takes indices
        that follow from data.
        """
        here = range(len(operands))[INDICES.get(equation.primitive.name, slice(0, 0))]
        if any(isinstance(operands[number], Symbols) for number in here):
            return None
        arguments, flat, start = [], [], 0
        for number, operand in enumerate(operands):
            if number in here:
                arguments.append(operand)
                continue
            entries = self.entries(operand)
            arguments.append(jnp.asarray(start + np.arange(entries.size).reshape(entries.shape), jnp.int32))
            flat.append(entries.ravel())
            start += entries.size
        made = moved(equation, arguments)
        return [_at(np.concatenate(flat), np.asarray(where).astype(int)) for where in made]

    def _looked_up(self, equation: Any, operands: list[Any]) -> Entries | None:
        """Entries at indices; where data decide, each entry that may be meant times the indicator that it is.
        None if that is not affine, or too much.
        """
        operand, params = self.entries(operands[0]), equation.params
        if not isinstance(operands[1], Symbols):
            return _at(operand.ravel(), gathered_from(operand.shape, np.asarray(operands[1]), params))
        entries = operands[1].entries
        if any(entry is BENT or entry.slopes for entry in entries.flat):
            return None
        known = np.array([entry.offset in self.constants for entry in entries.flat], bool).reshape(entries.shape)
        free = [axis for axis in range(entries.shape[-1]) if not known[..., axis].all()]
        numbers, slices = params["dimension_numbers"], params["slice_sizes"]
        dims = [numbers.start_index_map[axis] for axis in free]
        sizes = [operand.shape[dim] - slices[dim] + 1 for dim in dims]
        if math.prod(sizes) > _MOST_VALUES:
            return None
        values = [self.constants.get(entry.offset, 0.0) for entry in entries.flat]
        fixed = np.array(values).astype(np.int64).reshape(entries.shape)
        batch = np.arange(math.prod(entries.shape[:-1])).reshape(entries.shape[:-1])
        rows = entries.reshape(-1, entries.shape[-1])
        # What is beyond the last value may count as the last.
        key = ("is", tuple(sizes), str(params["mode"]))
        choices = []
        for choice in np.ndindex(*sizes):
            at = fixed.copy()
            at[..., free] = choice
            where = gathered_from(operand.shape, at, params)
            self.count(where.size)
            which = np.broadcast_to(np.expand_dims(batch, numbers.offset_dims), where.shape).ravel()
            indicators = [self.number(*key, choice, *(row[axis].offset for axis in free)) for row in rows]
            choices.append(
                [(entry, indicators[n]) for entry, n in zip(_at(operand.ravel(), where).flat, which, strict=True)]
            )
            shape = where.shape
        return filled(shape, (self.chosen(list(each)) for each in zip(*choices, strict=True)))


class Symbols(NamedTuple):
    """An array of which the values are not known."""

    entries: Entries


def _range(shape: tuple[int, ...]) -> range:
    return range(math.prod(shape))


def _at(entries: Entries, where: np.ndarray) -> Entries:
    """Entries at positions; an index that is out of bounds has none, and a primitive fills something in."""
    inside = (where >= 0) & (where < entries.size)
    placed = entries[np.where(inside, where, 0).ravel()]
    placed[~inside.ravel()] = BENT
    return placed.reshape(where.shape)


_Rule = Callable[[Reader, Any, list[Entries]], Entries]


def _by_entry(combine: Callable[..., Any]) -> _Rule:
    def rule(reader: Reader, equation: Any, operands: list[Entries]) -> Entries:
        del equation
        entries = np.broadcast_arrays(*operands)
        made = [combine(reader, *each) for each in zip(*(part.flat for part in entries), strict=True)]
        return filled(entries[0].shape, iter(made))

    return rule


def _negative(reader: Reader, entry: Affine | None) -> Affine | None:
    return reader.scaled(entry, reader.constant(-1.0))


def _divided(reader: Reader, entry: Affine | None, divisor: Affine | None) -> Affine | None:
    if entry is BENT or divisor is BENT or divisor.slopes:
        return BENT
    value = reader.constants.get(divisor.offset)
    known = reader.constant(1.0 / value) if value else reader.number("reciprocal", divisor.offset)
    return reader.scaled(entry, known)


def _selected(reader: Reader, predicate: Affine | None, *cases: Affine | None) -> Affine | None:
    """One of the cases; where data decide, each times its indicator."""
    if predicate is BENT or predicate.slopes:
        return BENT
    if predicate.offset in reader.constants:
        return cases[int(reader.constants[predicate.offset])]
    return reader.chosen([(case, reader.number("is", (n,), predicate.offset)) for n, case in enumerate(cases)])


def _converted(reader: Reader, equation: Any, operands: list[Entries]) -> Entries:
    """Numbers with more digits are these numbers; with fewer they are others."""
    before, after = equation.invars[0].aval.dtype, equation.outvars[0].aval.dtype
    # A whole number of any size is one in float32 to its rounding, in sixteen bits it is not.
    digits = jnp.finfo(before).nmant if jnp.issubdtype(before, jnp.floating) else jnp.finfo(jnp.float32).nmant
    if jnp.finfo(after).nmant < digits and before.kind != "b":
        return reader.by_itself(equation, [Symbols(entries) for entries in operands])
    return operands[0]


def _totalled(reader: Reader, equation: Any, operands: list[Entries]) -> Entries:
    (entries,) = operands
    axes = tuple(equation.params["axes"])
    kept = [axis for axis in range(entries.ndim) if axis not in axes]
    rows = entries.transpose(*kept, *axes).reshape(math.prod(entries.shape[axis] for axis in kept), -1)
    return filled((len(rows),), (reader.added(Affine(ZERO, {}), *row) for row in rows))


def _accumulated(reader: Reader, equation: Any, operands: list[Entries]) -> Entries:
    (entries,) = operands
    made = np.moveaxis(entries, equation.params["axis"], 0).copy()
    order = list(range(len(made)))[:: -1 if equation.params["reverse"] else 1]
    for before, now in itertools.pairwise(order):
        pair = [made[before : before + 1], made[now : now + 1]]
        made[now : now + 1] = _by_entry(Reader.added)(reader, None, pair)
    return np.moveaxis(made, 0, equation.params["axis"])


def _contracted(reader: Reader, equation: Any, operands: list[Entries]) -> Entries:
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
        reader.added(Affine(ZERO, {}), *map(reader.times, row, column))
        for left, right in zip(first, second, strict=True)
        for row in left
        for column in right
    )
    return filled((len(first) * first.shape[1] * second.shape[1],), products)


def _raised(reader: Reader, equation: Any, operands: list[Entries]) -> Entries:
    whole = [Symbols(entries) for entries in operands]
    return operands[0] if equation.params["y"] == 1 else reader.by_itself(equation, whole)


_RULES: dict[str, _Rule] = {
    "add": _by_entry(Reader.added),
    "add_any": _by_entry(Reader.added),
    "sub": _by_entry(lambda reader, first, second: reader.added(first, _negative(reader, second))),
    "mul": _by_entry(Reader.times),
    "div": _by_entry(_divided),
    "neg": _by_entry(_negative),
    "select_n": _by_entry(_selected),
    "convert_element_type": _converted,
    "integer_pow": _raised,
    "reduce_sum": _totalled,
    "cumsum": _accumulated,
    "dot_general": _contracted,
}
