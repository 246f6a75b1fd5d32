"""What was compiled, kept in a folder for other processes."""

import os
import stat
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from probem.errors import InputError

#: The most that is kept in a folder, bytes: some 400 programs.
LARGEST = 2**28
# JAX's names for the folder, and for the least that is kept, in seconds to compile and in bytes.
_FOLDER = "jax_compilation_cache_dir"
_EVERYTHING = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}


def cache(path: str | os.PathLike[str] | None = None, largest: int = LARGEST) -> Path | None:
    """Keep what JAX compiles in a folder: a process that needs it again reads it, and does not compile it.

    It serves all that this process compiles from now on, code of others included, and the processes that it starts. A
    first fit of a program that was fitted before takes a third to a half of the time. The folder is the user's alone
    (mode 700), since what is read there is run; its files longest unused are removed, down to ``largest``, when it is
    opened. A file that cannot be read is no error: JAX compiles, and its warning is silenced. The command line opens
    the default folder. JAX finds by itself what fits: the computation, the versions of JAX and XLA, and the processor
    are in the names of the files.

    Parameters
    ----------
    path : the folder, made if it is not there. By default ``probem`` in the user's folder for caches
        (``$XDG_CACHE_HOME``, ``~/.cache``, ``~/Library/Caches`` or ``%LOCALAPPDATA%``); a folder that JAX was told
        of by ``JAX_COMPILATION_CACHE_DIR`` or its configuration then stays in use
    largest : bytes that are left in the folder when it is opened

    Returns
    -------
    Path : the folder in use; None, with a warning, if it cannot be written or belongs to somebody else. Fits then
        compile as without it

    Raises
    ------
    InputError
        For a ``largest`` that is no number of bytes, or a ``path`` that is none.

    Examples
    --------
    >>> import probem
    >>> probem.cache()  # doctest: +SKIP
    PosixPath('/home/ada/.cache/probem')
    """
    if not isinstance(largest, int) or largest < 0:
        raise InputError(f"largest={largest!r}", "a whole number of bytes from 0", "leave it out")
    if not isinstance(path, str | os.PathLike | None):
        raise InputError(f"a path of type {type(path).__name__}", "a path", "write probem.cache('folder')")
    # A file that another thread or process is writing cannot be read yet. What is in it is compiled then.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry", UserWarning)
    if path is None and (chosen := _told()):
        return Path(chosen)
    folder: Any = path
    try:
        folder = (_default() if path is None else Path(path)).expanduser().absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(folder)
        _shrink(folder, largest)
    except (OSError, RuntimeError) as error:  # a user may have no home
        reason = getattr(error, "strerror", None) or error
        warnings.warn(f"What is compiled is not kept in {folder or 'a folder'}: {reason}.", stacklevel=2)
        return None
    for name, value in {_FOLDER: str(folder), **_EVERYTHING}.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    # JAX looks for a folder once, when it first compiles.
    compilation_cache.reset_cache()
    return folder


def _told() -> str | None:
    """The folder that JAX was told of."""
    return getattr(jax.config, _FOLDER)


def _default() -> Path:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        base = base if os.path.isabs(base) else "~/.cache"
    return Path(base) / "probem"


def _make_private(folder: Path) -> None:
    """Take the rights of others away, or raise ``PermissionError`` where the folder is somebody else's."""
    if os.name != "posix":
        return  # the user's folder is private there
    status = folder.stat()
    if status.st_uid != os.getuid():
        raise PermissionError(0, "the folder belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        folder.chmod(0o700)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(0, "the folder cannot be written")


def _shrink(folder: Path, largest: int) -> None:
    """Remove the files longest unused until no more than ``largest`` bytes are left."""
    files = []
    for file in folder.iterdir():
        try:
            status = file.stat()
        except FileNotFoundError:  # another process has removed it
            continue
        if stat.S_ISREG(status.st_mode):
            files.append((max(status.st_atime, status.st_mtime), status.st_size, file))
    total = sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if total <= largest:
            return
        file.unlink(missing_ok=True)
        total -= size
