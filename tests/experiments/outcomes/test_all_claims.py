"""Which claims there are: those of every module of a subject, in the order of their numbers."""

import importlib

from probem.experiments.outcomes.all_claims import CLAIMS, GROUPS, NAMES, claims_of

MODULE = """
from probem.experiments.claims.claim import Check, Claim

def check(dataset, seed):
    yield Check("B11", dataset.name, "nothing, and nothing", 0.0, 0.0)

CLAIMS = (Claim("B11", "Title", "In words.", "x = x", "direct", check),)
"""


def test_every_claim_has_a_number_of_its_own_and_its_place() -> None:
    numbers = [(claim.id[0], int(claim.id[1:])) for claim in CLAIMS]
    assert numbers == sorted(set(numbers))
    assert NAMES[: len(GROUPS)] == GROUPS == tuple(sorted({letter for letter, _ in numbers}))


def test_a_claim_is_one_file(tmp_path, monkeypatch) -> None:
    package = tmp_path / "subject_with_a_claim"
    (package / "inner").mkdir(parents=True)
    for path, text in {"__init__.py": "", "inner/__init__.py": "", "inner/some.py": MODULE, "other.py": ""}.items():
        (package / path).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (claim,) = claims_of(importlib.import_module(package.name))
    assert claim.id == "B11"


def test_every_claim_has_a_figure_and_words_for_it() -> None:
    assert [claim.id for claim in CLAIMS if claim.figure is None or not claim.figure_caption] == []
