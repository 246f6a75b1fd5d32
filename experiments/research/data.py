"""The data of a cell: a built-in set, a file or a generator; held-out rows are split off by the seed."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probem.errors import InputError, nearest
from probem.experiments.claims.datasets import DATASETS
from probem.runs import tables
from probem.runs.config import Complaint, described

from .generators import GENERATORS, Drawn
from .resolution import Refused, Resolver, canonical, signature_of, source_digest

#: What may stand beside the name of any data.
COMMON = ("held_out", "standardise")
#: What may stand beside the name of a file.
OF_FILES = ("columns", "index", "labels")
_SUFFIXES = (".csv", ".parquet", ".npy")
# Rows of the built-in sets come in the order of their classes.
_CLASSES: dict[str, tuple[int, ...]] = {
    "iris": (50, 50, 50),
    "wine": (59, 71, 48),
    "blobs": (100, 100, 100, 100),
    "overlapping": (350, 200, 50),
    "one_dimensional": (200, 100),
}


@dataclasses.dataclass(frozen=True)
class Data:
    """What a fit and its measures are given.

    Attributes
    ----------
    rows : ``[N, D]``, those fitted
    labels : ``[N]``, the component or class that each came from, None where it is not known
    held_out : ``[M, D]``, those kept apart, None where there are none
    parameters : the true values, by the name of their site
    """

    rows: np.ndarray
    labels: np.ndarray | None
    held_out: np.ndarray | None
    parameters: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where data comes from: ``make(seed)`` is all of it, before anything is standardised or held out."""

    name: str
    make: Callable[[int], Drawn]
    depends_on_seed: bool
    held_out: float
    standardise: bool
    function: Any = None

    @property
    def differs_by_seed(self) -> bool:
        """Whether two seeds have different rows; if not, they are two starts."""
        return self.depends_on_seed or self.held_out > 0

    def draw(self, seed: int) -> Data:
        """The data of a seed."""
        drawn = self.make(seed)
        rows = np.asarray(drawn.rows, float)
        rows = rows[:, None] if rows.ndim == 1 else rows
        labels = None if drawn.labels is None else np.asarray(drawn.labels)
        parameters = {name: np.asarray(value, float) for name, value in (drawn.parameters or {}).items()}
        held_out, count = None, round(self.held_out * len(rows))
        if count:
            order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
            kept, apart = np.sort(order[count:]), np.sort(order[:count])
            rows, held_out, labels = rows[kept], rows[apart], None if labels is None else labels[kept]
        if self.standardise:
            # What is not seen says nothing of the units either, in which the true parameters are not.
            mean, spread = np.nanmean(rows, axis=0), np.nanstd(rows, axis=0)
            rows, parameters = (rows - mean) / spread, {}
            held_out = None if held_out is None else (held_out - mean) / spread
        return Data(rows, labels, held_out, parameters)

    def shape(self, seed: int) -> list[Any]:
        """The shapes of rows and held-out rows, and whether they are whole: what code is compiled for."""
        drawn = self.draw(seed)
        return [list(drawn.rows.shape), None if drawn.held_out is None else list(drawn.held_out.shape)]

    def fingerprint(self) -> str:
        """A digest of the generator's source, or of the rows where they are given."""
        if self.depends_on_seed:
            return source_digest(self.function)
        drawn = self.make(0)
        arrays = {"rows": np.asarray(drawn.rows, float)}
        arrays |= {} if drawn.labels is None else {"labels": np.asarray(drawn.labels)}
        arrays |= {f"true {name}": np.asarray(value, float) for name, value in (drawn.parameters or {}).items()}
        total = hashlib.sha256()
        for name, array in arrays.items():
            # The same bytes are other data in another shape, and labels of objects have none of their own.
            array = array.astype(str) if array.dtype.hasobject else array
            total.update(f"{name} {array.shape} {array.dtype.str} ".encode())
            total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()[:16]


def taken(name: Any, resolver: Resolver) -> list[str]:
    """What may stand beside a name of data."""
    if isinstance(name, str) and Path(name).suffix in _SUFFIXES:
        return [*COMMON, *OF_FILES]
    if isinstance(name, str) and name in DATASETS:
        return list(COMMON)
    return [*COMMON, *(each for each in signature_of(_generator(name, resolver)) if each != "seed")]


