"""From names and plain values to programs, families and options; what cannot be found is a ``Complaint`` at its key."""

import collections.abc
import dataclasses
import functools
import hashlib
import inspect
import json
import numbers
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import jax.numpy as jnp
import numpy as np
import pydantic

from probem.errors import InputError, nearest
from probem.families import (
    EM,
    HARD_EM,
    MAXIMIZATION_EXPECTATION,
    VARIATIONAL_BAYES,
    Annealed,
    AssignmentFamily,
    Categorical,
    Conjugate,
    Corner,
    Delta,
    ParameterFamily,
    Sampled,
    Tempered,
    TopC,
)
from probem.runs.config import Complaint, Key, described
from probem.runs.programs import function_in_file, functions_of, home, model_named
from probem.solver.accelerations import ACCELERATIONS, check_numbers

from .settings import FitSettings

CORNERS = {corner.name: corner for corner in (EM, HARD_EM, VARIATIONAL_BAYES, MAXIMIZATION_EXPECTATION)}
FAMILIES = {
    "categorical": Categorical,
    "delta": Delta,
    "tempered": Tempered,
    "top": TopC,
    "annealed": Annealed,
    "sampled": Sampled,
    "conjugate": Conjugate,
}


class Refused(Exception):
    """A section that cannot be resolved; its complaints say why."""


@dataclasses.dataclass(frozen=True)
class Named:
    """An argument with fields, such as a prior; the fields that are not given come from the scale of the rows.

    A number that is given for a vector stands in each of its entries, one for a matrix on its diagonal.
    """

    kind: type
    given: Mapping[str, Any]
    rows_needed: bool

    def of(self, rows: np.ndarray, arguments: Mapping[str, Any]) -> Any:
        """The value, where the other arguments of the program are these."""
        given = {name: np.asarray(value, float) for name, value in self.given.items()}
        make = getattr(self.kind, "from_data", None)
        if make is None:
            return self.kind(**self.given)
        known = {"x": jnp.asarray(rows), **arguments}
        scale: Any = make(**{name: known[name] for name in inspect.signature(make).parameters if name in known})
        shapes = {name: np.shape(getattr(scale, name)) for name in given}
        values = {name: _spread(value, shapes[name], name) for name, value in given.items()}
        return scale._replace(**values) if hasattr(scale, "_replace") else dataclasses.replace(scale, **values)


@dataclasses.dataclass(frozen=True)
class Program:
    """A NumPyro program and the values of its arguments, but for the rows."""

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]

    @property
    def depends_on_rows(self) -> bool:
        """Whether an argument is made from the scale of the rows."""
        return any(isinstance(value, Named) and value.rows_needed for value in self.arguments.values())

    def bound(self, rows: np.ndarray) -> functools.partial:
        """The program of its rows alone."""
        plain = {name: value for name, value in self.arguments.items() if not isinstance(value, Named)}
        records = {name: value.of(rows, plain) for name, value in self.arguments.items() if isinstance(value, Named)}
        return functools.partial(self.function, **plain, **records)


