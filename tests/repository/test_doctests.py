"""The examples in the docstrings of the public verbs print what they say, warnings being errors as in every test."""

import doctest
import inspect

import pytest

import probem

VERBS = {f"probem.{name}": own for name in probem.__all__ if inspect.isfunction(own := getattr(probem, name))}
METHODS = {f"probem.Fit.{name}": getattr(probem.Fit, name) for name in ("log_density", "predict", "summary")}
EXAMPLES = VERBS | METHODS


def failures(text, name):
    """What the examples in a docstring print in place of what they say, and how many there are."""
    example = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    said = []
    # Without options: what is printed is compared as it stands.
    found = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    return "".join(said), found.attempted


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_print_what_they_say(name):
    text = inspect.getdoc(EXAMPLES[name])
    assert "\nExamples\n--------\n>>> " in text
    said, count = failures(text, name)
    assert count > 0
    assert not said, said


def test_what_is_printed_is_compared():
    assert failures("The sum.\n\n>>> 1 + 1\n2\n", "right") == ("", 1)
    said, count = failures("The sum.\n\n>>> 1 + 1\n3\n", "wrong")
    assert count == 1
    assert "Expected:\n    3\nGot:\n    2\n" in said
    assert "NameError" in failures("The sum.\n\n>>> x + 1\n3\n", "broken")[0]
