"""The page in a browser, at three widths: nothing is clipped, and the figure that is stepped through steps."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from probem.experiments.claims.claim import Check, Claim
from probem.experiments.kmeans import scene as scenes
from probem.experiments.outcomes.all_claims import CLAIMS
from probem.experiments.outcomes.record import VerifySettings
from probem.experiments.report.report import write
from probem.experiments.verification import verify

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (390, 820, 1280)


def path(angle, count):
    """Two ellipses that turn."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    covariance = (turn @ np.diag([0.6, 0.1]) @ turn.T).tolist()
    return [
        {
            "loc": [[-1.0, 0.2 * step], [1.0, 0.0]],
            "covariance": [covariance, covariance],
            "elbo": -300.0 + step,
            "objective": -300.0 + step,
        }
        for step in range(count)
    ]


def small_scene(seed):
    rows = np.random.default_rng(seed).normal(size=(40, 2)) + np.repeat([[-1.0, 0.0], [1.0, 0.0]], 20, axis=0)
    sphere = [{**step, "covariance": [[[1.0, 0.0], [0.0, 1.0]]] * 2} for step in path(0.0, 4)]
    turned = [[path(0.3 * (a + b), 3 + a) for b in range(6)] for a in (1, 2)]
    # Hot clusters are one.
    turned[1][0] = [{**step, "loc": [[0.0, 0.0]] * 2, "objective": -400.0} for step in turned[1][0]]
    return {
        "columns": ["x", "y"],
        "rows": rows.tolist(),
        "covariances": ["one sphere for both, σ = 1", "one ellipse </script> for both", "an ellipse for each"],
        "temperatures": [0.25, 0.5, 1.0, 2.0, 4.0, None],
        "kmeans": sphere,
        "em": [[sphere] * 6, *turned],
    }


def holding(dataset, seed):
    yield Check("B6", dataset.name, "two sides", 1e-13, 1e-10)


def drawn(dataset, seed):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 3))
    figure.subplots().plot(dataset.rows[:, 0])
    return figure


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of every claim with its words and formula, none of them computed."""
    claims = [
        Claim(c.id, c.title, c.statement, c.formula, c.source, holding, figure=drawn, scene=small_scene)
        if c.id == "B6"
        else Claim(c.id, c.title, c.statement, c.formula, c.source, holding)
        for c in CLAIMS
    ]
    asked = VerifySettings(claims=sorted({c.id[0] for c in CLAIMS}), data=["blobs"], seed=7)
    folder = tmp_path_factory.mktemp("page")
    write(verify.run(claims, asked, lambda step: None), folder)
    return folder / "report.html"


PROBE = """
<iframe id="page" style="width: %dpx; height: 2400px; border: 0"></iframe><pre id="result"></pre>
<script>
const frame = document.getElementById("page");
frame.onload = () => {
  const page = frame.contentDocument, root = page.getElementById("scene");
  const say = (name) => root.querySelector(`[data-for=${name}]`).textContent;
  const move = (name, value) => {
    root.querySelector(`[name=${name}]`).value = value;
    root.querySelector(`[name=${name}]`).dispatchEvent(new frame.contentWindow.Event("input"));
  };
  const shown = [root.hidden, say("apart"), say("em")];
  move("step", 2); move("temperature", 2); move("covariance", 1);
  const moved = [say("temperature"), say("covariance"), say("apart"), say("em")];
  const fills = new Set([...root.querySelectorAll("#scene-em path")].map((mark) => mark.style.fill));
  move("temperature", 0); move("covariance", 2);
  const hot = [say("apart"), say("em")];
  move("temperature", 2); move("covariance", 1); move("step", 99);
  const clipped = [...page.querySelectorAll(".formula, .panels, .controls, header, nav")]
    .filter((element) => element.scrollWidth > element.clientWidth + 1)
    .map((element) => element.textContent.trim().slice(0, 60));
  const scriptless = page.querySelectorAll("script[src]").length === 0;
  const result = { shown, moved, hot, fills: fills.size, end: say("em"), clipped, scriptless,
    marks: root.querySelectorAll("circle").length, width: page.documentElement.scrollWidth };
  document.getElementById("result").textContent = JSON.stringify(result);
};
frame.srcdoc = %s;
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser(page, width, tmp_path):
    text = json.dumps(page.read_text(encoding="utf-8")).replace("</", "<\\/")
    probe = tmp_path / "probe.html"
    probe.write_text('<!doctype html><meta charset="utf-8">' + PROBE % (width, text), encoding="utf-8")
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,2600", "--virtual-time-budget=9000")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    ran = subprocess.run([CHROMIUM, *flags, profile, "--dump-dom", probe.as_uri()], capture_output=True, timeout=120)
    found = re.search(r'<pre id="result">(.+?)</pre>', ran.stdout.decode(), re.S)
    assert found, ran.stderr.decode()[-2000:]
    result = json.loads(html.unescape(found.group(1)))
    assert result["shown"][0] is False
    assert result["shown"][1].startswith("0 of 40 rows")
    assert result["shown"][1].endswith("With these settings EM is k-means.")
    assert result["hot"][0].startswith("Both clusters of EM are in one place")
    assert result["hot"][1] == "F = -298.0 nats, and what is climbed, E[log p] + H / β, is -400.0"
    assert result["moved"][:2] == ["β = 1: the posterior", "one ellipse </script> for both"]
    assert result["moved"][3] == "F = -298.0 nats"
    # Certain rows share a colour, the others have one of their own, by Bayes’ rule.
    assert result["fills"] > 10
    assert result["end"].endswith("at rest") or result["end"] == "F = -297.0 nats"
    assert result["clipped"] == []
    assert result["width"] <= width
    assert result["marks"] == 2 * 40
    assert result["scriptless"]


def test_only_the_script_of_the_page_may_run(page):
    import base64
    import hashlib

    text = page.read_text(encoding="utf-8")
    (policy,) = re.findall(r"script-src '(sha256-[^']+)'", text)
    script = re.findall(r"<script>(.*?)</script>", text, re.S)[-1]
    assert policy == "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = re.search(r'<script type="application/json" id="scene-data">(.*?)</script>', text, re.S)
    assert json.loads(data.group(1))["covariances"][1] == "one ellipse </script> for both"


@pytest.mark.slow
def test_the_scene_is_that_of_the_engine_and_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr(scenes, "TEMPERATURES", (1.0, np.inf))
    monkeypatch.setattr(scenes, "COVARIANCES", scenes.COVARIANCES[::2])
    made = scenes.scene(7)
    rows, loc = np.array(made["rows"]), np.array(made["kmeans"][0]["loc"])
    for step in made["kmeans"]:
        np.testing.assert_allclose(step["loc"], loc, atol=2e-3)
        nearest = ((rows[:, None] - loc) ** 2).sum(-1).argmin(1)
        loc = np.array([rows[nearest == k].mean(0) for k in range(2)])
    assert len(made["kmeans"]) == 7
    assert made["em"][0][1] == made["kmeans"]
    soft = [step["elbo"] for step in made["em"][1][0]]
    assert (np.diff(soft) > -1e-3).all()
    assert soft[-1] > made["em"][0][0][-1]["elbo"]
