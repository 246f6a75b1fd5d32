"""The families of all sites of a program, and choices that cannot be."""

import pytest

import probem
from probem.families.choice import choose_families
from probem.program.reading import read
from tests.programs.examples import EXAMPLES


def _chosen(name: str, families):
    example = EXAMPLES[name]
    chosen = choose_families(read(example.program, example.data), families)
    return chosen.assignments, chosen.conjugate


def test_families_are_chosen_by_site_by_corner_or_by_default() -> None:
    every = ("weights", "loc", "scale")
    assert _chosen("priors", None) == (probem.Categorical(), ())
    assert _chosen("priors", probem.EM) == (probem.Categorical(), ())
    assert _chosen("priors", probem.HARD_EM) == (probem.Delta(), ())
    assert _chosen("priors", {"t": probem.TopC(2), "loc": probem.Delta()}) == (probem.TopC(2), ())
    assert _chosen("priors", {"loc": probem.Conjugate()}) == (probem.Categorical(), ("loc",))
    assert _chosen("priors", probem.VARIATIONAL_BAYES) == (probem.Categorical(), every)
    assert _chosen("priors", probem.MAXIMIZATION_EXPECTATION) == (probem.Delta(), every)
    assert _chosen("priors", probem.VARIATIONAL_BAYES | {"scale": probem.Delta(), "t": probem.TopC(1)}) == (
        probem.TopC(1),
        ("weights", "loc"),
    )
    assert _chosen("nested", {"t": probem.Delta(), "z": probem.Delta()}) == (probem.Delta(), ())


@pytest.mark.parametrize(
    ("name", "families", "message"),
    [
        ("priors", {"tt": probem.Delta()}, r"a family for the unknown site 'tt'; expected .*; did you mean 't'"),
        ("priors", {"scales": probem.Delta()}, "unknown site 'scales'; expected .*; did you mean 'scale'"),
        ("priors", {"x": probem.Delta()}, "unknown site 'x'; .*; choose one of 'loc', 'scale', 't', 'weights'"),
        ("priors", {"loc": probem.Categorical()}, r"Categorical\(\) on the continuous site 'loc'; expected"),
        ("priors", {"t": "delta"}, r"'delta' as the family of 't'; expected a family; use Categorical\(\)"),
        ("priors", "EM", "families of type str; expected a mapping from site to family, or a named corner"),
        ("nested", {"weights": probem.Delta()}, "a family for 'weights', a param site without a prior; expected"),
        ("nested", {"t": probem.Delta()}, "different families for the assignments"),
        ("priors", {"t": probem.Conjugate()}, r"Conjugate\(\) on the assignment 't'; .*; use Categorical\(\) there"),
        (
            "nested",
            probem.VARIATIONAL_BAYES,
            "VARIATIONAL_BAYES for a program in which no site .* has a prior; expected",
        ),
        ("priors", probem.VARIATIONAL_BAYES | {"scal": probem.Delta()}, "unknown site 'scal'; .* did you mean 'scale'"),
    ],
)
def test_families_that_cannot_be(name: str, families, message: str) -> None:
    with pytest.raises(probem.InputError, match=message):
        _chosen(name, families)
