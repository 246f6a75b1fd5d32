"""Verification runs and their report, on claims made up for the purpose."""

import dataclasses
import html.parser
import json
import math
import os
import signal

import numpy as np
import pytest
from ruamel.yaml import YAML

from probem.errors import InputError
from probem.experiments.claims.claim import NO_DATASET, Check, Claim
from probem.experiments.outcomes.all_claims import CLAIMS
from probem.experiments.outcomes.record import VerifySettings
from probem.experiments.report.report import answer, formula, number, prose, shown, write
from probem.experiments.verification import verify
from probem.runs.folders import ENVIRONMENT


def claim(name, check, **rest):
    words = (f"Title of {name}", "In words, $x_i$ & more.", r"\log p(x) \ge F", "Neal & Hinton 1998")
    return Claim(name, *words, check, **rest)


def good(dataset, seed):
    yield Check("A1", dataset.name, "two <sides>", 1e-13, 1e-10, {"rows": np.float64(len(dataset.rows)), "seed": seed})
    yield Check("A1", dataset.name, "counts", 0.0, 0.0)


def bad(dataset, seed):
    yield Check("A2", dataset.name, "off by a tenth", 0.1, 1e-10)


def undefined(dataset, seed):
    yield Check("A3", dataset.name, "not a number", math.nan, 1e-10)


def broken(dataset, seed):
    yield Check("B1", dataset.name, "before the fall", 0.0, 1e-10)
    raise ZeroDivisionError("division\nby zero")


def silent(dataset, seed):
    yield from ()


def interrupting(dataset, seed):
    yield Check("B3", dataset.name, "in time", 0.0, 0.0)
    # An engine may catch Ctrl-C, to return its best state so far: the run has to notice all the same.
    try:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal was not delivered")
    except KeyboardInterrupt:
        pass
    yield Check("B3", dataset.name, "too late", 1.0, 0.0)


def drawn(dataset, seed):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot(dataset.rows[:, 0], label="rows")
    axes.set_title(f"{dataset.name}, {seed}")
    return figure


def undrawable(dataset, seed):
    raise RuntimeError("no ink")


def settings(**changes):
    return VerifySettings(**{"claims": ["A", "B"], "data": ["blobs", "one_dimensional"], "seed": 7} | changes)


def run(*claims, **changes):
    return verify.run(claims, settings(**changes), lambda step: None)


def written(verification, folder):
    folder.mkdir()
    write(verification, folder)
    return (folder / "report.html").read_text(), json.loads((folder / "claims.json").read_text())


def test_every_claim_on_every_data_set():
    steps = []
    found = verify.run([claim("A1", good), claim("A2", bad, datasets=("blobs",))], settings(), steps.append)
    assert [(o.claim.id, o.dataset, o.holds) for o in found.outcomes] == [
        ("A1", "blobs", True),
        ("A1", "one_dimensional", True),
        ("A2", "blobs", False),
    ]
    shares = [step.done / step.total for step in steps if not step.outcomes]
    assert len(shares) == 4
    assert (shares[0], shares[-1]) == (0, pytest.approx(1))
    assert shares == sorted(set(shares))
    assert [[outcome.dataset for outcome in step.outcomes] for step in steps if step.outcomes] == [
        ["blobs", "one_dimensional", "blobs"]
    ]
    assert len({step.total for step in steps}) == 1
    assert [o.claim.id for o in found.failed] == ["A2"]


@pytest.mark.parametrize(
    ("check", "error"),
    [(bad, None), (undefined, None), (broken, "ZeroDivisionError: division by zero"), (silent, "nothing was compared")],
)
def test_what_does_not_hold_fails_and_the_rest_goes_on(check, error):
    found = run(claim("A1", check), claim("B1", good), data=["blobs"])
    assert [outcome.holds for outcome in found.outcomes] == [False, True]
    assert found.outcomes[0].error == error


def test_claims_are_chosen_by_name_and_by_letter():
    claims = [claim("A1", good), claim("A2", good), claim("B1", good)]
    found = verify.run(claims, settings(claims=["B", "A2"]), lambda step: None)
    assert [c.id for c in found.claims] == ["A2", "B1"]


