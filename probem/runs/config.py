"""Configuration files: YAML, checked strictly, every fault reported at once with its place in the file.

A settings class says what a file may hold::

    class Settings(probem.runs.config.StrictModel):
        seed: Annotated[int, Field(ge=0)]

and ``read(path, Settings)`` returns it or raises one ``ConfigError`` that lists all faults. What a class cannot say,
such as which arguments a function takes that the file names, is said by a function that yields ``Complaint``s.
"""

import dataclasses
import reprlib
import typing
from collections.abc import Callable, Iterable, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import pydantic_core
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from probem.errors import InputError, nearest

Key = tuple[str | int, ...]
S = TypeVar("S", bound="StrictModel")


class StrictModel(pydantic.BaseModel):
    """The base of every settings class: no coercion of types, no unknown keys, no change after reading."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing wrong with a configuration: where it stands, what is there and what should be."""

    file: str
    line: int
    key: str
    got: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        place += f"{self.key}: " if self.key else ""
        return f"{place}got {self.got}; expected {self.expected}; {self.remedy}."


@dataclasses.dataclass(frozen=True)
class Complaint:
    """A thing wrong with settings that their class allows, at a key; the file and the line are found by the key.

    ``is_unknown`` says that it is the key itself.
    """

    key: Key
    got: str
    expected: str
    remedy: str
    is_unknown: bool = False

    @classmethod
    def unknown(cls, key: Key, names: Iterable[str]) -> "Complaint":
        """About a key that is none of these names."""
        names = tuple(names)
        expected = f"one of {', '.join(names)}" if names else "no arguments"
        return cls(key, "an unknown key", expected, nearest(str(key[-1]), names), is_unknown=True)


class ConfigError(InputError):
    """A configuration that cannot be used; ``faults`` holds all that is wrong with it, in the order of the file."""

    def __init__(self, faults: Iterable[Fault]):
        self.faults = tuple(sorted(faults, key=lambda fault: fault.line))
        ValueError.__init__(self, "\n".join(map(str, self.faults)))


def one_of(names: Iterable[str]) -> pydantic.AfterValidator:
    """A text that must be one of ``names``; any other is reported with the nearest."""
    allowed = tuple(names)

    def check(value: str) -> str:
        if value not in allowed:
            raise pydantic_core.PydanticCustomError("one_of", "one of {names}", {"names": ", ".join(allowed)})
        return value

    return pydantic.AfterValidator(check)


def read(path: Path | Traversable, settings: type[S]) -> S:
    """The settings in a YAML file.

    Raises
    ------
    ConfigError : the file is missing, empty, not YAML, or says something that ``settings`` does not allow
    """
    return settings_in(Document.read(path), settings)


def settings_in(
    document: "Document", settings: type[S], complaints: Callable[[S], Iterable[Complaint]] = lambda _: ()
) -> S:
    """The settings in a document, once ``complaints`` has none about them.

    Raises
    ------
    ConfigError : the document says something that ``settings`` does not allow, or there are complaints
    """
    faults = list(document.faults)
    try:
        result = settings.model_validate(document.value)
    except pydantic.ValidationError as error:
        faults += _joined([_fault(document, settings, detail) for detail in error.errors(include_url=False)])
        raise ConfigError(faults) from None
    for complaint in complaints(result):
        line = document.line_of(complaint.key)
        faults.append(
            Fault(document.file, line, path_of(complaint.key), complaint.got, complaint.expected, complaint.remedy)
        )
    if faults:
        raise ConfigError(faults)
    return result


def _text(path: Path | Traversable, file: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"bytes in {file} that are not UTF-8", "a YAML text file", "save it as UTF-8") from None
    except OSError as error:
        reasons = {FileNotFoundError: "no file at", IsADirectoryError: "a folder at"}
        reason = reasons.get(type(error), f"{error.strerror!r} on reading")
        raise InputError(f"{reason} {file}", "a readable YAML file", "check the path") from None


