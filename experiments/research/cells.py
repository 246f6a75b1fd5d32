"""The cells of a sweep: one for every combination of values in its grids, and what each of them resolves to."""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from probem import __version__
from probem.errors import InputError, nearest
from probem.runs.config import Complaint, Key, described, path_of, put

from . import data, measures
from .resolution import Refused, Resolver, canonical, digest, name_of, required, signature_of, source_digest
from .settings import SECTIONS, Experiment, FitSettings

# Options of a fit whose values are compiled for.
_STRUCTURAL = ("restarts", "init", "acceleration")


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
        units = {name: unit for name in figure.y if (unit := measures.unit_of(name)) is not None}
        # Numbers without a unit are of as many kinds: a share, a count, an index.
        if len({unit or name for name, unit in units.items()}) > 1:
            got = " and ".join(f"{name} ({unit or 'without a unit'})" for name, unit in units.items())
            yield Complaint(("figures", number, "y"), got, "measures of one unit", "draw a figure for each unit")
    if wrong:
        return
    yield from _complaints_about_partners(experiment)
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
                yield dataclasses.replace(complaint, key=_place(experiment, complaint, places))


def _complaints_about_partners(experiment: Experiment) -> Iterator[Complaint]:
    """What is wrong with the values that figures compare others with."""
    varied = paths(experiment)
    for number, figure in enumerate(experiment.figures):
        for path, value in figure.against.items():
            key = ("figures", number, "against", path)
            if path not in varied:
                yield Complaint.unknown(key, varied)
                continue
            values = [_at(values, path) for values, _ in settings_of(experiment)]
            known = list(dict.fromkeys(map(_labels(values), values)))
            if known == [value]:
                yield Complaint(
                    key, f"{value}, which all cells have", "a value beside others", "add others to the grid"
                )
            if value not in known:
                words = [str(each) for each in known]
                yield Complaint(key, described(value), f"one of {', '.join(words)}", nearest(str(value), words))
        if figure.against and "y" in figure.log:
            got = "a logarithmic scale of differences"
            yield Complaint(("figures", number, "log"), got, "a scale for numbers of either sign", "leave y out of log")


def _place(experiment: Experiment, complaint: Complaint, places: Mapping[str, int]) -> Key:
    """The key in the file: that of a value in a grid, where one set it, or of all values of a path that is unknown."""
    key = complaint.key
    for length in range(len(key), 0, -1):
        path = path_of(key[:length])
        if path in places:
            several = isinstance(experiment.grid, list)
            grid = next(n for n, each in enumerate(experiment.grids) if path in each)
            place = ("grid", grid, path) if several else ("grid", path)
            return place if complaint.is_unknown and length == len(key) else (*place, places[path])
    written = getattr(experiment, str(key[0]))
    for length, part in enumerate(key[1:], start=1):
        # A name alone has no key of its own.
        if not isinstance(written, Mapping):
            return key[:length]
        written = written.get(part, {})
    return key


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
        families, acceleration = resolver.families(values["families"]), resolver.options(values["fit"]).acceleration
        mark = digest(values["data"])
        if mark not in shapes:
            shapes[mark], fingerprints[mark] = _look(source, experiment.each_seed[0])
        sources = [
            source_digest(each)
            for each in (program.function, *(value for value in program.arguments.values() if callable(value)))
        ]
        kinds = [source_digest(type(each)) for each in (*_families_in(families), acceleration) if each is not None]
        key = digest([__version__, values, sources, fingerprints[mark], kinds, measured])
        fit = {name: _kinds(value) for name, value in values["fit"].items() if name in _STRUCTURAL}
        structure = digest(
            [_kinds(values["program"]), _kinds(values["families"]), fit, shapes[mark], program.depends_on_rows]
        )
        cells.append(Cell(values, {path: _at(values, path) for path in varied}, key, structure))
    said = {path: _labels([cell.axes[path] for cell in cells]) for path in varied}
    cells = [
        dataclasses.replace(cell, axes={path: said[path](value) for path, value in cell.axes.items()}) for cell in cells
    ]
    order = list(dict.fromkeys(cell.structure for cell in cells))
    return sorted(cells, key=lambda cell: order.index(cell.structure))


def _look(source: data.Source, seed: int) -> tuple[Any, str]:
    """The shapes of data and its fingerprint; where it cannot be drawn, what was said, as its cells will say."""
    try:
        return source.shape(seed), source.fingerprint()
    except Exception as error:
        return f"{type(error).__name__}: {error}", source_digest(source.function)


def row_key(cell: Cell, seed: int) -> str:
    """The key of a cell's result for a seed."""
    return digest([cell.key, seed])


def _labels(values: Sequence[Any]) -> Callable[[Any], Any]:
    """Values of an axis as entries of a table: numbers and texts as they are, of a mapping its name.

    Where two mappings have one name, what they do not share is said as well.
    """
    mappings = {canonical(value): value for value in values if isinstance(value, Mapping)}
    names = [name_of(value.get("name", "")) for value in mappings.values()]
    shared = set.intersection(*(_items(value) for value in mappings.values())) if mappings else set()

    def label(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return _plain(value)
        name = name_of(value.get("name", ""))
        if name and names.count(name) == 1:
            return name
        inner = {key: each for key, each in value.items() if key != "name" and (key, canonical(each)) not in shared}
        # One argument says by its value which it is.
        said = str(_plain(next(iter(inner.values())))) if len(inner) == 1 else _listed(inner)
        return f"{name}({said})" if inner else name

    return label


def _items(value: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(key, canonical(each)) for key, each in value.items()}


def _listed(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_plain(each)}" for key, each in value.items())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return f"{name_of(value.get('name', ''))}({_listed({k: v for k, v in value.items() if k != 'name'})})"
    if isinstance(value, list):
        return "[" + ", ".join(str(_plain(each)) for each in value) + "]"
    return name_of(value) if isinstance(value, str) or callable(value) else value


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
        program = resolver.program_named(written.get("name"))
        return [name for name in signature_of(program) if name not in required(program)[:1]]
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
    value: Any = {**values, "fit": FitSettings().model_dump() | dict(values["fit"])}
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


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
