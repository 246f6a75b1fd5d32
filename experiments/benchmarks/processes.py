"""Whole processes: a Python that starts, does one thing and ends."""

import functools
import statistics
from collections.abc import Iterator

from .fresh import Ended, run
from .settings import Processes
from .timing import PROBEM, Measurement, in_turn

_FIT = "from sklearn.datasets import load_iris; from {0} import {1}; {1}({2}, random_state=0).fit(load_iris().data)"
_SEARCH = """
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from {0} import GaussianMixture
grid = {{"n_components": [2, 3, 4], "covariance_type": ["full", "diag"]}}
GridSearchCV(GaussianMixture(random_state=0), grid, cv=3, refit=False).fit(load_iris().data)
"""


# What is imported beside which peer.
_IMPORTS = {"import probem": ("probem", "numpyro"), "import probem.sklearn": ("probem.sklearn", "sklearn")}


def _commands(name: str, peers: list[str]) -> dict[str, str]:
    """What each side runs."""
    if name in _IMPORTS:
        module, peer = _IMPORTS[name]
        return {PROBEM: f"import {module}", peer: f"import {peer}"}
    count = "n_clusters=3" if name == "KMeans" else "n_components=3"
    modules = {PROBEM: "probem.sklearn"}
    if "scikit-learn" in peers:
        modules["scikit-learn"] = "sklearn.cluster" if name == "KMeans" else "sklearn.mixture"
    if "scikit-learn-intelex" in peers and name == "KMeans":
        modules["scikit-learn-intelex"] = "sklearnex.cluster"
    if name.startswith("grid search"):
        return {side: _SEARCH.format(module) for side, module in modules.items()}
    return {side: _FIT.format(module, name, count) for side, module in modules.items()}


def processes(settings: Processes, peers: list[str]) -> Iterator[Measurement]:
    """Seconds and peak memory of every process, each started anew in every round."""
    for name in settings.names:
        ended: dict[str, list[Ended]] = {}

        def seconds(side: str, command: str, ended: dict[str, list[Ended]] = ended) -> float:
            process = run(["-c", command])
            ended.setdefault(side, []).append(process)
            return process.seconds

        commands = _commands(name, peers)
        timed = {side: functools.partial(seconds, side, command) for side, command in commands.items()}
        taken = in_turn(timed, settings.rounds)
        memory = {side: statistics.median(each.memory for each in ends) for side, ends in ended.items()}
        case = name if name in _IMPORTS else f"iris, {name}"
        yield Measurement("whole processes", case, taken, memory=memory)
