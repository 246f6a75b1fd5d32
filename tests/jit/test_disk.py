"""What was compiled is kept on disk: read by other processes, by nobody else, and never in the way."""

import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import probem
from probem.jit import disk

FIT = """
import sys
import jax, jax.monitoring
import numpy as np
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if "cache_" in event else None)
import probem
from functools import partial
from probem.models import gmm
jax.numpy.zeros(7)  # something was compiled before the folder is opened
print(probem.cache(*sys.argv[1:]))
fit = probem.fit(partial(gmm, num_components=2), np.r_[0.0:6, 100:106][:, None], verbose=0)
print(sum("hit" in event for event in hits), sum("miss" in event for event in hits), repr(fit.elbo))
"""


def in_process(code: str, *arguments: str, **variables: str) -> list[str]:
    """What a process of its own prints, line by line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")} | variables
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.slow
def test_another_process_compiles_nothing_and_answers_the_same(tmp_path):
    folder = tmp_path / "a" / "kept"
    (where, cold), (_, warm) = (in_process(FIT, str(folder)) for _ in range(2))
    assert where == str(folder)
    hits, misses, bound = warm.split()
    assert (cold.split()[0], misses) == ("0", "0")
    assert int(hits) == int(cold.split()[1]) > 0
    assert bound == cold.split()[2]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


READ = """
import sys, warnings
from pathlib import Path
import jax
import probem
warnings.simplefilter("error")
folder = probem.cache(sys.argv[1])
print(jax.jit(lambda x: x + 1)(2.0))
files = [file for file in folder.iterdir() if file.name.endswith("cache")]
for file in files:
    file.write_bytes(file.read_bytes()[:-20])
jax.clear_caches()
print(len(files) > 0, jax.jit(lambda x: x + 1)(2.0))
"""


def test_a_file_that_is_not_yet_written_is_no_error(tmp_path):
    """JAX's warning about it would end a thread or a process in which warnings are errors."""
    assert in_process(READ, str(tmp_path)) == ["3.0", "True 3.0"]


@pytest.fixture
def jax_settings(monkeypatch):
    """JAX is told of no folder, and what a test tells it is forgotten."""
    told = {}
    monkeypatch.setattr(disk, "_told", lambda: None)
    monkeypatch.setattr(disk.jax.config, "update", told.__setitem__)
    monkeypatch.setattr(disk.compilation_cache, "reset_cache", lambda: None)
    for name in ("JAX_COMPILATION_CACHE_DIR", *map(str.upper, disk._EVERYTHING)):
        monkeypatch.setenv(name, "")
    return told


def test_the_default_folder_is_among_the_caches_of_the_user(tmp_path, monkeypatch, jax_settings):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert probem.cache() == tmp_path / "probem"
    assert jax_settings["jax_compilation_cache_dir"] == str(tmp_path / "probem")
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "probem")  # for the processes that it starts


def test_a_folder_that_jax_was_told_of_stays_in_use(tmp_path):
    code = "import probem; print(probem.cache())"
    assert in_process(code, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine")) == [str(tmp_path / "mine")]


def test_rights_of_others_are_taken_away(tmp_path, jax_settings):
    tmp_path.chmod(0o755)
    assert probem.cache(tmp_path) == tmp_path
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_folder_of_somebody_else_is_not_read(tmp_path, monkeypatch, jax_settings):
    monkeypatch.setattr(disk.os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.warns(UserWarning, match=f"not kept in {tmp_path}: the folder belongs to another user"):
        assert probem.cache(tmp_path) is None
    assert jax_settings == {}


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path, jax_settings):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="not kept in .*: Not a directory"):
        assert probem.cache(tmp_path / "file" / "folder") is None
    assert jax_settings == {}


def test_the_files_longest_unused_are_removed(tmp_path, jax_settings):
    for number in range(5):
        file = tmp_path / str(number)
        file.write_bytes(bytes(10))
        os.utime(file, (1000 + number, 1000))
    os.utime(tmp_path / "0", (2000, 1000))  # written first, and read last
    with warnings.catch_warnings(action="error"):
        probem.cache(tmp_path, largest=25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "4"]


def test_a_size_below_zero_is_refused(tmp_path):
    with pytest.raises(probem.InputError, match="largest=-1"):
        probem.cache(Path(tmp_path), largest=-1)
