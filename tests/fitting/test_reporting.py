"""What a fit prints while it runs: lines beside the history of the fit that they are about."""

import io
import re

import numpy as np
import pytest

import probem
from probem.fitting.reporting import Reporter, check_verbose
from tests.programs.fits import PROGRAM, START, X

LINE = re.compile(r"iteration +(\d+)  F = (\S+) nats(?: \(highest of (\d+)\))?(?:  rise (\S+))?")


def lines(text):
    """Number, F, restarts and rise of every line printed."""
    found = [LINE.fullmatch(line) for line in text.splitlines()]
    assert all(found), text
    return [match.groups() for match in found]


def test_every_iteration_is_told_with_its_bound_and_rise(capsys):
    fit = probem.fit(PROGRAM, X, init=START, tolerance=1e-12, verbose=2)
    printed = capsys.readouterr()
    told = lines(printed.out)
    assert printed.err == ""
    bounds = fit.history.elbo[::2]
    assert [int(number) for number, *_ in told] == list(range(1, fit.num_steps + 1))
    np.testing.assert_allclose([float(bound) for _, bound, *_ in told], bounds, atol=1e-6)
    assert float(told[-1][1]) == pytest.approx(fit.elbo, abs=1e-6)
    assert told[0][3] is None
    # Three digits of a rise; below 1e-9 they are those of rounding.
    np.testing.assert_allclose([float(rise) for *_, rise in told[1:]], np.diff(bounds), rtol=5e-3, atol=1e-9)


def test_some_iterations_and_the_last_are_told(capsys):
    fit = probem.fit(PROGRAM, X, init=START, tolerance=1e-12, verbose=1)
    numbers = [int(number) for number, *_ in lines(capsys.readouterr().out)]
    assert fit.num_steps > 20
    assert numbers == [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if n < fit.num_steps] + [fit.num_steps]


@pytest.mark.slow
def test_of_several_restarts_the_highest_bound_is_told(capsys):
    """Those that have ended stay where they are."""
    options = {"restarts": 5, "init": probem.RandomRows(), "key": 1}
    fit = probem.fit(PROGRAM, X, verbose=2, throw=False, **options)
    told = lines(capsys.readouterr().out)
    assert {count for _, _, count, _ in told} == {"5"}
    bounds = np.array([float(bound) for _, bound, *_ in told])
    assert (np.diff(bounds) >= -1e-6).all()
    assert bounds[-1] == pytest.approx(fit.restart_elbos.max(), abs=1e-6)
    assert len(told) >= fit.num_steps
    # In every iteration at least as high as the start that is kept.
    assert (bounds[: fit.num_steps] >= fit.history.elbo[::2] - 1e-6).all()


@pytest.mark.parametrize("verbose", [None, 0, False])
def test_nothing_is_said_where_nothing_was_asked_for(verbose, capsys):
    """A bar is for terminals, and no test runs in one."""
    probem.fit(PROGRAM, X, init=START, verbose=verbose)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_a_bar_is_shown_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("probem.fitting.reporting._DELAY", 0)
    with Reporter(None, 100) as reporter:
        reporter.moved(3, -12.5)
        reporter.bar.refresh()
    assert "3/100" in terminal.getvalue()
    assert "F = -12.5" in terminal.getvalue()


SENTENCE = "expected None (a bar), 0 (nothing), 1 (a line for some iterations) or 2 (for each)"


def test_levels_that_are_none_are_refused():
    for call in (
        lambda: probem.fit(PROGRAM, X, init=START, verbose=-1),
        lambda: probem.select({"a": PROGRAM}, X, verbose=-1),
    ):
        with pytest.raises(probem.InputError, match=re.escape(f"got verbose=-1; {SENTENCE}")):
            call()
    for verbose in (1.5, "1"):
        with pytest.raises(probem.InputError, match=re.escape(f"got verbose={verbose!r}; {SENTENCE}")):
            check_verbose(verbose)
