"""``probem fit`` and ``probem explain``: what they print and write, and how they say no."""

import csv
import functools
import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import probem
from probem import experiments, models
from probem.experiments.claims.datasets import load
from tests.cli.invoking import invoke, refused

OLD_FAITHFUL = Path(experiments.__file__).parent / "data" / "old_faithful.csv"


@pytest.mark.slow
def test_fit_writes_what_it_prints():
    options = ("--components", 2, "--standardise", "--restarts", 2, "--out", "here")
    result = invoke("fit", OLD_FAITHFUL, "--model", "gmm", *options)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert "closed form" in result.stdout
    assert "eruptions" in result.stdout
    assert sorted(os.listdir("here")) == [
        "assignments.csv",
        "environment.json",
        "figure.png",
        "fit.npz",
        "parameters.json",
        "parameters.npz",
        "summary.json",
    ]
    summary = json.loads(Path("here/summary.json").read_text())
    assert f"F = {summary['elbo']:.6f} nats" in result.stdout
    assert len(summary["restart_elbos"]) == 2

    # The same mixture by NumPyro's own density, from the parameters as written.
    rows = load("old_faithful").rows
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    with np.load("here/parameters.npz") as params:
        density = numpyro_log_density(rows, **params)
        assert json.loads(Path("here/parameters.json").read_text()) == {name: params[name].tolist() for name in params}
    # EM's bound is tight at its own parameters; the two sums differ in their order only.
    np.testing.assert_allclose(summary["elbo"], density.sum(), rtol=1e-12)
    np.testing.assert_allclose(summary["log_likelihood_per_row"], density.mean(), rtol=1e-12)

    loaded = probem.load("here/fit.npz", lambda x: models.gmm(x, num_components=2))
    with open("here/assignments.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [int(line["row"]) for line in written] == list(range(272))
    np.testing.assert_array_equal([int(line["component"]) for line in written], loaded.predict(rows))
    np.testing.assert_allclose(
        [float(line["probability"]) for line in written], loaded.responsibilities(rows).max(axis=1), rtol=1e-12
    )


def numpyro_log_density(rows, weights, loc, covariance):
    import numpyro.distributions as dist

    mixture = dist.MixtureSameFamily(dist.Categorical(probs=weights), dist.MultivariateNormal(loc, covariance))
    return np.asarray(mixture.log_prob(rows))


@pytest.mark.slow
def test_kmeans_is_fitted_with_point_masses_by_default():
    result = invoke("fit", OLD_FAITHFUL, "--model", "kmeans", "--components", 2, "--out", "here")
    assert result.exit_code == 0, result.output
    assert "Delta()" in result.stdout
    with open("here/assignments.csv", newline="") as file:
        assert {line["probability"] for line in csv.DictReader(file)} == {"1.0"}


STRUCTURE = """
import jax.numpy as jnp, numpyro, numpyro.distributions as dist

def tied_diagonal(num_components, dim):
    scale = numpyro.param("scale", jnp.ones(dim), constraint=dist.constraints.positive)
    return lambda loc, t: dist.Normal(loc, scale).to_event(1)

def tenths(num_components):
    return jnp.full(num_components, 0.1).at[0].set(1.1 - num_components / 10)
"""


@pytest.mark.slow
def test_structures_may_stand_in_a_file():
    Path("own.py").write_text(STRUCTURE)
    options = (
        "--model",
        "gmm",
        "--components",
        2,
        "--covariance",
        "own.py:tied_diagonal",
        "--weights",
        "own.py:tenths",
    )
    result = invoke("fit", OLD_FAITHFUL, *options, "--out", "here")
    assert result.exit_code == 0, result.output
    functions: dict = {}
    exec(STRUCTURE, functions)
    program = functools.partial(
        models.gmm, num_components=2, covariance=functions["tied_diagonal"], weights=functions["tenths"]
    )
    fit = probem.fit(program, load("old_faithful").rows, key=0)
    summary = json.loads(Path("here/summary.json").read_text())
    assert summary["elbo"] == fit.elbo
    assert "did you mean 'tenths'" in refused("fit", OLD_FAITHFUL, *options[:-1], "own.py:tenth", "--out", "there")


@pytest.mark.slow
def test_an_acceleration_is_that_of_fit():
    options = ("--model", "gmm", "--components", 2, "--covariance", "shared_spherical", "--acceleration", "squarem")
    result = invoke("fit", OLD_FAITHFUL, *options, "--out", "here")
    assert result.exit_code == 0, result.output
    program = functools.partial(models.gmm, num_components=2, covariance=models.shared_spherical)
    fit = probem.fit(program, load("old_faithful").rows, key=0, acceleration=probem.SQUAREM())
    summary = json.loads(Path("here/summary.json").read_text())
    assert (summary["num_steps"], summary["elbo"]) == (fit.num_steps, fit.elbo)
    assert summary["options"]["acceleration"] == "squarem"
    assert "did you mean 'squarem'" in refused("fit", OLD_FAITHFUL, *options[:-1], "squarm", "--out", "there")
    hard = invoke("fit", OLD_FAITHFUL, *options, "--family", "delta", "--out", "there")
    assert (hard.exit_code, os.path.exists("there")) == (2, False)
    assert "got SQUAREM for assignments that are point masses" in hard.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "model", "extra"),
    [
        pytest.param(
            load("one_dimensional").rows[:, 0],
            "gmm",
            ("--covariance", "spherical", "--weights", "equal"),
            id="one column",
            marks=pytest.mark.slow,
        ),
        pytest.param(load("iris").rows, "gmm", ("--covariance", "diagonal", "--family", "top:2"), id="four columns"),
        pytest.param(
            np.random.default_rng(0).poisson([[2, 9, 4]] * 60),
            "poisson_mixture",
            ("--family", "tempered:0.9"),
            id="counts",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            np.random.default_rng(0).random((60, 3)) < 0.4,
            "bernoulli_mixture",
            ("--family", "delta"),
            id="flags",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_other_models_files_and_families(rows, model, extra):
    np.save("rows.npy", rows)
    result = invoke("fit", "rows.npy", "--model", model, "--components", 2, *extra, "--out", "here")
    assert result.exit_code == 0, result.output
    assert Path("here/figure.png").stat().st_size > 1000


PROGRAM = """
import jax.numpy as jnp, numpyro, numpyro.distributions as dist

def two_normals(x):
    loc = numpyro.param("loc", jnp.array([[-1.0, 0.0], [1.0, 0.0]]))
    with numpyro.plate("rows", x.shape[0]):
        t = numpyro.sample("which", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(loc[t], 1.0).to_event(1), obs=x)
"""


@pytest.mark.slow
def test_a_program_from_a_file():
    Path("mine.py").write_text(PROGRAM)
    result = invoke("fit", OLD_FAITHFUL, "--model", "mine.py:two_normals", "--standardise", "--out", "here")
    assert result.exit_code == 0, result.output
    assert "which" in result.stdout


def with_gaps():
    """Old Faithful with some fields emptied, as rows and as a file, gaps.csv."""
    rows = np.array(load("old_faithful").rows)
    chosen = np.random.default_rng(0).random(rows.shape)
    rows[chosen < 0.15] = np.nan
    marks = itertools.cycle(["", "NA", "NaN", " null"])
    lines = [",".join(next(marks) if np.isnan(value) else str(value) for value in row) for row in rows]
    Path("gaps.csv").write_text("\n".join(["eruptions,waiting", *lines, ""]))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(("model", "columns"), [("gmm", 1), ("bayesian_gmm", 2), ("kmeans", 2)])
def test_rows_with_gaps_are_fitted(model, columns):
    rows = with_gaps()[:, :columns]
    chosen = ("--columns", "eruptions,waiting"[: 9 * columns])
    result = invoke("fit", "gaps.csv", "--model", model, "--components", 2, *chosen, "--out", "here")
    assert result.exit_code == 0, result.output
    assert f"{np.isnan(rows).sum()} values missing in column" in result.stdout
    assert not re.search(r"\bnan\b", result.stdout)
    summary = json.loads(Path("here/summary.json").read_text())
    written = np.loadtxt("here/assignments.csv", delimiter=",", skiprows=1)[:, 2]
    assert len(written) == 272
    assert np.isfinite([summary["elbo"], summary["log_likelihood_per_row"], *written]).all()
    assert Path("here/figure.png").stat().st_size > 1000
    if model == "gmm":
        # What the fit of the same rows from Python comes to.
        assert summary["elbo"] == probem.fit(lambda x: models.gmm(x, num_components=2), rows).elbo


@pytest.mark.slow
def test_rows_with_gaps_are_explained_and_a_column_without_any_value_refused():
    with_gaps()
    result = invoke("explain", "gaps.csv", "--model", "bayesian_gmm", "--components", 2)
    assert result.exit_code == 0, result.output
    assert "missing values filled in" in result.stdout
    Path("empty.csv").write_text("x,y\n1,\n2,NA\n4,\n")
    assert "got no value at all in column y" in refused("fit", "empty.csv", "--model", "gmm", "--components", 2)


@pytest.mark.slow
def test_explain_fits_nothing():
    result = invoke("explain", OLD_FAITHFUL, "--model", "gmm", "--components", 2)
    assert result.exit_code == 0, result.output
    assert "covariance" in result.stdout
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.csv", "--model", "gmm", "--components", 2), "got no file at absent.csv"),
        ((OLD_FAITHFUL, "--model", "gmn", "--components", 2), "got the model 'gmn'; .*; did you mean 'gmm'"),
        ((OLD_FAITHFUL, "--model", "gmm"), "add --components 3"),
        ((OLD_FAITHFUL, "--model", "gmm", "--components", 300), "got 300 components for 2[0-9]+ distinct rows"),
        ((OLD_FAITHFUL, "--model", "gmm", "--components", 2, "--covariance", "ful"), "did you mean 'full'"),
        ((OLD_FAITHFUL, "--model", "gmm", "--components", 2, "--weights", "fre"), "did you mean 'free'"),
        ((OLD_FAITHFUL, "--model", "kmeans", "--components", 2, "--covariance", "full"), "kmeans fixes it"),
        ((OLD_FAITHFUL, "--model", "mine.py:two_normals", "--components", 2), "has no argument num_components"),
        ((OLD_FAITHFUL, "--model", "mine.py:two_normal"), "got no function 'two_normal' in mine.py; .*'two_normals'"),
        ((OLD_FAITHFUL, "--model", "mine.py"), "name the program after a colon"),
        ((OLD_FAITHFUL, "--model", "absent.py:f"), "got no file at absent.py"),
        ((OLD_FAITHFUL, "--model", "broken.py:f"), r"importing broken.py \(ZeroDivisionError: division by zero\)"),
        ((OLD_FAITHFUL, "--model", "gmm", "--components", 2, "--family", "delt"), "did you mean 'delta'"),
        ((OLD_FAITHFUL, "--model", "gmm", "--components", 2, "--family", "delta:1"), "leave the number out"),
        ((OLD_FAITHFUL, "--model", "gmm", "--components", 2, "--family", "top:x"), "write top:2"),
        ((OLD_FAITHFUL, "--model", "gmm", "--components", 2, "--family", "tempered:0"), "a positive, finite beta"),
        ((OLD_FAITHFUL, "--model", "gmm", "--components", 2, "--columns", "wait"), "did you mean 'waiting'"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "explain"])
def test_fit_and_explain_refuse(command, arguments, message):
    Path("mine.py").write_text(PROGRAM)
    Path("broken.py").write_text("1 / 0")
    assert re.search(message, refused(command, *arguments))
    assert sorted(set(os.listdir()) - {"__pycache__"}) == ["broken.py", "mine.py"]


@pytest.mark.slow
def test_a_fit_that_ends_badly_leaves_its_last_good_state():
    # Two rows alike and far from the rest: the likelihood of a component on them has no upper bound.
    rows = np.concatenate([load("overlapping").rows[:40], [[90.0, 90.0], [90.0, 90.0]]])
    np.save("rows.npy", rows)
    result = invoke("fit", "rows.npy", "--model", "gmm", "--components", 2, "--out", "here")
    assert result.exit_code == 1
    assert re.search("component [01] of site 'x'", result.stderr)
    assert result.stderr.count("The last good state") == 1
    assert "The last good state is in here" in result.stderr
    assert json.loads(Path("here/summary.json").read_text())["result"] == "SINGULAR"
    with np.load("here/parameters.npz") as params:
        assert all(np.isfinite(params[name]).all() for name in params)
