"""``probem verify``: what it prints and writes, and how it says no."""

import io
import json
import os
import re
import signal
from pathlib import Path

import pytest

from probem.experiments.claims.claim import Check, Claim
from probem.experiments.outcomes import all_claims
from probem.experiments.outcomes.all_claims import GROUPS
from probem.experiments.verification import verify
from tests.cli.invoking import invoke


def claim(name, residual):
    def check(dataset, seed):
        yield Check(name, dataset.name, f"seed {seed}", residual, 1e-10)

    return Claim(name, f"Title of {name}", "In words.", "x = y", "lecture", check)


@pytest.fixture
def claims(monkeypatch):
    """Two claims in place of the real ones, the second of which fails."""
    monkeypatch.setattr(verify, "CLAIMS", (claim("A1", 1e-12), claim("B1", 1.0)))
    # Other processes would know nothing of these claims.
    monkeypatch.setattr(verify, "MAX_PROCESSES", 1)


@pytest.mark.usefixtures("claims")
def test_verify_passes_and_writes_its_folder():
    result = invoke("verify", "--claims", "A1", "--data", "iris,blobs", "--seed", 5, "--out", "here")
    assert result.exit_code == 0, result.output
    assert "\nA  The bound underneath\nA1  Title of A1" in result.stdout
    (line,) = (line for line in result.stdout.splitlines() if "Title of A1" in line)
    assert line.split()[4:] == ["2/2", "10⁻¹²", "≤", "10⁻¹⁰", "holds"]
    assert "2 comparisons in" in result.stdout
    assert "Claims on data sets: 2 hold, none fails." in result.stdout
    assert "\x1b" not in result.output
    assert sorted(os.listdir("here")) == ["claims.json", "config.yaml", "environment.json", "figures", "report.html"]
    again = invoke("verify", "--config", "here/config.yaml", "--out", "here")
    assert again.exit_code == 0, again.output


@pytest.mark.usefixtures("claims")
def test_verify_fails_by_its_exit_code():
    result = invoke("verify", "--data", "iris")
    assert result.exit_code == 1
    assert "1 fail: B1 on iris" in result.stdout
    assert "B1 on iris: seed" in result.stdout
    assert result.stdout.index("k-means inside EM") < result.stdout.index("The bound underneath")
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("verify-")


@pytest.mark.usefixtures("claims")
def test_every_comparison_is_named_by_a_full_run():
    result = invoke("verify", "--claims", "A1", "--data", "iris,blobs", "--seed", 5, "--full")
    assert result.exit_code == 0, result.output
    lines = [line.split()[:2] for line in result.stdout.splitlines() if "seed 5" in line]
    assert lines == [["A1", "iris"], ["A1", "blobs"]]


def test_a_line_fits_a_terminal_of_eighty_columns(monkeypatch):
    from rich.console import Console

    from probem.cli import verifying
    from probem.experiments.outcomes.record import Outcome

    outcomes = tuple(
        Outcome(each, "iris", (Check(each.id, "iris", "both sides", 1.234e-107, 1.2e-100),), 0.0)
        for each in all_claims.CLAIMS
        if each.id[0] == "B"
    )
    output = Console(width=80, record=True, file=io.StringIO())
    verifying._print_group(output, outcomes)
    lines = output.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 2 + len(outcomes)
    assert all(line.rstrip().endswith("holds") for line in lines[2:])


def test_verify_writes_what_was_done_before_ctrl_c(monkeypatch):
    def check(dataset, seed):
        os.kill(os.getpid(), signal.SIGINT)
        yield Check("B1", dataset.name, "never reached", 0.0, 0.0)

    second = Claim("B1", "Title", "In words.", "x = y", "lecture", check)
    monkeypatch.setattr(verify, "CLAIMS", (claim("A1", 1e-12), second))
    monkeypatch.setattr(verify, "MAX_PROCESSES", 1)
    result = invoke("verify", "--data", "iris", "--out", "here")
    assert result.exit_code == 130
    assert "Interrupted: this is what was done until then." in result.stdout
    assert "never reached" not in result.stdout
    assert "Title of A1" in result.stdout
    assert json.loads(Path("here/claims.json").read_text())["checks"] == 1


def test_ctrl_c_before_there_is_anything_to_write(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "main", interrupted)
    result = invoke("verify")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted: nothing was written.\n"
    assert os.listdir() == []


@pytest.mark.usefixtures("claims")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--claims", "A1,Z1"), f"got the claim 'Z1'; expected one of {', '.join(GROUPS)}, A1"),
        (("--data", "irs"), "got the data set 'irs'; expected one of iris, .*; did you mean 'iris'"),
        (("--data", "iris,,wine"), "an empty name"),
        (("--config", "absent.yaml"), "got no file at absent.yaml"),
        (("--out", "mine"), "got mine, which exists and holds no results of probem"),
        (("--seed", "-1"), "-1 is not in the range"),
    ],
)
def test_verify_refuses(arguments, message):
    Path("mine").mkdir()
    Path("mine/letter").write_text("dear")
    result = invoke("verify", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.search(message, result.stderr)
    assert os.listdir() == ["mine"]


def test_verify_reports_all_faults_of_a_configuration():
    Path("mine.yaml").write_text("claims: [A, Z]\ndata: iris\nsede: 3\n")
    result = invoke("verify", "--config", "mine.yaml")
    assert result.exit_code == 2
    lines = result.stderr.removeprefix("Error: ").splitlines()
    assert [line.split(" ")[0] for line in lines] == ["mine.yaml:1:", "mine.yaml:1:", "mine.yaml:2:", "mine.yaml:3:"]
    assert lines[-1].endswith("did you mean 'seed'.")