class Document:
    """A YAML text as plain values, with the line of every key; a repeated key is already a fault.

    Attributes
    ----------
    file : what the values come from, for messages
    value : the values
    lines : the line of every key, 0 for one that stands in no file
    faults : what is wrong with the text
    """

    def __init__(self, file: str, value: Any):
        self.file = file
        self.value = value
        self.faults: list[Fault] = []
        self.lines: dict[Key, int] = {}
        self._set_lines((), value, 0)

    @classmethod
    def read(cls, path: Path | Traversable) -> "Document":
        """The document in a file.

        Raises
        ------
        InputError : the file is missing, empty or not YAML
        """
        file = str(path)
        document = cls(file, None)
        document._parse(file, _text(path, file))
        return document

    def put(self, key: tuple[str, ...], value: Any) -> None:
        """Set the value at a key, which takes the place of what is there."""
        if isinstance(self.value, dict):
            put(self.value, key, value)
            for number in range(1, len(key)):
                self.lines.setdefault(key[:number], 0)
            self._set_lines(key, value, 0)

    def line_of(self, key: Key) -> int:
        """The line of a key, or of the nearest key above it that stands in the file."""
        return next(self.lines[key[:n]] for n in range(len(key), -1, -1) if key[:n] in self.lines)

    def _set_lines(self, key: Key, value: Any, line: int) -> None:
        self.lines[key] = line
        inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        for name, child in inner:
            self._set_lines((*key, name), child, line)

    def _parse(self, file: str, text: str) -> None:
        self._yaml = YAML(typ="safe", pure=True)
        self._yaml.max_depth = 100
        expected = "a YAML mapping of settings"
        try:
            for event in self._yaml.parse(text):
                # A few lines of aliases can stand for gigabytes.
                if isinstance(event, AliasEvent):
                    raise MarkedYAMLError(problem="found an alias (*name)", problem_mark=event.start_mark)
            root = self._yaml.compose(text)
            self.value = root and self._read(root, (), root.start_mark.line)
        except MarkedYAMLError as error:
            mark, problem = error.problem_mark or error.context_mark, error.problem or error.context
            place = f"{file}:{mark.line + 1}:{mark.column + 1}"
            raise InputError(f"broken YAML at {place} ({problem})", expected, "mend that line") from None
        except (YAMLError, ValueError) as error:
            problem = str(error).splitlines()[0]
            raise InputError(f"broken YAML in {file} ({problem})", expected, "mend the file") from None
        if root is None:
            raise InputError(f"nothing in {file}", expected, "write some settings, or name another file")

    def _read(self, node: Node, key: Key, line: int) -> Any:
        self.lines[key] = line + 1
        if isinstance(node, SequenceNode):
            return [self._read(child, (*key, index), child.start_mark.line) for index, child in enumerate(node.value)]
        if not isinstance(node, MappingNode):
            return self._yaml.constructor.construct_object(node)
        values: dict[str, Any] = {}
        for name, child in node.value:
            line = name.start_mark.line
            if not isinstance(name, ScalarNode):
                kind = "a list or mapping as a key"
                self.faults.append(Fault(self.file, line + 1, path_of(key), kind, "a name", "write a name"))
            elif (inner := (*key, name.value)) in self.lines:
                kind = f"this key a second time (first on line {self.lines[inner]})"
                self.faults.append(Fault(self.file, line + 1, path_of(inner), kind, "each key once", "keep one"))
            else:
                values[name.value] = self._read(child, inner, line)
        return values


def put(values: dict[str, Any], key: tuple[str, ...], value: Any) -> None:
    """Set the value at a key of nested mappings; a text on the way to it is the ``name`` of a mapping."""
    for part in key[:-1]:
        inner = values.get(part)
        values[part] = {"name": inner} if isinstance(inner, str) else inner if isinstance(inner, dict) else {}
        values = values[part]
    values[key[-1]] = value


def path_of(key: Key) -> str:
    """``("runs", 0, "seed")`` as ``runs[0].seed``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _joined(faults: list[Fault]) -> list[Fault]:
    """One fault for each value, which may be wrong for every kind that is allowed."""
    joined: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        place = fault.key, fault.got
        if place in joined and fault.expected not in joined[place].expected:
            fault = dataclasses.replace(joined[place], expected=f"{joined[place].expected}, or {fault.expected}")
        joined[place] = fault
    return list(joined.values())


# What YAML calls the types of Python.
_KINDS = {
    "model_type": "a mapping of settings",
    "dict_type": "a mapping of names to values",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
}


def _fault(document: Document, settings: type[StrictModel], detail: Any) -> Fault:
    kind, place = detail["type"], detail["loc"]
    # pydantic appends the branch of a union to the place; the file knows nothing of it.
    key: Key = next(place[:n] for n in range(len(place), -1, -1) if place[:n] in document.lines)
    line = document.lines[key]
    given, expected = described(detail["input"]), detail["msg"].removeprefix("Input should be ")
    remedy = "change the value"
    if kind == "missing":
        key, given, expected, remedy = place, "nothing", "a value", "add this key"
    elif kind == "extra_forbidden":
        names = _names_at(settings, place[:-1])
        given, expected, remedy = "an unknown key", f"one of {', '.join(names)}", nearest(str(place[-1]), names)
    elif kind == "one_of":
        remedy = nearest(detail["input"], detail["ctx"]["names"].split(", "))
    elif kind in _KINDS:
        expected = _KINDS[kind]
    if kind != "missing" and detail["input"] is None:
        remedy = "give it a value, or leave the key out"
    return Fault(document.file, line, path_of(key), given, expected, remedy)


def described(value: Any) -> str:
    """A value as a reader of YAML would call it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"{str(value).lower()} (true or false)"
    words = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "a mapping"}
    return f"{reprlib.repr(value)} ({words.get(type(value), type(value).__name__)})"


def _names_at(settings: type[StrictModel], place: Key) -> tuple[str, ...]:
    """The keys that the settings class at this place knows."""
    for part in place:
        if part in settings.model_fields:
            settings = next(iter(_settings_in(settings.model_fields[str(part)].annotation)), settings)
    return tuple(settings.model_fields)


def _settings_in(annotation: Any) -> list[type[StrictModel]]:
    """The settings classes inside an annotation such as ``list[Run]`` or ``Run | None``."""
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        return [annotation]
    return [settings for argument in typing.get_args(annotation) for settings in _settings_in(argument)]
