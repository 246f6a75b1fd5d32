"""The cells of a sweep: one for every combination of values in its grids, and what each of them resolves to."""

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from probem import __version__
from probem.errors import InputError, nearest
from probem.runs.config import Complaint, Key, path_of, put

from . import data, measures
from .resolution import Refused, Resolver, digest, name_of, signature_of, source_digest
from .settings import SECTIONS, Experiment, FitSettings


@dataclasses.dataclass(frozen=True)
class Cell:
    """One setting of the grid.

    Attributes
    ----------
    settings : its sections, each a mapping with a name
    axes : the value of every path that some grid varies, None where the cell has none
    key : a digest of all that its numbers depend on, but for the seed
    structure : what cells share that are compiled once, to the best of what settings say
    """

    settings: Mapping[str, Any]
    axes: Mapping[str, Any]
    key: str
    structure: str


def paths(experiment: Experiment) -> tuple[str, ...]:
    """Every path that some grid varies."""
    return tuple(dict.fromkeys(path for grid in experiment.grids for path in grid))


def settings_of(experiment: Experiment) -> list[tuple[dict[str, Any], Mapping[str, int]]]:
    """The sections of every cell, each once, and the place of its values in a grid (by ``grid`` key and path)."""
    cells: dict[str, tuple[dict[str, Any], Mapping[str, int]]] = {}
    for grid in experiment.grids:
        axes = {path: _alike(values) for path, values in grid.items()}
        for places in itertools.product(*(range(len(values)) for values in axes.values())):
            values = {name: _section(name, getattr(experiment, name)) for name in SECTIONS}
            # A whole section before a part of it.
            for path, place in sorted(zip(axes, places, strict=True), key=lambda pair: pair[0].count(".")):
                value = copy.deepcopy(axes[path][place])
                if path in SECTIONS:
                    values[path] = _section(path, value)
                else:
                    put(values, tuple(path.split(".")), value)
            cells.setdefault(digest(values), (values, dict(zip(axes, places, strict=True))))
    return list(cells.values())


def complaints_about(experiment: Experiment, folder: Path) -> Iterator[Complaint]:
    """What is wrong with an experiment though its form is right, once each, at the key that says it."""
    said: set[Complaint] = set()
    for complaint in _complaints(experiment, folder):
        if complaint not in said:
            said.add(complaint)
            yield complaint


def _complaints(experiment: Experiment, folder: Path) -> Iterator[Complaint]:
    several = isinstance(experiment.grid, list)
    wrong = False
    for number, grid in enumerate(experiment.grids):
        for path in grid:
            if path.split(".")[0] not in SECTIONS:
                key = ("grid", number, path) if several else ("grid", path)
                remedy = nearest(path.split(".")[0], SECTIONS)
                yield Complaint(key, "an unknown path", f"one that begins with {', '.join(SECTIONS)}", remedy)
                wrong = True
    names = measures.complaints(experiment.measure, folder)
    yield from names
    columns = [*paths(experiment), "seed"]
    for number, figure in enumerate(experiment.figures):
        for what in ("x", "colour", "panels"):
            value = getattr(figure, what)
            if value is not None and value not in columns:
                key = ("figures", number, what)
                yield Complaint(key, f"'{value}'", f"one of {', '.join(columns)}", nearest(value, columns))
        values = measures.names(experiment.measure)
        for place, value in enumerate(figure.y):
            if value.partition(".")[0] not in values:
                key = ("figures", number, "y", place)
                yield Complaint(key, f"'{value}'", f"a measure ({', '.join(values)})", nearest(value, values))
    if wrong:
        return
    seen: set[str] = set()
    for values, places in settings_of(experiment):
        for name in SECTIONS:
            if (mark := digest([name, values[name]])) in seen:
                continue
            seen.add(mark)
            resolver = Resolver(folder)
            try:
                _resolve(resolver, name, values[name])
            except Refused:
                pass
            for complaint in resolver.complaints:
                yield dataclasses.replace(complaint, key=_place(experiment, complaint.key, places))


def _place(experiment: Experiment, key: Key, places: Mapping[str, int]) -> Key:
    """The key in the file: that of a value in a grid, where one set it."""
    for length in range(len(key), 0, -1):
        path = path_of(key[:length])
        if path in places:
            several = isinstance(experiment.grid, list)
            grid = next(n for n, each in enumerate(experiment.grids) if path in each)
            return ("grid", grid, path, places[path]) if several else ("grid", path, places[path])
    written = getattr(experiment, str(key[0]))
    # A name alone has no key of its own.
    return key[:1] if not isinstance(written, Mapping) and key[1:] in ((), ("name",)) else key


def _resolve(resolver: Resolver, name: str, section: Mapping[str, Any]) -> Any:
    if name == "program":
        return resolver.program(section)
    if name == "families":
        return resolver.families(section)
    return data.source_of(section, resolver) if name == "data" else resolver.options(section)


