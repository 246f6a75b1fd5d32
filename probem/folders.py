"""Folders of results that appear whole or not at all."""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import InputError

# Every folder of results holds this file, with the version of probem in it: what lacks it is somebody's own.
ENVIRONMENT = "environment.json"


def versions(*packages: str) -> dict[str, str]:
    """The version of Python, of probem and of the packages it was run with."""
    found = {"python": platform.python_version()}
    for package in ("probem", *packages):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_json(path: Path, value: Any) -> None:
    """Write plain values, NumPy arrays among them; a number that is not finite, which JSON lacks, becomes null."""
    path.write_text(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dated(kind: str) -> Path:
    """``runs/<kind>-<date>-<time>``, a folder that does not exist yet."""
    first = Path("runs") / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = first, 2
    while path.exists():
        path, number = first.with_name(f"{first.name}-{number}"), number + 1
    return path


@contextlib.contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``destination`` when the block ends, and vanishes if the block raises.

    An earlier folder of results at ``destination`` is replaced, an empty one too.

    Raises
    ------
    InputError : something else stands at ``destination``, or nothing can be written there
    """
    _refuse_what_is_not_ours(destination)
    is_first = not destination.parent.exists()
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    except OSError as error:
        raise InputError(
            f"{error.strerror!r} on making a folder beside {destination}",
            "a place to write results to",
            "name another with --out",
        ) from None
    try:
        yield partial
        # mkdtemp makes folders that only their owner can enter.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o777 & ~umask)
        _replace(partial, destination)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if is_first:
            with contextlib.suppress(OSError):
                destination.parent.rmdir()
        raise


def _refuse_what_is_not_ours(destination: Path) -> None:
    if not destination.exists() or _is_results(destination):
        return
    if destination.is_dir() and not any(destination.iterdir()):
        return
    raise InputError(
        f"{destination}, which exists and holds no results of probem",
        "a new folder, or an earlier one of results",
        "name another with --out",
    )


def _is_results(folder: Path) -> bool:
    try:
        return "probem" in json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))["versions"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _replace(partial: Path, destination: Path) -> None:
    if not destination.exists():
        partial.rename(destination)
        return
    earlier = Path(tempfile.mkdtemp(prefix=f".{destination.name}.earlier.", dir=destination.parent))
    destination.rename(earlier / "results")
    try:
        partial.rename(destination)
    except OSError:
        (earlier / "results").rename(destination)
        raise
    finally:
        shutil.rmtree(earlier, ignore_errors=True)
