"""Peak memory of a large fit, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

# Holds the data and has compiled on less of it, then fits; prints the kilobytes beyond that baseline.
SCRIPT = """
import functools, json, sys
import numpy as np
import probem
from probem.models import diagonal, gmm, kmeans

def peak():
    with open("/proc/self/status") as file:
        fields = dict(line.split(":") for line in file)
    return int(fields["VmHWM"].split()[0])

corner = sys.argv[1]
program = functools.partial(kmeans if corner == "hard" else gmm, num_components=64)
if corner == "soft":
    program = functools.partial(program, covariance=diagonal)
families = probem.HARD_EM if corner == "hard" else probem.EM
x = np.random.default_rng(0).normal(size=(2_000_000, 8)).astype(np.float32)
options = dict(families=families, init=probem.RandomRows(), max_steps=3, throw=False, verbose=0)
probem.fit(program, x[:300_000], **options)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the high-water mark starts again from what is held now
before = peak()
fit = probem.fit(program, x, **options)
print(json.dumps({"beyond": peak() - before, "steps": fit.num_steps, "result": fit.result.name}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the high-water mark from /proc")
@pytest.mark.parametrize("corner", ["hard", "soft"])
def test_two_million_rows_need_less_than_300_megabytes_beyond_the_data(corner: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, corner],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"},
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["steps"] == 3
    assert found["beyond"] < 300 * 1024