@dataclasses.dataclass
class Resolver:
    """Finds what the sections of a cell name; ``complaints`` are about what it did not find.

    Parameters
    ----------
    folder : where relative paths of files begin
    """

    folder: Path
    complaints: list[Complaint] = dataclasses.field(default_factory=list)

    def program(self, section: Mapping[str, Any]) -> Program:
        """The program of a section, with its arguments."""
        function = self.program_named(section.get("name"))
        given = {name: value for name, value in section.items() if name != "name"}
        return Program(
            name_of(section["name"]), function, self.arguments(function, given, ("program",), required(function)[:1])
        )

    def program_named(self, name: Any) -> Callable[..., Any]:
        """The function of a program."""
        return self.function(name, ("program", "name"), model_named, "program")

    def families(self, section: Mapping[str, Any]) -> Corner | dict[str, Any]:
        """The families of a section: a corner, with others at some sites."""
        families, wrong = {}, False
        for site, value in section.items():
            try:
                if site != "name":
                    families[site] = self.family(value, ("families", site))
                elif not isinstance(value, str) or value not in CORNERS:
                    self.refuse(("families", "name"), described(value), CORNERS)
            except Refused:
                wrong = True
        if wrong:
            raise Refused
        return CORNERS[section["name"]] | families if "name" in section else families

    def family(self, value: Any, key: Key) -> AssignmentFamily | ParameterFamily:
        """The family that a name, or a mapping with its name and fields, stands for."""
        return self._made(value, key, FAMILIES, "family")

    def acceleration(self, value: Any, key: Key) -> Any:
        """The acceleration that a name, or a mapping with its name and fields, stands for; of None, None."""
        return None if value is None else self._made(value, key, ACCELERATIONS, "acceleration", check_numbers)

    def _made(
        self,
        value: Any,
        key: Key,
        kinds: Mapping[str, Any],
        what: str,
        check: Callable[[Any], None] = lambda made: None,
    ) -> Any:
        """An object of the kind that is named, alone or as the ``name`` beside its fields."""
        section = value if isinstance(value, Mapping) else {"name": value}
        name = section.get("name")
        if (isinstance(name, str) and ".py" in name) or callable(name):
            kind = self.function(name, (*key, "name"), model_named, what)
        elif isinstance(name, str) and name in kinds:
            kind = kinds[name]
        else:
            self.refuse((*key, "name"), described(name), kinds, f", or path/to/file.py:{what.capitalize()}")
        fields = self.arguments(kind, {name: value for name, value in section.items() if name != "name"}, key)
        try:
            made = kind(**fields)
            check(made)
        except InputError as error:
            self.complain(key, error)
            raise Refused from None
        return made

    def options(self, section: Mapping[str, Any]) -> FitSettings:
        """The options of a fit, with the acceleration that they name."""
        try:
            settings = FitSettings.model_validate(dict(section))
        except pydantic.ValidationError as error:
            details: list[Any] = list(error.errors(include_url=False))
            for detail in details:
                name = str(detail["loc"][0])
                if detail["type"] == "extra_forbidden":
                    self.complaints.append(Complaint.unknown(("fit", name), FitSettings.model_fields))
                    continue
                expected = detail["msg"].removeprefix("Input should be ")
                remedy = "change the value"
                if detail["type"] == "one_of":
                    remedy = nearest(detail["input"], detail["ctx"]["names"].split(", "))
                self.complaints.append(Complaint(("fit", name), described(detail["input"]), expected, remedy))
            raise Refused from None
        acceleration = self.acceleration(settings.acceleration, ("fit", "acceleration"))
        return settings.model_copy(update={"acceleration": acceleration})

    def function(self, name: Any, key: Key, among: Callable[[str], Callable[..., Any]], what: str) -> Any:
        """What a name, or ``file.py:function``, stands for; a function stands for itself."""
        if callable(name):
            return name
        if not isinstance(name, str):
            self.complaints.append(Complaint(key, described(name), f"the name of a {what}", "add one"))
            raise Refused
        try:
            return function_in_file(name, what, self.folder) if ".py" in name else among(name)
        except InputError as error:
            self.complain(key, error)
            raise Refused from None

    def arguments(
        self, function: Callable[..., Any], given: Mapping[str, Any], key: Key, apart: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The values given for arguments, as the function takes them.

        Parameters
        ----------
        apart : arguments that somebody else gives, such as the rows
        """
        taken = {name: parameter for name, parameter in signature_of(function).items() if name not in apart}
        values, wrong = {}, False
        for name, value in given.items():
            if name not in taken:
                self.complaints.append(Complaint.unknown((*key, name), taken))
                wrong = True
                continue
            try:
                values[name] = self._value(taken, name, value, (*key, name))
            except Refused:
                wrong = True
        for name, parameter in taken.items():
            variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            if parameter.default is not inspect.Parameter.empty or name in given or variadic:
                continue
            if _is_record(parameter.annotation) and hasattr(parameter.annotation, "from_data"):
                values[name] = Named(parameter.annotation, {}, rows_needed=True)
            else:
                self.complaints.append(Complaint((*key, name), "nothing", "a value", "add this key"))
                wrong = True
        if wrong:
            raise Refused
        return values

    def _value(self, taken: Mapping[str, inspect.Parameter], name: str, value: Any, key: Key) -> Any:
        parameter = taken[name]
        kind, default = parameter.annotation, parameter.default
        if inspect.isfunction(default) or typing.get_origin(kind) is collections.abc.Callable:
            return self._structure(taken, name, value, key)
        if _is_record(kind):
            return self._record(kind, value, key)
        if isinstance(value, Mapping):
            self.complaints.append(Complaint(key, described(dict(value)), "a number, text or list", "change the value"))
            raise Refused
        whole = kind is int or (kind is inspect.Parameter.empty and type(default) is int)
        real = kind is float or type(default) is float
        listed = any(list in (each, typing.get_origin(each)) for each in (kind, *typing.get_args(kind)))
        checks = {bool: lambda: isinstance(value, bool), str: lambda: isinstance(value, str)}
        if kind in checks:
            right, expected = checks[kind](), {bool: "true or false", str: "text"}[kind]
        elif listed:
            right, expected = value is None or (isinstance(value, list) and _is_array(value)), "a list of numbers"
        elif whole:
            right, expected = isinstance(value, int) and not isinstance(value, bool), "a whole number"
        elif real:
            right, expected = _is_number(value), "a number"
        else:
            texts = kind is inspect.Parameter.empty and not isinstance(value, list)
            right, expected = value is None or isinstance(value, bool) or texts or _is_array(value), "numbers"
        if not right:
            self.complaints.append(Complaint(key, described(value), expected, "change the value"))
            raise Refused
        if isinstance(value, list):
            return [float(each) for each in value] if listed else np.asarray(value, float)
        # A number that may be any is a float, of which all share what is compiled for one.
        free = real or (not whole and kind not in (bool, str, inspect.Parameter.empty))
        return float(value) if _is_number(value) and free else value

    def _structure(self, taken: Mapping[str, inspect.Parameter], name: str, value: Any, key: Key) -> Any:
        """A function that a program takes, such as a covariance structure, with its own arguments bound."""
        from probem.models import covariance

        functions = functions_of(home(taken, name, covariance))
        section = value if isinstance(value, Mapping) else {"name": value}
        inner = section.get("name")

        def among(text: str) -> Any:
            if text not in functions:
                self.refuse(key, described(text), functions, ", or path/to/file.py:function")
            return functions[text]

        if not isinstance(inner, str) and not callable(inner):
            self.refuse(key, described(value), functions)
        function = self.function(inner, key, among, "function")
        arguments = {name: value for name, value in section.items() if name != "name"}
        if not arguments:
            return function
        apart = [name for name in required(function) if name not in arguments]
        return functools.partial(function, **self.arguments(function, arguments, key, apart))

    def _record(self, kind: type, value: Any, key: Key) -> Named:
        if not isinstance(value, Mapping):
            self.complaints.append(Complaint(key, described(value), "a mapping of its fields", "change the value"))
            raise Refused
        names = _fields(kind)
        for name, each in value.items():
            if name not in names:
                self.complaints.append(Complaint.unknown((*key, name), names))
                raise Refused
            if not _is_array(each):
                self.complaints.append(Complaint((*key, name), described(each), "numbers", "change the value"))
                raise Refused
        return Named(kind, dict(value), rows_needed=set(value) != set(names))

    def refuse(self, key: Key, got: str, names: Any, more: str = "") -> typing.NoReturn:
        """Complain that a name is none of these."""
        word = got.removesuffix(" (text)").strip("'")
        self.complaints.append(Complaint(key, got, f"one of {', '.join(names)}{more}", nearest(word, names)))
        raise Refused

    def complain(self, key: Key, error: InputError) -> None:
        """Complain what an error says."""
        got, expected, remedy = getattr(error, "got", str(error)), getattr(error, "expected", ""), error.remedy
        self.complaints.append(Complaint(key, got, expected, remedy))


def signature_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function, with annotations that are no text where they can be found."""
    try:
        return dict(inspect.signature(function, eval_str=True).parameters)
    except (NameError, TypeError, SyntaxError):
        return dict(inspect.signature(function).parameters)


def required(function: Callable[..., Any]) -> list[str]:
    """The positional arguments without a default; the first of a program is its rows."""
    return [
        name
        for name, parameter in signature_of(function).items()
        if parameter.default is inspect.Parameter.empty and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]


def name_of(value: Any) -> str:
    """A name for people: the text itself, or what a function is called, be it in a file or in Python."""
    if isinstance(value, str):
        return value.rpartition(":")[2] if ".py:" in value else value
    return getattr(value, "__name__", type(value).__name__)


def source_digest(function: Any) -> str:
    """A digest of the file that a function or class stands in, or of its own lines where that is no file."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    try:
        text = Path(inspect.getsourcefile(function) or "").read_bytes()
    except (OSError, TypeError):
        try:
            text = inspect.getsource(function).encode()
        except (OSError, TypeError):
            text = repr(function).encode()
    return hashlib.sha256(text).hexdigest()[:16]


def canonical(value: Any) -> str:
    """A text that is equal for equal settings; functions stand in it by name and source."""

    def plain(each: Any) -> Any:
        if callable(each):
            return f"{name_of(each)} {source_digest(each)}"
        raise TypeError(f"a {type(each).__name__} among settings")

    return json.dumps(value, sort_keys=True, default=plain)


def digest(value: Any) -> str:
    """A digest of settings."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:20]


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"))


def _fields(kind: Any) -> tuple[str, ...]:
    return getattr(kind, "_fields", None) or tuple(field.name for field in dataclasses.fields(kind))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_array(value: Any) -> bool:
    """Whether it is a number, or numbers in lists of one length."""
    if not all(map(_is_number, _flat(value))):
        return False
    try:
        np.asarray(value, float)
    except ValueError:
        return False
    return True


def _flat(value: Any) -> list[Any]:
    return [inner for each in value for inner in _flat(each)] if isinstance(value, list) else [value]


def _spread(value: np.ndarray, shape: tuple[int, ...], name: str) -> Any:
    """A number in the place of a scalar, a vector or the diagonal of a matrix; an array of the right shape as it is."""
    if value.ndim == 0:
        return float(value) if not shape else value * np.eye(*shape) if len(shape) == 2 else np.full(shape, value)
    if value.shape != shape:
        raise InputError(f"{name} of shape {value.shape}", f"a number, or shape {shape}", "change it in the file")
    return value