def test_claims_without_their_data_are_refused():
    with pytest.raises(InputError, match=r"data on which they are checked \(overlapping\); name it with --data"):
        run(claim("A1", good, datasets=("overlapping",)))


def test_interruption_keeps_what_was_done(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    found = run(claim("A1", good), claim("B3", interrupting), claim("B4", good), data=["blobs"])
    assert signal.getsignal(signal.SIGINT) is before
    assert found.interrupted
    assert [outcome.claim.id for outcome in found.outcomes] == ["A1"]
    page, record = written(found, tmp_path / "run")
    assert record["interrupted"]
    assert "was interrupted" in page


def test_the_folder(tmp_path):
    first, last = claim("A1", good, figure=drawn), claim("B6", good, figure=undrawable)
    found = run(first, claim("B1", broken), claim("A3", undefined), last)
    page, record = written(found, tmp_path / "run")
    files = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*")}
    assert files == {"claims.json", "config.yaml", ENVIRONMENT, "figures", "figures/A1.png", "report.html"}
    assert record["failed"] == 4
    assert record["claims"][0]["datasets"][0]["checks"][0] == {
        "compared": "two <sides>",
        "residual": 1e-13,
        "tolerance": 1e-10,
        "holds": True,
        "numbers": {"rows": 400.0, "seed": 7},
    }
    assert record["claims"][2]["datasets"][0]["checks"][0]["residual"] is None
    resolved = YAML(typ="safe").load(tmp_path / "run" / "config.yaml")
    names = {"claims": ["A1", "B1", "A3", "B6"], "data": ["blobs", "one_dimensional"]}
    assert resolved == names | {"seed": 7, "output": None, "full": False}
    assert json.loads((tmp_path / "run" / ENVIRONMENT).read_text())["seed"] == 7
    assert "ZeroDivisionError: division by zero" in page
    assert "figure of B6 could not be drawn: RuntimeError: no ink" in page
    assert "two &lt;sides&gt;" in page


class _Reader(html.parser.HTMLParser):
    """Collects what a page asks for and what it defines; complains about tags that are not closed."""

    VOID = ("meta", "br", "mspace")

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.targets, self.requests = [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "xlink:href") and value.startswith("#"):
                self.targets.append(value[1:])
            # A link is followed by its reader alone.
            elif name in ("src", "href", "xlink:href") and not value.startswith("data:") and tag != "a":
                self.requests.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_stands_alone(tmp_path):
    last = claim("B6", good, figure=drawn, figure_caption="A caption")
    page, _ = written(run(claim("A1", good, figure=drawn), claim("A2", bad), last), tmp_path / "run")
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.requests == []
    assert "@import" not in page
    assert "<script" not in page
    assert len(set(reader.ids)) == len(reader.ids)
    assert set(reader.targets) <= set(reader.ids)
    assert page.count("<svg") == 2
    assert "var(--series-0)" in page


def test_the_page_without_pictures_or_groups(tmp_path):
    page, _ = written(run(claim("B1", good)), tmp_path / "run")
    assert 'id="group-A"' not in page
    assert "All of them hold" in page


@pytest.mark.parametrize("each", CLAIMS, ids=lambda each: each.id)
def test_every_real_claim_can_be_printed(each):
    rendered = str(formula(each.formula))
    rendered += "".join(str(prose(text)) for text in (each.title, each.statement, each.figure_caption))
    # The converter leaves a command that it does not know as it stands.
    assert "\\" not in rendered
    assert "$" not in rendered


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (1797, "1\u202f797"),
        (3.2e-13, "3.2 × 10⁻¹³"),
        (1e-10, "10⁻¹⁰"),
        (-0.25, "−0.25000"),
        (-379.91234, "−379.91"),
        (math.nan, "not a number"),
        (-math.inf, "−∞"),
        (np.float64(2.0), "2"),
        (True, "True"),
        ("ties", "ties"),
    ],
)
def test_numbers_in_print(value, text):
    assert number(value) == text


