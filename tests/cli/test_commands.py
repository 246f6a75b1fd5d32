"""The command line in processes of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.invoking import refused


def python(*arguments, code=None):
    command = [sys.executable, *(("-c", code) if code else ("-m", "probem.cli", *arguments))]
    return subprocess.run(command, capture_output=True, text=True, env=searching(), check=False)


def searching():
    """An environment in which a fresh interpreter finds what this one finds."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.slow
def test_exit_code_and_sentence_of_a_real_process():
    done = python("fit", "absent.csv", "--model", "gmm", "--components", "2")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "Error: got no file at absent.csv; expected a CSV, Parquet or NPY file; check the path.\n"


@pytest.mark.slow
def test_commands_keep_what_they_compile_and_help_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (tmp_path / "rows.csv").write_text("1.5,2\n2,3.5\n8,9\n9,8.5\n")
    kept = tmp_path / "caches" / "probem"
    assert python("explain", "--help").returncode == 0
    assert not kept.exists()
    done = python(
        "explain", str(tmp_path / "rows.csv"), "--model", "gmm", "--components", "2", "--covariance", "diagonal"
    )
    assert done.returncode == 0, done.stderr
    assert any(kept.iterdir())


def test_unknown_command():
    assert (
        refused("verfy")
        == "got the command 'verfy'; expected one of verify, run, fit, explain, check; did you mean 'verify'."
    )


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_and_keeps_what_was_done(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    kept = tmp_path / "caches" / "probem"
    command = [sys.executable, "-m", "probem.cli", "verify", "--claims", "B", "--data", "blobs,iris", "--out", "here"]
    # A session of its own, whose processes all get the signal, as those of a terminal do.
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=searching())
    latest = time.monotonic() + 300
    # What is compiled is kept: a process is at work.
    while not any(kept.glob("*")):
        assert time.monotonic() < latest
        assert running.poll() is None
        time.sleep(0.1)
    output = ""
    # Python drops what is raised while it collects garbage: whoever sees nothing happen presses again.
    while not output:
        os.killpg(running.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, _ = running.communicate(timeout=60)
        assert time.monotonic() < latest
    assert running.returncode == 130
    assert "Interrupted" in output
    assert json.loads(Path("here/claims.json").read_text())["interrupted"]


def test_without_the_extra_one_sentence_says_how_to_get_it():
    done = python(code="import sys; sys.modules['click'] = None; from probem.cli import main; main()")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        'got no package click; expected what the command line needs; pip install "probem[cli]".'
    ]


def test_the_core_and_the_help_load_nothing_heavy():
    code = "import sys, probem; print(*sys.modules); import probem.cli.commands; print(*sys.modules)"
    core, with_help = (set(line.split()) for line in python(code=code).stdout.splitlines())
    assert not core & {"click", "rich", "probem.cli", "probem.config"}
    assert not with_help & {"sklearn", "matplotlib", "polars", "pydantic", "ruamel", "jinja2"}
