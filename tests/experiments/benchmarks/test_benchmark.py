"""The benchmark measures what it says. No test looks at how long anything takes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gmean

from probem.errors import InputError
from probem.experiments.benchmarks import fresh, iterations
from probem.experiments.benchmarks.__main__ import write
from probem.experiments.benchmarks.benchmark import Benchmark, run
from probem.experiments.benchmarks.settings import BenchmarkSettings, IterationCase, Sweep
from probem.experiments.benchmarks.tables import markdown, table
from probem.experiments.benchmarks.timing import Measurement, in_turn, measure_calls
from probem.runs.config import read

CONFIGS = Path(__file__).parents[3] / "configs"
SLOWER = Measurement(
    "k-means, one iteration",
    "k-means (9, 9, 9) f32",
    {"probem": [2.0, 4.0, 8.0], "scikit-learn": [9.0, 9.0, 9.0], "faiss-cpu": [1.0, 3.0, 2.0]},
    first_call=1.25,
    memory={"probem": 400.4, "faiss-cpu": 7.0},
    shares=[0.1, 0.2, 0.9],
    differences={"faiss-cpu": 0.25, "scikit-learn": 1e-12},
)
FASTER = Measurement("answers, 10 rows", "KMeans.predict (10, 2, 2)", {"probem": [1e-4], "scikit-learn": [4e-4]})
SAME = Measurement("k-means, one iteration", "k-means (8, 8, 8) f32", {"probem": [0.1], "scikit-learn": [0.2]})


def benchmark_of(*measurements):
    environment = {
        "versions": {"jax": "1.2.3", "faiss-cpu": "4.5"},
        "cores": 1,
        "peers": ["faiss-cpu"],
        "absent": ["scikit-learn-intelex"],
        "load": 0.25,
    }
    return Benchmark(environment, list(measurements), {})


def test_conclusions():
    assert SLOWER.fastest == "faiss-cpu"
    assert SLOWER.medians == {"probem": 4.0, "scikit-learn": 9.0, "faiss-cpu": 2.0}
    # Round by round: 1 / 2, 3 / 4 and 2 / 8.
    assert SLOWER.ratio == 0.5
    assert SLOWER.ratio_at_best == 0.5
    assert SLOWER.share == 0.2
    assert FASTER.share is None
    means = benchmark_of(SLOWER, FASTER, SAME).geometric_means
    assert means == pytest.approx({SLOWER.kind: gmean([0.5, 2.0]), FASTER.kind: 4.0}, rel=1e-12)


def test_table():
    # The kinds come in turn, as answers about many and about few rows do.
    printed = table(benchmark_of(SLOWER, FASTER, SAME))
    parts = printed.split("\n\n")
    assert parts[0] == "1 core (load average 0.2 before), jax 1.2.3, faiss-cpu 4.5; not installed: scikit-learn-intelex"
    kmeans, answers = (part.splitlines() for part in parts[2:4])
    assert kmeans[0] == "k-means, one iteration: geometric mean 1.00"
    assert kmeans[3].split() == "k-means (9, 9, 9) f32 4.00 s 2.00 s faiss 0.50 0.50 1.2 s 400 20%".split()
    assert kmeans[4].split() == "k-means (8, 8, 8) f32 100 ms 200 ms sklearn 2.00 2.00".split()
    assert answers[0] == "answers, 10 rows: geometric mean 4.00"
    assert answers[3].split() == "KMeans.predict (10, 2, 2) 100 us 400 us sklearn 4.00 4.00".split()
    assert parts[4] == "k-means (9, 9, 9) f32: faiss differs from probem by 0.2"


def test_table_is_no_wider_than_a_page():
    long = "KMeans, estimator, 1000 x (200, 2, 3)"
    seconds = {"probem": [0.1234], "scikit-learn-intelex": [12.34]}
    wide = Measurement("kind", long, seconds, first_call=123.4, memory={"probem": 1234.0}, shares=[0.99])
    assert 90 < max(map(len, table(benchmark_of(wide)).splitlines())) <= 100


def test_block_of_the_readme():
    slower, faster = markdown(benchmark_of(SLOWER, FASTER, SAME)).splitlines()[-2:]
    ends = "0.50: k-means (9, 9, 9) f32 | 2.00: k-means (8, 8, 8) f32"
    assert slower == f"| k-means, one iteration | 2 | **1.00** | {ends} | 20% to 20% |"
    end = "4.00: KMeans.predict (10, 2, 2)"
    assert faster == f"| answers, 10 rows | 1 | **4.00** | {end} | {end} | |"


def test_sides_take_turns():
    order = []
    sides = {side: lambda side=side: float(order.append(side) or len(order)) for side in ("probem", "peer")}
    assert in_turn(sides, 3) == {"probem": [1.0, 3.0, 5.0], "peer": [2.0, 4.0, 6.0]}
    assert order == ["probem", "peer"] * 3


def test_part_of_the_work_is_scaled(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("probem.experiments.benchmarks.timing.time.perf_counter", lambda: float(next(clock)))
    measured = measure_calls("kind", "case", {"probem": int, "peer": int}, 2, part=0.25)
    # By this clock every call takes a second.
    assert measured.seconds == {"probem": [1.0, 1.0], "peer": [4.0, 4.0]}


@pytest.mark.parametrize(
    ("model", "flops"),
    # Statistics of a row: x; x and x'x; x and x_d^2; x and x_d x_e for d <= e.
    [("kmeans", 3), ("tied", 3), ("spherical", 4), ("diagonal", 6), ("full", 9), ("bayesian", 9)],
)
def test_flops(model, flops):
    case = IterationCase(model=model, shape=[5, 3, 2], dtype="float64")
    assert case.num_flops == 2 * (2 * 5 * flops * 2)


def test_sweep():
    base = IterationCase(model="kmeans", shape=[8, 4, 2], dtype="float32")
    sweep = Sweep(base=base, rows=[16, 2], columns=[4], components=[3])
    shapes = [[case.shape for case in sweep.along(axis)] for axis in range(3)]
    assert shapes == [[[2, 4, 2], [8, 4, 2], [16, 4, 2]], [[8, 4, 2]], [[8, 4, 2], [8, 4, 3]]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # four iterations are all that is wanted
@pytest.mark.parametrize("model", ["kmeans", "full", "tied", "diagonal", "spherical", "bayesian"])
def test_sides_make_the_same_iterations(model):
    case = IterationCase(model=model, shape=[600, 3, 4], dtype="float64")
    rows, start = iterations.draw(case, 0)
    sides = iterations.sides_of(case, ["scikit-learn"], rows, start)
    ended = {side: side_run(4) for side, side_run in sides.items()}
    assert {steps.count for steps in ended.values()} == {4}
    # Both centre rows differently, which costs digits of moments of size one.
    np.testing.assert_allclose(ended["probem"].locations, ended["scikit-learn"].locations, atol=1e-10)
    # And the start is another one.
    assert np.abs(ended["probem"].locations - start).max() > 0.1


def test_inertia():
    random = np.random.default_rng(0)
    rows, centres = random.normal(size=(50, 3)).astype("float32"), random.normal(size=(4, 3))
    each = [min(((row.astype(float) - centre) ** 2).sum() for centre in centres) for row in rows]
    assert iterations._inertia(rows, centres) == pytest.approx(math.fsum(each), rel=1e-12)


def test_memory_is_that_of_the_process_alone():
    here = np.ones(2**24)  # 128 MiB, which a process that was forked from this one would count
    ended = fresh.run(["-c", "print('ended')"])
    assert ended.printed == "ended\n"
    assert 1 < ended.memory < 64
    there = fresh.run(["-c", "x = bytearray(2**26)"])
    assert 64 < there.memory < 128
    assert here[-1] == 1


def test_process_that_fails():
    with pytest.raises(RuntimeError, match=r"ended with 3:\nfor a reason"):
        fresh.run(["-c", "print('for a reason'); raise SystemExit(3)"])


def test_long_fits_that_take_no_longer(monkeypatch):
    monkeypatch.setattr(iterations, "seconds_of", lambda call, repeats=1: 1.0)
    with pytest.raises(InputError, match="took less time than those of 2"):
        iterations._seconds_per_step(lambda steps: None, 10)


def test_configurations():
    whole, quick = (read(CONFIGS / name, BenchmarkSettings) for name in ("benchmark.yaml", "benchmark_quick.yaml"))
    names = [case.name for case in whole.iterations.cases]
    assert len(set(names)) == len(names)
    # Every kind of measurement is in both.
    assert None not in dict(whole).values()
    assert None not in dict(quick).values()
    assert quick.peers == ["scikit-learn"]


def ratios_of(plain):
    return [each["ratio"] for each in plain["measurements"]] + [
        point["ratio"] for axes in plain["growth"].values() for axis in axes for point in axis
    ]


@pytest.mark.slow
def test_quick_run(tmp_path):
    told = []
    quick = read(CONFIGS / "benchmark_quick.yaml", BenchmarkSettings)
    # Of iterations the first case, k-means: every side of another is a process of its own.
    iterations_of_kmeans = quick.iterations.model_copy(update={"cases": quick.iterations.cases[:1]})
    benchmark = run(quick.model_copy(update={"iterations": iterations_of_kmeans}), told.append)
    write(benchmark, tmp_path)
    plain = json.loads((tmp_path / "benchmark.json").read_text())
    assert plain["environment"]["peers"] == ["scikit-learn"]
    kinds = [each["kind"] for each in plain["measurements"]]
    assert list(plain["geometric_means"]) == list(dict.fromkeys(kinds))
    assert len(set(kinds)) == 6
    ratios = ratios_of(plain)
    assert len(ratios) == len(plain["measurements"]) + 6
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)
    for each in plain["measurements"]:
        assert {len(seconds) for seconds in each["seconds"].values()} == {1}
        assert each["fastest"] in each["seconds"]
        assert all(difference < 1e-4 for difference in each["differences"].values())
        if each["kind"].endswith("one iteration"):
            assert each["share"] > 0
            assert set(each["memory"]) == {"probem", "scikit-learn"}
            assert set(each["differences"]) == {"scikit-learn"}
    for name in ("growth.png", "shares.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.txt").read_text() == table(benchmark) + "\n"
    assert (tmp_path / "table.md").read_text() == markdown(benchmark) + "\n"
    assert max(map(len, table(benchmark).splitlines())) <= 100