def source_of(section: Mapping[str, Any], resolver: Resolver) -> Source:
    """The source that a section names.

    Raises
    ------
    Refused : there is none; the resolver has the complaints
    """
    before = len(resolver.complaints)
    source = _source_of(section, resolver)
    if len(resolver.complaints) > before:
        raise Refused
    return source


def _source_of(section: Mapping[str, Any], resolver: Resolver) -> Source:
    name = section.get("name")
    common = _common(section, resolver)
    given = {key: value for key, value in section.items() if key not in ("name", *COMMON)}
    if isinstance(name, str) and Path(name).suffix in _SUFFIXES:
        _known(given, OF_FILES, resolver)
        given = {key: value for key, value in given.items() if key in OF_FILES}
        for key, value in given.items():
            texts = value if key == "columns" and isinstance(value, list) else [value]
            if not all(isinstance(text, str) for text in texts) or (key == "columns" and not isinstance(value, list)):
                expected = "a list of names" if key == "columns" else "the name of a column"
                resolver.complaints.append(Complaint(("data", key), described(value), expected, "change the value"))
                raise Refused
        path = resolver.folder / name
        try:
            _of_file(path, canonical(given), _written(path))
        except InputError as error:
            resolver.complain(("data", "name"), error)
            raise Refused from None
        return Source(name, lambda seed: _of_file(path, canonical(given), _written(path)), False, **common)
    if isinstance(name, str) and name in DATASETS:
        _known(given, (), resolver)
        return Source(name, lambda seed: _built_in(name), False, **common)
    function = _generator(name, resolver)
    seeded = "seed" in signature_of(function)
    arguments = resolver.arguments(function, given, ("data",), ["seed"])

    def make(seed: int) -> Drawn:
        value = function(**arguments, **({"seed": seed} if seeded else {}))
        return Drawn(*value) if isinstance(value, tuple) else Drawn(value)

    return Source(getattr(function, "__name__", str(name)), make, seeded, function=function, **common)


def _generator(name: Any, resolver: Resolver) -> Callable[..., Any]:
    def among(text: str) -> Callable[..., Any]:
        if text in GENERATORS:
            return GENERATORS[text]
        names = (*DATASETS, *GENERATORS)
        expected = f"one of {', '.join(names)}, a .csv, .parquet or .npy file, or path/to/file.py:function"
        raise InputError(f"the data '{text}'", expected, nearest(text, names))

    return resolver.function(name, ("data", "name"), among, "generator")


def _common(section: Mapping[str, Any], resolver: Resolver) -> dict[str, Any]:
    held_out, standardise = section.get("held_out", 0.0), section.get("standardise", False)
    is_share = isinstance(held_out, int | float) and not isinstance(held_out, bool) and 0 <= held_out < 1
    if not is_share:
        resolver.complaints.append(
            Complaint(("data", "held_out"), described(held_out), "a share of the rows in [0, 1)", "change the value")
        )
    if not isinstance(standardise, bool):
        resolver.complaints.append(
            Complaint(("data", "standardise"), described(standardise), "true or false", "change the value")
        )
    return {"held_out": float(held_out) if is_share else 0.0, "standardise": standardise is True}


def _known(given: Mapping[str, Any], names: tuple[str, ...], resolver: Resolver) -> None:
    allowed = (*COMMON, *names)
    resolver.complaints += [Complaint.unknown(("data", name), allowed) for name in given if name not in names]


@functools.lru_cache(maxsize=32)
def _built_in(name: str) -> Drawn:
    rows = DATASETS[name]().rows
    if name == "digits":
        from sklearn.datasets import load_digits

        return Drawn(rows, np.asarray(load_digits(return_X_y=True)[1]))
    sizes = _CLASSES.get(name)
    return Drawn(rows, None if sizes is None else np.repeat(np.arange(len(sizes)), sizes))


def _written(path: Path) -> tuple[int, int]:
    """When a file was written, nanoseconds, and its size: a file that was written again is read again."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0  # whoever reads it says what is wrong
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=32)
def _of_file(path: Path, options: str, written: tuple[int, int]) -> Drawn:
    del written
    import json

    given = json.loads(options)
    labels = given.pop("labels", None)
    if labels is None:
        return Drawn(tables.read(path, **given).rows)
    values = tables.read(path, [labels]).rows[:, 0]
    columns = given.get("columns") or tables.read(path, None, given.get("index")).columns
    chosen = [name for name in columns if name != labels]
    return Drawn(tables.read(path, chosen).rows, np.unique(values, return_inverse=True)[1])
