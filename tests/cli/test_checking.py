"""``probem check``: what it prints and writes, and how it says no."""

from pathlib import Path

import numpy as np
import pytest

from tests.cli.invoking import invoke, refused

WRONG = """
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

def halves(x):
    loc = numpyro.param("loc", jnp.zeros((2, 1)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.array([1.0, 1.0])))
        numpyro.sample("x", dist.Normal(loc[t], 1.0).to_event(1), obs=x)
"""


@pytest.mark.slow
def test_a_program_by_its_name_or_by_its_option():
    np.savetxt("rows.csv", np.r_[0.0:6, 100:106][:, None], header="x", comments="")
    first = invoke("check", "kmeans", "rows.csv", "--components", 2, "--html", "page.html")
    assert first.exit_code == 0, first.output
    # The program that was asked for, and not the one that it is a case of.
    assert first.stdout.splitlines()[-2].startswith("kmeans, 12 rows, 2 components: ")
    assert first.stdout.splitlines()[-2].endswith("comparisons, all hold.")
    assert "kmeans" in Path("page.html").read_text()
    second = invoke("check", "rows.csv", "--model", "kmeans", "--components", 2)
    assert second.stdout.splitlines() == first.stdout.splitlines()[:-1]


def test_what_cannot_be_checked():
    np.savetxt("rows.csv", np.r_[0.0:6, 100:106][:, None], header="x", comments="")
    Path("wrong.py").write_text(WRONG)
    assert "probabilities that add up to 2 as 'probs' of 't'" in refused("check", "wrong.py:halves", "rows.csv")
    alone = invoke("check", "kmeans", "--components", 2)
    assert alone.exit_code == 2
    assert "got no data; expected a program and data; write probem check MODEL DATA." in alone.stderr
    twice = invoke("check", "kmeans", "rows.csv", "--model", "gmm", "--components", 2)
    assert "got a program twice; expected a program and data" in twice.stderr
