"""Configuration files: YAML, checked strictly, every fault reported at once with its place in the file.

A settings class says what a file may hold::

    class Settings(probem.config.Settings):
        seed: Annotated[int, Field(ge=0)]

and ``read(path, Settings)`` returns it or raises one ``ConfigError`` that lists all faults.
"""

import dataclasses
import re
import reprlib
import typing
from collections.abc import Iterable, Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import pydantic_core
import yaml

from .errors import InputError, nearest

Key = tuple[str | int, ...]
S = TypeVar("S", bound="Settings")


class Settings(pydantic.BaseModel):
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
        place = f"{self.file}:{self.line}: {self.key}: " if self.key else f"{self.file}:{self.line}: "
        return f"{place}got {self.got}; expected {self.expected}; {self.remedy}."


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
    file = str(path)
    document = _Document(file, _text(path, file))
    faults = list(document.faults)
    try:
        result = settings.model_validate(document.value)
    except pydantic.ValidationError as error:
        faults += [_fault(document, settings, detail) for detail in error.errors(include_url=False)]
        raise ConfigError(faults) from None
    if faults:
        raise ConfigError(faults)
    return result


def _text(path: Path | Traversable, file: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no file at {file}", "a YAML file", "check the path") from None
    except IsADirectoryError:
        raise InputError(f"a folder at {file}", "a YAML file", "name a file inside it") from None
    except UnicodeDecodeError:
        raise InputError(f"bytes in {file} that are not UTF-8", "a YAML text file", "save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{error.strerror!r} on reading {file}", "a readable YAML file", "check the file") from None


class _Loader(yaml.SafeLoader):
    """Safe YAML, without aliases (a few lines of them can stand for gigabytes) and with ``1e-9`` read as a number."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="found an alias (*name)", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)


# YAML 1.1, which PyYAML follows, takes 1e-9 for text because it has no decimal point.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


_EXPECTED = "a YAML mapping of settings"


class _Document:
    """A YAML text as plain values, with the line of every key; repeated and unusable keys are already faults."""

    def __init__(self, file: str, text: str):
        self.file = file
        self.faults: list[Fault] = []
        self.lines: dict[Key, int] = {(): 1}
        try:
            self._loader = _Loader(text)
            root = self._loader.get_single_node()
            if root is None:
                raise InputError(f"nothing in {file}", _EXPECTED, "write some settings, or name another file")
            self.value = self._read(root, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
            problem = " ".join(str(error.problem).split())
            raise InputError(f"broken YAML at {place} ({problem})", _EXPECTED, "mend that line") from None
        except yaml.YAMLError as error:
            problem = str(error).splitlines()[0]
            raise InputError(f"broken YAML in {file} ({problem})", _EXPECTED, "mend the file") from None

    def _read(self, node: yaml.Node, key: Key) -> Any:
        self.lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(child, (*key, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(node, key)
        return self._loader.construct_object(node)

    def _read_mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name_node, child in node.value:
            line = name_node.start_mark.line + 1
            if not isinstance(name_node, yaml.ScalarNode):
                got = "a list or mapping as a key"
                self.faults.append(Fault(self.file, line, path_of(key), got, "a name", "write a name"))
                continue
            name = name_node.value
            if name in values:
                first = self.lines[(*key, name)]
                got = f"this key a second time (first on line {first})"
                self.faults.append(Fault(self.file, line, path_of((*key, name)), got, "each key once", "keep one"))
                continue
            self.lines[(*key, name)] = line
            values[name] = self._read(child, (*key, name))
        return values

    def line_of(self, key: Key) -> int:
        """The line of a key, or of the mapping that lacks it."""
        while key not in self.lines:
            key = key[:-1]
        return self.lines[key]


def path_of(key: Key) -> str:
    """``("runs", 0, "seed")`` as ``runs[0].seed``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _fault(document: _Document, settings: type[Settings], detail: Any) -> Fault:
    kind, place = detail["type"], detail["loc"]
    # pydantic appends the branch of a union to the place; the file knows nothing of it.
    key: Key = next(place[:n] for n in range(len(place), -1, -1) if place[:n] in document.lines)
    got, expected = _described(detail["input"]), detail["msg"].removeprefix("Input should be ")
    remedy = "change the value"
    if kind == "missing":
        key, got, expected, remedy = place, "nothing", "a value", "add this key"
    elif kind == "extra_forbidden":
        names = _names_at(settings, place[:-1])
        got, expected, remedy = "an unknown key", f"one of {', '.join(names)}", nearest(str(place[-1]), names)
    elif kind == "one_of":
        remedy = nearest(detail["input"], detail["ctx"]["names"].split(", "))
    elif kind == "model_type":
        expected = "a mapping of settings"
    return Fault(document.file, document.line_of(key), path_of(key), got, expected, remedy)


def _described(value: Any) -> str:
    """A value as a reader of YAML would call it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"{str(value).lower()} (true or false)"
    words = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "a mapping"}
    return f"{reprlib.repr(value)} ({words.get(type(value), type(value).__name__)})"


def _names_at(settings: type[Settings], place: Key) -> tuple[str, ...]:
    """The keys that the settings class at this place knows."""
    for part in place:
        if isinstance(part, str) and part in settings.model_fields:
            settings = next(_settings_in(settings.model_fields[part].annotation), settings)
    return tuple(settings.model_fields)


def _settings_in(annotation: Any) -> Iterator[type[Settings]]:
    """The settings classes inside an annotation such as ``list[Run]`` or ``Run | None``."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _settings_in(argument)
