"""scikit-learn's own tests of its three classes, with those of probem in their place.

``python tests/sklearn/scikit_learn_suite.py`` runs all of them, in some twenty minutes on two cores, and says where
they do not end as ``scikit_learn_failures.toml`` expects; arguments are passed on to pytest (``-k verbose``). It is
also the plugin that puts the classes there.
"""

import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
MODULES = (
    "sklearn.cluster.tests.test_k_means",
    "sklearn.mixture.tests.test_gaussian_mixture",
    "sklearn.mixture.tests.test_bayesian_mixture",
)
# Where the plugin writes how every test ended.
_OUTCOMES = "PROBEM_OUTCOMES"
# What is compiled is forgotten after so many tests: it takes gigabytes.
_TESTS_BETWEEN_CLEARING = 50

_outcomes: dict[str, str] = {}


def patterns(always: bool) -> list[str]:
    """The patterns of the tests that are expected to fail, always or where rounding says so."""
    groups = tomllib.loads((HERE / "scikit_learn_failures.toml").read_text()).values()
    return [pattern for group in groups if group.get("always", True) is always for pattern in group["tests"]]


def run(*arguments: str, tests: Sequence[str] = ()) -> dict[str, str]:
    """How every test ended that ran, "passed" or "failed", by module and name.

    Parameters
    ----------
    arguments : for pytest
    tests : ``"test_k_means::test_transform"``, with the parameters or without; all if there are none
    """
    modules = {module.rpartition(".")[2]: module for module in MODULES}
    chosen = [f"{modules[module]}::{name}" for module, _, name in (test.partition("::") for test in tests)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pytest.ini").write_text("[pytest]\n")
        outcomes = Path(folder) / "outcomes.json"
        paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            _OUTCOMES: str(outcomes),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "SKLEARN_RUN_FLOAT32_TESTS": "1",
            "SKLEARN_SEED": "0",
        }
        plugins = ["-p", "tests.sklearn.scikit_learn_suite", "-p", "no:xdist", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", "-c", f"{folder}/pytest.ini", *plugins, "-q", "--tb=line"]
        ended = subprocess.run(
            [*command, *arguments, "--pyargs", *(chosen or MODULES)],
            cwd=folder,
            env=environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if not outcomes.exists():
            raise RuntimeError(f"pytest ended with {ended.returncode}:\n{ended.stdout}")
        return json.loads(outcomes.read_text())


def surprises(outcomes: dict[str, str]) -> dict[str, list[str]]:
    """The tests that did not end as expected: "failed" and "passed" against expectation."""
    expected, sometimes = (_matching(outcomes, patterns(always)) for always in (True, False))
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    return {"failed": sorted(failed - expected - sometimes), "passed": sorted(expected - failed)}


def _matching(names: Iterable[str], patterns: list[str]) -> set[str]:
    """The tests that one of the patterns means; brackets mean themselves, * anything."""
    plain = [pattern.replace("[", "[[]") for pattern in patterns]
    return {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in plain)}


def pytest_configure() -> None:
    import sklearn.cluster
    import sklearn.mixture

    import probem.sklearn

    sklearn.cluster.KMeans = probem.sklearn.KMeans
    sklearn.mixture.GaussianMixture = probem.sklearn.GaussianMixture
    sklearn.mixture.BayesianGaussianMixture = probem.sklearn.BayesianGaussianMixture


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any) -> Iterator[None]:
    result = yield
    report = result.get_result()
    name = f"{item.module.__name__.rpartition('.')[2]}::{item.name}"
    if report.failed or (report.when == "call" and report.passed):
        _outcomes.setdefault(name, "failed" if report.failed else "passed")


def pytest_runtest_teardown() -> None:
    import jax

    if len(_outcomes) % _TESTS_BETWEEN_CLEARING == _TESTS_BETWEEN_CLEARING - 1:
        jax.clear_caches()


def pytest_sessionfinish() -> None:
    if _outcomes:
        Path(os.environ[_OUTCOMES]).write_text(json.dumps(_outcomes))


if __name__ == "__main__":
    found = run(*sys.argv[1:])
    differing = surprises(found)
    print(f"{len(found)} tests, {sum(outcome == 'failed' for outcome in found.values())} of them failed.")
    for outcome, names in differing.items():
        for test in names:
            print(f"{outcome} against expectation: {test}")
    sys.exit(bool(differing["failed"] or differing["passed"]))
