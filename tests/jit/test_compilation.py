"""Compiled functions are given up before the memory maps of the process run out, and compiled again on demand."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem import models
from probem.analysis.routes import make_plan
from probem.data.observations import Observations
from probem.e_step.passes import Pass
from probem.families.choice import choose_families
from probem.jit import compilation as compiled
from probem.jit.compilation import Effort
from probem.program.reading import read
from tests.programs.examples import EXAMPLES

ROOT = Path(__file__).parents[2]
X = np.concatenate([np.random.default_rng(0).normal(size=20), np.random.default_rng(1).normal(6.0, 1.0, 20)])


def line(x, *, num_components):
    loc = numpyro.param("loc", jnp.arange(1.0 * num_components))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.ones(num_components) / num_components))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def fit(num_components: int) -> probem.Fit:
    return probem.fit(functools.partial(line, num_components=num_components), X, throw=False, max_steps=5)


@pytest.mark.slow
def test_the_plans_longest_unused_are_given_up_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every plan had a hundred maps, and a process six hundred, of which three fifths may be in use."""
    compiled._of_plans.clear()
    monkeypatch.setattr(compiled, "_num_maps", lambda: 100 * len(compiled._of_plans))
    monkeypatch.setattr(compiled, "_most_maps", lambda: 600)
    first, second, third = fit(2), fit(3), fit(4)
    assert list(compiled._of_plans) == [each.plan.structure for each in (first, second, third)]
    again = fit(2)
    fourth = fit(5)
    assert list(compiled._of_plans) == [first.plan.structure, fourth.plan.structure]
    # What was given up is compiled again, and says the same.
    np.testing.assert_array_equal(first.params["loc"], again.params["loc"])
    np.testing.assert_array_equal(second.params["loc"], fit(3).params["loc"])
    np.testing.assert_array_equal(second.predict(X), fit(3).predict(X))


@pytest.mark.parametrize(
    "name",
    ["feature plate", "directions", *(pytest.param(name, marks=pytest.mark.slow) for name in ("priors", "Student-t"))],
)
def test_code_of_numpyro_or_of_a_user_is_compiled_to_run_one_operation_after_another(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed form asks for nothing; a prior or an update without one, and a density of NumPyro's, do."""
    example, given = EXAMPLES[name], []
    known = read(example.program, example.data)
    plan = make_plan(known, choose_families(known, None))
    monkeypatch.setattr(compiled, "one_by_one", lambda: {"option": 1})
    monkeypatch.setattr(compiled, "compiler_options", lambda effort: {})
    monkeypatch.setattr(jax, "jit", lambda *_, compiler_options, **__: given.append(compiler_options) or (lambda *_: 0))
    compiled.by_plan(lambda plan, x: x)(plan, 0)
    compiled.by_plan(lambda plan, x: x, foreign=True)(plan, 0)
    assert given == [{} if name == "feature plate" else {"option": 1}, {"option": 1}]


def test_the_effort_of_a_pass_follows_all_of_its_numbers_and_its_restarts() -> None:
    """Each of many blocks has few, and restarts go over the same rows."""
    efforts = {}
    for name, program in (("soft", models.gmm), ("hard", models.kmeans)):
        families = probem.HARD_EM if name == "hard" else probem.EM
        reading = read(functools.partial(program, num_components=3), (np.arange(8.0).reshape(4, 2),))
        plan = make_plan(reading, choose_families(reading, families))
        for num_rows, restarts in ((1000, 1), (3000, 1), (200_000, 1), (300_000, 1), (60_000, 5)):
            rows = Observations((np.zeros((num_rows, 2)),))
            efforts[name, num_rows] = Pass.of(plan, rows, restarts).effort.name
    assert list(efforts.values()) == ["LEAST", *4 * ["LESS"], "LEAST", "LESS", "LESS", "MOST", "MOST"]


def test_each_effort_has_its_options() -> None:
    least, less, most = (compiled.compiler_options(effort) for effort in Effort)
    assert most == {}
    assert least == less | {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    assert less == ({"xla_cpu_use_fusion_emitters": False} if jax.__version_info__[:2] == (0, 10) else {})


def test_maps_are_counted_where_there_may_be_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting takes milliseconds. Of 60000, three fifths are 36000, and a function adds at most 1500."""
    counts = [30000, 35000, 10000]
    monkeypatch.setattr(compiled, "_num_maps", lambda: counts.pop(0))
    maps = compiled._Maps()
    assert [maps.are_few(36000.0) for _ in range(2)] == [True, True]
    assert len(counts) == 2
    assert [maps.are_few(36000.0) for _ in range(4)] == [True, True, True, True]
    assert counts == []


def test_without_a_limit_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_most_maps", lambda: None)
    monkeypatch.setattr(compiled, "_num_maps", pytest.fail)
    compiled.make_room()


SCRIPT = """
import functools
from tests.jit.test_compilation import compiled, fit
compiled._most_maps = lambda: 4000
for num_components in range(2, 9):
    fit(num_components)
    print(compiled._num_maps())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the maps of a process from /proc")
def test_many_programs_stay_within_the_maps_of_a_process() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    found = list(map(int, run.stdout.split()))
    assert len(found) == 7
    assert max(found) < 4000
