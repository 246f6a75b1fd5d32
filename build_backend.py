"""Builds with setuptools, and makes of an editable install a package that leads to this folder.

That of setuptools is a finder which Python asks last. Where Python is started in the folder above a clone named probem,
it takes that clone, a folder without ``__init__.py``, for an empty package of that name before it asks. A package among
those installed comes first.
"""

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

_PACKAGE = '''"""The package in {folder}, as it is there."""

__file__ = {file!r}
__path__[:] = [{folder!r}]
with open(__file__, encoding="utf-8") as _source:
    exec(compile(_source.read(), __file__, "exec"))
'''


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """The wheel of setuptools with one module, the package, in place of its finder."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    path = Path(wheel_directory, name)
    with zipfile.ZipFile(path) as wheel:
        files = {file: wheel.read(file) for file in wheel.namelist() if ".dist-info/" in file}
    (record,) = (file for file in files if file.endswith(".dist-info/RECORD"))
    del files[record]
    folder = Path(__file__).resolve().parent / "probem"
    files["probem/__init__.py"] = _PACKAGE.format(folder=str(folder), file=str(folder / "__init__.py")).encode()
    lines = [f"{file},sha256={_digest(content)},{len(content)}" for file, content in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
    return name


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
