"""What a command owes to the shell that started it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from probem import experiments
from probem.runs.folders import ENVIRONMENT
from probem.runs.process import Output, is_starting

OLD_FAITHFUL = Path(experiments.__file__).parent / "data" / "old_faithful.csv"
FIT = ("fit", str(OLD_FAITHFUL), "--model", "kmeans", "--components", "2", "--out", "here")


def command(*arguments, first=None, before=(), **options):
    """``probem`` in a process of its own; ``first`` comes first on the path, ``before`` first on the command line."""
    path = os.pathsep.join([*([str(first)] if first else []), *sys.path])
    environment = os.environ | {"PYTHONPATH": path}
    whole = [*before, sys.executable, "-m", "probem.cli", *arguments]
    return subprocess.run(whole, env=environment, stderr=subprocess.PIPE, text=True, **options)


def test_output_goes_on_when_nobody_reads_it():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        output = Output(stream)
        assert output.exit_code == 0
        assert [output.write("line\n"), output.write("line\n")] == [5, 5]
        assert output.exit_code == 141
        assert not output.isatty()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_output_goes_on_when_the_disk_is_full():
    with open("/dev/full", "w") as stream:
        output = Output(stream)
        output.write("line\n")
        output.flush()
        assert output.exit_code == 74


def test_output_that_can_be_written_is():
    stream = io.StringIO()
    Output(stream).write("line\n")
    assert stream.getvalue() == "line\n"


# What is started with nohup, or in the background of a script, inherits that Ctrl-C is ignored.
LISTEN = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def test_ctrl_c_while_jax_is_imported(tmp_path):
    (tmp_path / "jax.py").write_text("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)")
    done = command(
        "fit", "absent.csv", "--model", "gmm", first=tmp_path, before=[sys.executable, "-c", LISTEN], check=False
    )
    assert done.stderr == "Interrupted: nothing was written.\n"
    assert done.returncode == 130


@pytest.mark.parametrize(
    ("name", "started", "ours"),
    [
        ("-m", ["python", "-m", "probem.cli", "fit"], True),
        ("-m", ["python", "-m", "mine"], False),
        ("mine.py", [], False),
    ],
)
def test_a_library_leaves_ctrl_c_alone(monkeypatch, name, started, ours):
    monkeypatch.setattr(sys, "argv", [name])
    monkeypatch.setattr(sys, "orig_argv", started)
    assert is_starting() == ours


@pytest.mark.slow
def test_results_are_there_when_nobody_reads_the_output(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = command(*FIT, cwd=tmp_path, check=False, stdout=pipe)
    assert (done.returncode, done.stderr) == (141, "")
    assert "summary.json" in json.loads((tmp_path / "here" / ENVIRONMENT).read_text())["files"]


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    # A shell sets the limit, of two kibibytes a file: a function between fork and exec is not safe beside threads.
    small = ["bash", "-c", 'ulimit -f 2; exec "$@"', "small"]
    done = command(*FIT, before=small, cwd=tmp_path, check=False, stdout=subprocess.PIPE)
    assert done.returncode == 74, done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: got 'File too large' on writing the results")
    # What was found is printed all the same.
    assert "F = " in done.stdout
    assert os.listdir(tmp_path) == []
