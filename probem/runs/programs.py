"""Programs and functions by name: those of ``probem.models``, and ``path/to/file.py:function``."""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from probem import models
from probem.errors import InputError, nearest

#: The programs of ``probem.models``, by name.
MODELS = (
    "bayesian_gmm",
    "bayesian_poisson_mixture",
    "bernoulli_mixture",
    "dirichlet_process_gmm",
    "gmm",
    "kmeans",
    "poisson_mixture",
)

# Modules by their file and the digest of its text: a function that is named twice is one function.
_modules: dict[tuple[Path, str], ModuleType] = {}


def model_named(name: str) -> Callable[..., Any]:
    """The program of ``probem.models`` of this name.

    Raises
    ------
    InputError : there is none
    """
    if name not in MODELS:
        raise InputError(
            f"the model '{name}'", f"one of {', '.join(MODELS)}, or path/to/file.py:function", nearest(name, MODELS)
        )
    return getattr(models, name)


def function_in_file(text: str, what: str = "program", folder: Path | None = None) -> Callable[..., Any]:
    """The function, or class, that ``path/to/file.py:function`` names.

    Parameters
    ----------
    text : the path and the name
    what : what it is to be, in a word for messages
    folder : where a relative path begins; None for the current folder

    Raises
    ------
    InputError : there is no such file or function, or the file cannot be imported
    """
    file, _, name = text.rpartition(":")
    if not file.endswith(".py"):
        file, name = text, ""
    path = Path(file) if folder is None else folder / file
    if not path.is_file():
        raise InputError(f"no file at {path}", f"a Python file with the {what}", "check the path before the colon")
    if not name:
        raise InputError(f"{text} without a function", "path/to/file.py:function", f"name the {what} after a colon")
    module = _imported(path)
    functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    if not callable(getattr(module, name, None)):
        raise InputError(f"no function '{name}' in {path}", f"the name of a {what} in it", nearest(name, functions))
    return getattr(module, name)


def home(taken: Mapping[str, inspect.Parameter], name: str, otherwise: ModuleType) -> ModuleType:
    """The module of the default of an argument, where its other values stand beside it."""
    default = taken[name].default if name in taken else None
    return sys.modules[default.__module__] if inspect.isfunction(default) else otherwise


def functions_of(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The public functions that a module defines, by name."""
    return {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
    }


def function_among(functions: Mapping[str, Callable[..., Any]], name: str, option: str) -> Callable[..., Any]:
    """That of this name, or in a file, which ``option`` asks for.

    Raises
    ------
    InputError : there is none
    """
    if ".py" in name:
        return function_in_file(name, "function")
    if name not in functions:
        names = sorted(functions)
        raise InputError(
            f"{option} {name}", f"one of {', '.join(names)}, or path/to/file.py:function", nearest(name, names)
        )
    return functions[name]


def _imported(path: Path) -> ModuleType:
    key = path.resolve(), hashlib.sha256(path.read_bytes()).hexdigest()
    if key in _modules:
        return _modules[key]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"the file {path}", "a Python file, named .py", "rename it")
    module = importlib.util.module_from_spec(spec)
    # What stands beside the file can be imported from it, as when Python runs it.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"an error on importing {path} ({said})", "what Python can import", "mend the file") from error
    finally:
        sys.path.pop(0)
    _modules[key] = module
    return module