def cells_of(experiment: Experiment, folder: Path) -> list[Cell]:
    """The cells of an experiment in an order in which those with one structure are neighbours."""
    varied = paths(experiment)
    shapes: dict[str, Any] = {}
    fingerprints: dict[str, str] = {}
    measured = measures.fingerprint(experiment.measure, folder)
    cells = []
    for values, _ in settings_of(experiment):
        resolver = Resolver(folder)
        program, source = resolver.program(values["program"]), data.source_of(values["data"], resolver)
        families = resolver.families(values["families"])
        mark = digest(values["data"])
        if mark not in shapes:
            shapes[mark] = source.shape(experiment.each_seed[0])
            fingerprints[mark] = source.fingerprint()
        sources = [
            source_digest(each)
            for each in (program.function, *(value for value in program.arguments.values() if callable(value)))
        ]
        kinds = [source_digest(type(each)) for each in _families_in(families)]
        key = digest([__version__, values, sources, fingerprints[mark], kinds, measured])
        fit = {name: value for name, value in values["fit"].items() if name in ("restarts", "init")}
        structure = digest(
            [_kinds(values["program"]), _kinds(values["families"]), fit, shapes[mark], program.depends_on_rows]
        )
        axes = {path: _at(values, path) for path in varied}
        cells.append(Cell(values, axes, key, structure))
    order = list(dict.fromkeys(cell.structure for cell in cells))
    return sorted(cells, key=lambda cell: order.index(cell.structure))


def row_key(cell: Cell, seed: int) -> str:
    """The key of a cell's result for a seed."""
    return digest([cell.key, seed])


def label(value: Any) -> Any:
    """A value of an axis as one entry of a table: numbers and texts as they are, a mapping in one line."""
    if isinstance(value, Mapping):
        inner = [f"{name}={label(each)}" for name, each in value.items() if name != "name"]
        name = name_of(value["name"]) if "name" in value else ""
        return f"{name}({', '.join(inner)})" if inner and name else name or ", ".join(inner)
    if isinstance(value, list):
        return "[" + ", ".join(str(label(each)) for each in value) + "]"
    return value if value is None or isinstance(value, str | int | float) else name_of(value)


def resolve_set(experiment: Mapping[str, Any], text: str, folder: Path) -> tuple[tuple[str, ...], list[Any]]:
    """The path and the values of ``--set path=value,value``; a path may leave out its section where one alone takes it.

    Raises
    ------
    InputError : the text has another form, or no section takes the path, or several do
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path, sign, written = text.partition("=")
    if not sign or not path or not written.strip():
        raise InputError(f"--set {text}", "path=value or path=value,value", "write it so")
    try:
        values = YAML(typ="safe", pure=True).load(f"[{written}]")
    except YAMLError:
        raise InputError(f"--set {text}", "values as in a YAML list", "quote what has a comma or a colon") from None
    key = tuple(path.strip().split("."))
    if key[0] in (*SECTIONS, "seeds"):
        return key, values
    taking = [section for section in SECTIONS if key[0] in _taken(experiment, section, folder)]
    if len(taking) != 1:
        known = sorted({f"{section}.{name}" for section in SECTIONS for name in _taken(experiment, section, folder)})
        remedy = f"write {' or '.join(f'{each}.{path}' for each in taking)}" if taking else nearest(path, known)
        raise InputError(f"the path {path} in --set", "one that a section of the experiment takes", remedy)
    return (taking[0], *key), values


def _taken(experiment: Mapping[str, Any], section: str, folder: Path) -> list[str]:
    """The names that may follow a section in a path."""
    written = _section(section, experiment.get(section, {}))
    if section == "fit":
        return list(FitSettings.model_fields)
    if section == "families":
        return [name for name in written if name != "name"]
    resolver = Resolver(folder)
    try:
        if section == "data":
            return data.taken(written.get("name"), resolver)
        return list(signature_of(resolver.program_named(written.get("name"))))
    except Refused:
        return []


def _section(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return copy.deepcopy(dict(value))
    return {"name": value}


def _alike(values: list[Any]) -> list[Any]:
    """Numbers of which one is no whole number, as floats: all share what is compiled for one."""
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return [float(value) for value in values] if plain and any(isinstance(value, float) for value in values) else values


def _at(values: Mapping[str, Any], path: str) -> Any:
    value: Any = values
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    # A section, or a family, that has a name alone.
    return label(value)


def _kinds(value: Any) -> Any:
    """Settings with every float replaced by its kind: what is an argument of the compiled code."""
    if isinstance(value, Mapping):
        return {name: _kinds(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_kinds(each) for each in value]
    return "float" if isinstance(value, float) else value


def _families_in(families: Any) -> list[Any]:
    if isinstance(families, Mapping):
        return list(families.values())
    return [families.assignments, families.parameters, *(family for _, family in families.others)]
