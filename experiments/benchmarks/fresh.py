"""Processes that are started to see what they cost: time until the end, and peak memory."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from .settings import IterationCase
from .timing import PROBEM

# A process that starts another and says what that cost. The peak memory of a process counts that of whoever started it,
# which here is next to nothing. ru_maxrss is in KiB, but on macOS in bytes.
_STARTER = """
import json, os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
printed = process.stdout.read()
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - began
memory = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, memory, printed]))
"""


class Ended(NamedTuple):
    """Seconds from start to end, the peak of memory in MiB, and what was printed."""

    seconds: float
    memory: float
    printed: str


def run(arguments: Sequence[str]) -> Ended:
    """A Python that is started with these arguments, without any compiled function of an earlier one.

    Raises
    ------
    RuntimeError : it ended with another exit code than 0
    """
    with tempfile.TemporaryDirectory() as cache:
        # Whatever is kept on disk from one process to the next is looked for in an empty folder.
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        command = [sys.executable, "-S", "-c", _STARTER, sys.executable, *arguments]
        starter = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    code, seconds, memory, printed = json.loads(starter.stdout)
    if code:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {code}:\n{printed}")
    return Ended(seconds, memory, printed)


def first_calls(case: IterationCase, sides: list[str], seed: int) -> tuple[float, dict[str, float]]:
    """Seconds of probem's first short fit beyond those of the next, and the peak memory of each side in MiB."""
    ended = {side: run(["-c", _FIRST_CALL, case.model_dump_json(), side, str(seed)]) for side in sides}
    return float(ended[PROBEM].printed.split()[-1]), {side: process.memory for side, process in ended.items()}


_FIRST_CALL = """
import sys, warnings
import jax
from probem.experiments.benchmarks.iterations import first_call
from probem.experiments.benchmarks.settings import IterationCase
warnings.simplefilter("ignore")
jax.config.update("jax_enable_x64", True)
print(first_call(IterationCase.model_validate_json(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
"""
