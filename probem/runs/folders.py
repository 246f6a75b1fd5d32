"""Folders of results that appear whole or not at all."""

import contextlib
import hashlib
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

from probem.errors import InputError

# Every folder of results holds this file, with the version of probem and a digest of each other file that was written:
# a folder without it is somebody's own, as is a file that is not listed there or was changed since.
ENVIRONMENT = "environment.json"
_FILES = "files"


def versions(*packages: str) -> dict[str, str]:
    """The version of Python, of probem and of the packages it was run with."""
    numbers = {"python": platform.python_version()}
    for package in ("probem", *packages):
        try:
            numbers[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            numbers[package] = "not installed"
    return numbers


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

    An earlier folder of results at ``destination`` is replaced, an empty one too. What somebody else put into it stays
    there, beside a new file of that name as ``<name>.kept``.

    Raises
    ------
    InputError : something else stands at ``destination``, a file of an earlier folder was changed since, or nothing can
        be written there
    """
    if destination.is_symlink():
        # The folder that it leads to is replaced, not the link.
        destination = destination.resolve()
    check_destination(destination)
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
        _list_files(partial)
        _replace(partial, destination)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if is_first:
            with contextlib.suppress(OSError):
                destination.parent.rmdir()
        raise


def check_destination(destination: Path) -> None:
    """Refuse a folder that holds anything but results of probem as they were written.

    Raises
    ------
    InputError : it does
    """
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    if not _is_results(destination):
        raise InputError(
            f"{destination}, which exists and holds no results of probem",
            "a new folder, or an earlier one of results",
            "name another with --out",
        )
    listed = _listed(destination)
    if listed is None:
        raise InputError(
            f"results in {destination} without a list of the files that were written",
            "a new folder, or results of this version of probem",
            "name another with --out",
        )
    for name in listed:
        if (destination / name).is_file() and not _is_own(destination, name, listed):
            raise InputError(
                f"{destination / name}, which was changed since probem wrote it",
                "results as they were written, to be replaced",
                "rename that file, or name another folder with --out",
            )


def _is_results(folder: Path) -> bool:
    return "probem" in _environment(folder).get("versions", {})


def _environment(folder: Path) -> dict[str, Any]:
    try:
        environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return environment if isinstance(environment, dict) else {}


def _list_files(folder: Path) -> None:
    """Add to the environment of a folder, where it has one, the digest of every other file in it."""
    if environment := _environment(folder):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ENVIRONMENT]
        digests = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
        write_json(folder / ENVIRONMENT, environment | {_FILES: digests})


def _listed(folder: Path) -> dict[str, str] | None:
    digests = _environment(folder).get(_FILES)
    return digests if isinstance(digests, dict) else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_own(folder: Path, name: str, listed: Mapping[str, str]) -> bool:
    """Whether a file is as it was written."""
    path = folder / name
    if name == ENVIRONMENT:
        return True
    return name in listed and path.is_file() and not path.is_symlink() and _digest(path) == listed[name]


def _replace(partial: Path, destination: Path) -> None:
    if not destination.exists():
        partial.rename(destination)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{destination.name}.earlier.", dir=destination.parent))
    earlier = aside / "results"
    destination.rename(earlier)
    try:
        partial.rename(destination)
    except BaseException:
        earlier.rename(destination)
        aside.rmdir()
        raise
    _clear(earlier, destination, _listed(earlier) or {})
    aside.rmdir()


def _clear(earlier: Path, destination: Path, listed: Mapping[str, str]) -> None:
    """Remove an earlier folder file by file: what was written into it is deleted, everything else moves over."""
    folders = {Path(name).parent.as_posix() for name in listed}
    for path, inside, files in os.walk(earlier, topdown=False):
        place = Path(path).relative_to(earlier)
        for name in [*files, *(name for name in inside if (Path(path) / name).is_symlink())]:
            if _is_own(earlier, (place / name).as_posix(), listed):
                (Path(path) / name).unlink()
                continue
            target = destination / place / name
            while os.path.lexists(target):
                target = target.with_name(f"{target.name}.kept")
            target.parent.mkdir(parents=True, exist_ok=True)
            (Path(path) / name).rename(target)
        if place.as_posix() not in {".", *folders}:
            (destination / place).mkdir(parents=True, exist_ok=True)
        Path(path).rmdir()
