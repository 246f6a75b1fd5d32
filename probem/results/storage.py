"""Fits on disk: one NPZ file of arrays and one line of JSON in it. Nothing is unpickled or evaluated."""

import contextlib
import dataclasses
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probem import families
from probem.analysis.routes import make_plan
from probem.e_step.bound import Bound
from probem.errors import InputError
from probem.families.assignments import AssignmentFamily
from probem.families.corners import Families
from probem.families.parameters import ParameterFamily
from probem.form.statistics import DataTotals
from probem.jit.precision import precision
from probem.program.reading import read
from probem.program.sites import Params, RowSpec
from probem.results.history import History
from probem.results.moves import Moves
from probem.results.record import FitRecord
from probem.solver.result import Result

_FORMAT = 3
_FAMILIES = {
    name: cls
    for name, cls in vars(families).items()
    if isinstance(cls, type) and issubclass(cls, families.AssignmentFamily) and cls is not families.AssignmentFamily
}

#: The family of every site with a prior, by name.
ParameterFamilies = tuple[tuple[str, ParameterFamily], ...]


def arrays_of(fit: FitRecord, *, with_families: bool = True) -> dict[str, Any]:
    """The fit but for its program, as named arrays and one line of JSON; families by name and numbers, or left out.

    Raises
    ------
    InputError
        For data that arrays cannot describe, and families that JSON cannot.
    """
    by_name: dict[str, Any] = {}
    if with_families:
        parameters = fit.plan.families.parameters if fit.plan else ()
        by_name = {"family": _named(fit.family), "families": {name: _named(family) for name, family in parameters}}
    meta = by_name | {
        "format": _FORMAT,
        "result": fit.result.name if fit.result else None,
        "num_steps": fit.num_steps,
        "component": fit.component,
        "total_weight": fit.total_weight,
        "num_batches": fit.num_batches,
        "conjugate": [name for name, q in fit.variational.items() if isinstance(q, dict)],
        "fixed": {name: np.frombuffer(mask, bool).tolist() for name, mask in fit.plan.fixed} if fit.plan else {},
        "modes": fit.plan.families.modes if fit.plan else True,
        "predictors": fit.plan.families.predictors if fit.plan else True,
        "partial": fit.plan.form.gaps if fit.plan else False,
        "settled": fit.settled,
        "promised": fit.promised,
        "twins": [list(pair) for pair in fit.twins],
        "moves": fit.moves.to_lists(),
        "spec": _describe(fit.plan.program.spec) if fit.plan else None,
    }
    arrays: dict[str, Any] = {f"params/{name}": np.asarray(value) for name, value in fit.params.items()}
    arrays |= {
        f"q/{name}/{argument}": np.asarray(value)
        for name, q in fit.variational.items()
        if isinstance(q, dict)
        for argument, value in q.items()
    }
    arrays |= {f"history/{field.name}": getattr(fit.history, field.name) for field in dataclasses.fields(fit.history)}
    arrays |= {f"bound/{name}": np.asarray(value) for name, value in fit.bound._asdict().items()}
    arrays |= {
        "restart_elbos": fit.restart_elbos,
        "batch_elbo": np.asarray(fit.batch_elbo),
        "counts": fit.counts,
        "sums": fit.sums,
        "meta": np.array(json.dumps(meta)),
    }
    arrays |= {f"at_boundary/{name}": mask for name, mask in fit.at_boundary.items()}
    if fit.totals is not None:
        arrays |= {f"shifts/{name}": np.asarray(value) for name, value in fit.totals.shifts.items()}
        arrays |= {"log_base_measure": np.asarray(fit.totals.log_base_measure)}
        if fit.totals.added_variance is not None:
            arrays |= {"added_variance": np.asarray(fit.totals.added_variance)}
    return arrays