def test_formulas():
    assert str(formula(r"\arg\max_c p")) == str(formula(r"\argmax_c p"))
    assert "mspace" in str(formula(r"\log p"))
    assert str(prose("a & $x$")).startswith("a &amp; <math")


def test_the_closest_call_is_the_worst_failure_or_the_largest_part_of_its_tolerance():
    checks = tuple(Check("A1", "blobs", "", r, t) for r, t in ((1e-13, 1e-10), (5e-13, 1e-12), (0.0, 0.0)))
    assert shown(checks) == (checks[2], checks[1])
    worse = dataclasses.replace(checks[0], residual=math.nan)
    assert shown((*checks, dataclasses.replace(checks[0], residual=2.0), worse))[1] is worse


def test_an_exact_check_is_shown_beside_the_closest_call(tmp_path):
    page, _ = written(run(claim("B6", good), data=["blobs"]), tmp_path / "run")
    section = page[page.index('id="B6"') :]
    summary = section[section.index("<tbody>") : section.index("<details>")]
    assert summary.index("counts") < summary.index("two &lt;sides&gt;")


def itself(seed):
    yield Check("B8", NO_DATASET, "about no data", 0.0, 0.0, {"seed": seed})


def test_what_is_about_no_data_set_is_made_once(tmp_path):
    found = run(claim("B8", good, by_itself=itself), claim("H1", None, by_itself=itself), claims=["B", "H"])
    assert [(o.claim.id, o.dataset, len(o.checks)) for o in found.outcomes] == [
        ("B8", "blobs", 2),
        ("B8", "one_dimensional", 2),
        ("B8", NO_DATASET, 1),
        ("H1", NO_DATASET, 1),
    ]
    page, record = written(found, tmp_path / "run")
    assert f'<th scope="col">{NO_DATASET}</th>' in page
    assert record["checks"] == 6


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ({}, "open"),
        ({"B3": True, "B4": True, "B5": True}, "open"),
        ({"B3": True, "B4": None, "B5": True, "B6": True}, "open"),
        ({"B3": True, "B4": True, "B5": True, "B6": True, "A1": False}, "yes"),
        ({"B6": False}, "no"),
    ],
)
def test_the_answer_follows_the_results(verdicts, expected):
    assert answer(verdicts) == expected


def test_the_headline_follows_the_results(tmp_path):
    names = ("B3", "B4", "B5", "B6")
    holding = [claim(name, good) for name in (*names, "B10")]
    failing = [claim(name, undefined if name == "B5" else good) for name in names] + [claim("B10", bad)]
    pages = {
        name: written(run(*claims, data=["blobs"]), tmp_path / name)[0]
        for name, claims in (("yes", holding), ("no", failing), ("open", holding[:1]))
    }
    said = {name: page[page.index('class="answer"') : page.index('class="byline"')] for name, page in pages.items()}
    assert "Yes, with three restrictions" in said["yes"]
    assert "Each of the three is needed" in said["yes"]
    assert "Not as computed here" in said["no"]
    assert 'href="#B5"' in said["no"]
    assert "is claimed as well, and fails" in said["no"]
    assert "This run leaves it open" in said["open"]
    assert all("Yes" not in said[name] for name in ("no", "open"))


def test_a_figure_shares_the_process_of_what_it_shows():
    """That of a claim about no data set as well, on whichever it is drawn."""
    claims = {
        "A1": claim("A1", good, figure=good, figure_dataset="blobs"),
        "A2": claim("A2", None, by_itself=good, figure=good, figure_dataset="blobs"),
    }
    checks = [verify.Task("A1", "blobs"), verify.Task("A1", "iris"), verify.Task("A2", NO_DATASET)]
    figures = [verify.Task(name, "blobs", is_figure=True) for name in claims]
    datasets = {name: verify.load(name) for name in ("blobs", "iris")}
    units = verify._units(checks, figures, claims, datasets)
    expected = [{checks[1]}, {checks[0], figures[0]}, {checks[2], figures[1]}]
    assert {frozenset(unit) for unit in units} == {frozenset(unit) for unit in expected}