def save(fit: FitRecord, path: Path) -> None:
    """Write the fit, whole or not at all: to a file beside it first, then renamed."""
    arrays = arrays_of(fit)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    except OSError as error:
        raise InputError(
            f"{error.strerror!r} on writing to '{path.parent}'", "a folder to write to", "make it, or name another"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        # mkstemp makes files that only their owner can read.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _named(family: AssignmentFamily | ParameterFamily) -> list[Any]:
    """The name of a family, and its numbers."""
    kind = type(family).__name__
    return [kind, {name: _plain(value, f"{kind}.{name}") for name, value in vars(family).items()}]


def _plain(value: Any, where: str) -> Any:
    """A value as JSON has it: of NumPy's numbers Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) is tuple:
        return [_plain(entry, where) for entry in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise InputError(
        f"{where} of type {type(value).__name__}",
        "numbers, text, None, or tuples of them, in the family of a fit that is saved",
        "give the family such fields, or pickle the fit",
    )


def _fields(saved: dict[str, Any]) -> dict[str, Any]:
    """The fields of a family from JSON, which has lists for tuples."""

    def hashable(value: Any) -> Any:
        return tuple(map(hashable, value)) if isinstance(value, list) else value

    return {name: hashable(value) for name, value in saved.items()}


def _classes(of: type[ParameterFamily] = ParameterFamily) -> dict[str, type[ParameterFamily]]:
    """The parameter families by name, whoever wrote them; of two of one name the later."""
    classes: dict[str, type[ParameterFamily]] = {}
    for cls in of.__subclasses__():
        classes |= {cls.__name__: cls} | _classes(cls)
    return classes


def _parameters(meta: dict[str, Any], priors: list[str], where: str) -> ParameterFamilies:
    """The family of every site with a prior; older files say only which sites have the family ``Conjugate``."""
    classes = _classes()
    saved = meta.get("families", {name: ["Conjugate", {}] for name in meta["conjugate"]})
    for name, (kind, _) in saved.items():
        if kind not in classes:
            raise InputError(
                f"the family {kind} of '{name}' in {where}", f"one of {', '.join(classes)}", "import what defines it"
            )
    return tuple((name, classes[kind](**_fields(fields))) for name, (kind, fields) in saved.items() if name in priors)


def _describe(spec: RowSpec) -> Any:
    """The structure of the data arguments, with the row shape and dtype of every array, as JSON has it."""

    def describe(node: Any) -> Any:
        if isinstance(node, jax.ShapeDtypeStruct):
            return {"array": [list(node.shape[1:]), str(node.dtype)]}
        if type(node) is dict and all(isinstance(key, str) for key in node):
            return {"dict": {key: describe(value) for key, value in node.items()}}
        if type(node) in (list, tuple):
            return {type(node).__name__: [describe(value) for value in node]}
        if node is None:
            return {"none": None}
        raise InputError(
            f"data in a {type(node).__name__}",
            "arrays, or dicts with text keys, lists and tuples of them, in a fit that is saved",
            "pass the data so to fit, or save its params with numpy.savez",
        )

    return describe(spec.abstract(1))


def _build(described: Any) -> Any:
    """Data of that structure, two rows of zeros."""
    ((kind, content),) = described.items()
    if kind == "array":
        shape, dtype = content
        return np.zeros((2, *shape), dtype)
    if kind == "dict":
        return {key: _build(value) for key, value in content.items()}
    return None if kind == "none" else {"list": list, "tuple": tuple}[kind](map(_build, content))


def read_record(path: str | Path, program: Callable[..., Any] | None, family: AssignmentFamily | None) -> FitRecord:
    """The record of a fit in an NPZ file; see ``load``."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"a path of type {type(path).__name__}", "the path of a saved fit", "pass what fit.save took")
    path = Path(path)
    try:
        # Opened here: NumPy leaves a broken archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        meta = json.loads(str(arrays["meta"]))
        if meta["format"] != _FORMAT:
            raise InputError(f"format {meta['format']} in '{path}'", f"format {_FORMAT}", "save the fit again")
        name, fields = meta["family"]
        if family is None and name not in _FAMILIES:
            names = ", ".join(_FAMILIES)
            raise InputError(f"the family {name} in '{path}'", f"one of {names}", "pass it: load(path, family=...)")
        family = _FAMILIES[name](**_fields(fields)) if family is None else family
    except FileNotFoundError:
        raise InputError(f"no file at '{path}'", "a saved fit", "check the path") from None
    except InputError:
        raise
    except (OSError, EOFError, TypeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"'{path}', which is not a saved fit ({type(error).__name__})", "a file of Fit.save", "save again"
        ) from error
    return _built(arrays, meta, f"'{path}'", program, family)


def precision_of(arrays: dict[str, np.ndarray]) -> contextlib.AbstractContextManager[None]:
    """A context in which JAX has the precision of the parameters that ``arrays_of`` made."""
    wide = any(value.dtype == np.float64 for name, value in arrays.items() if name.startswith("params/"))
    return precision(np.float64 if wide else np.float32)


def unpickled(
    arrays: dict[str, np.ndarray],
    program: Callable[..., Any] | None,
    family: AssignmentFamily,
    parameters: ParameterFamilies | None = None,
) -> FitRecord:
    """A fit from what ``arrays_of`` made of it, in the precision in which it was made; older pickles have the families
    of parameters by name.
    """
    with precision_of(arrays):
        return _built(arrays, json.loads(str(arrays["meta"])), "a pickle", program, family, parameters)


def _built(
    arrays: dict[str, np.ndarray],
    meta: dict[str, Any],
    where: str,
    program: Callable[..., Any] | None,
    family: AssignmentFamily,
    parameters: ParameterFamilies | None = None,
) -> FitRecord:
    def group(prefix: str) -> dict[str, np.ndarray]:
        return {
            name.removeprefix(prefix + "/"): value for name, value in arrays.items() if name.startswith(prefix + "/")
        }

    params = {name: jnp.asarray(value) for name, value in group("params").items()}
    variational: Params = dict(params)
    for name in meta["conjugate"]:
        q = group(f"q/{name}")
        # A site 'loc/tau' is none of the arguments of 'loc'.
        variational[name] = {argument: jnp.asarray(value) for argument, value in q.items() if "/" not in argument}
    plan = totals = None
    if program is not None:
        if meta["spec"] is None:
            raise InputError(f"{where}, saved without the shapes of its data", "a fit with its program", "fit it again")
        reading = read(program, _build(meta["spec"]))
        priors = [site.name for site in reading.globals if site.has_prior]
        unknown = [name for name in meta["conjugate"] if name not in priors]
        if unknown:
            raise InputError(
                f"a program without a prior on '{unknown[0]}'",
                f"that of {where}",
                "pass the program it was fitted with",
            )
        # Files from before there were such things have neither.
        fixed = tuple((name, np.array(mask, bool).tobytes()) for name, mask in meta.get("fixed", {}).items())
        parameters = _parameters(meta, priors, where) if parameters is None else parameters
        chosen = Families(family, parameters, meta.get("modes", True), fixed, meta.get("predictors", False))
        plan = make_plan(reading, chosen, gaps=bool(meta.get("partial", False)))
        expected = {site.name: site.shape for site in plan.program.globals}
        if {name: value.shape for name, value in params.items()} != expected:
            raise InputError(
                f"a program with parameters {expected}", f"those of {where}", "pass the program it was fitted with"
            )
        shifts = {name: jnp.asarray(value) for name, value in group("shifts").items()}
        base = jnp.asarray(arrays["log_base_measure"], plan.dtype)
        nothing = jnp.zeros(plan.form.num_columns, plan.dtype)
        variance = jnp.asarray(arrays["added_variance"]) if "added_variance" in arrays else None
        totals = DataTotals(shifts, nothing, base, jnp.asarray(meta["total_weight"], plan.dtype), variance)
    return FitRecord(
        params=params,
        variational=variational,
        bound=Bound(**{name: float(value) for name, value in group("bound").items()}),
        result=Result[meta["result"]] if meta["result"] else None,
        num_steps=meta["num_steps"],
        # Files from before there were accelerations say nothing of them.
        history=History(**{"accelerated": np.zeros_like(arrays["history/moved"]), **group("history")}),
        restart_elbos=arrays["restart_elbos"],
        counts=arrays["counts"],
        sums=arrays["sums"],
        total_weight=meta["total_weight"],
        component=meta["component"],
        family=family,
        plan=plan,
        totals=totals,
        program=program,
        # Files from before there were streams have neither.
        num_batches=meta.get("num_batches", 1),
        batch_elbo=float(arrays.get("batch_elbo", math.nan)),
        settled=meta.get("settled", False),
        promised=meta.get("promised", math.nan),
        at_boundary=group("at_boundary"),
        twins=tuple((first, second) for first, second in meta.get("twins", ())),
        moves=Moves.from_lists(meta.get("moves", ())),
    )
