"""Experiment files: what is wrong in one is said with its place and the nearest right name, all at once."""

import itertools
import re

import pytest

from probem.errors import InputError
from probem.experiments.research.cells import cells_of
from probem.experiments.research.run import experiment_of, main
from probem.runs.config import ConfigError
from tests.experiments.research.experiments import OWN, SMALL, TEXT, changed


def faults(path, text, sets=()):
    """The place and the sentence of everything that is wrong with a file."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        experiment_of(path, sets)
    return [(fault.line, fault.key, str(fault)) for fault in caught.value.faults]


# What takes the place of what in the file, where the fault is, and words of the sentence.
WRONG = [
    ("seeds: 3", "sedes: 3", 11, "sedes", "did you mean 'seeds'"),
    ("seeds: 3", "seeds: 0", 11, "seeds", "greater than or equal to 1"),
    ("bayesian_gmm", "bayesian_gm", 2, "program.name", "did you mean 'bayesian_gmm'"),
    ("num_components: 2", "num_component: 2", 3, "program.num_component", "did you mean 'num_components'"),
    (
        "num_components: 2",
        "num_components: two",
        3,
        "program.num_components",
        r"'two' \(text\); expected a whole number",
    ),
    ("num_components: 2", "num_components: 2.5", 3, "program.num_components", "expected a whole number"),
    ("covariance: spherical", "covariance: sphericl", 4, "program.covariance", "did you mean 'spherical'"),
    ("strength: 0.1, dof", "strenth: 0.1, dof", 5, "program.prior.strenth", "did you mean 'strength'"),
    ("dof: 4.0", "dof: much", 5, "program.prior.dof", r"'much' \(text\); expected numbers"),
    ("rows: 6", "rows: six", 6, "data.rows", "expected a whole number"),
    ("rows: 6", "row: 6", 6, "data.row", "did you mean 'rows'"),
    ("rows: 6", "seed: 6", 6, "data.seed", "got an unknown key"),
    ("rows: 6", "held_out: 1.5", 6, "data.held_out", r"a share of the rows in \[0, 1\)"),
    ("gaussian_clusters", "gaussian_cluster", 6, "data.name", "did you mean 'gaussian_clusters'"),
    ("gaussian_clusters", "nowhere.csv", 6, "data.name", "no file at"),
    ("{name: gaussian_clusters, rows", "{name: nowhere.csv, columns", 6, "data.columns", "expected a list of names"),
    ("gaussian_clusters", "nowhere.py:f", 6, "data.name", "no file at"),
    ("VARIATIONAL_BAYES", "VARIATIONAL", 7, "families", "did you mean 'VARIATIONAL_BAYES'"),
    ("VARIATIONAL_BAYES", "{t: deltas}", 7, "families.t", "did you mean 'delta'"),
    ("VARIATIONAL_BAYES", "{t: {name: tempered, beta: -1}}", 7, "families.t", "expected a positive, finite beta"),
    ("VARIATIONAL_BAYES", "{t: {name: tempered, betta: 1}}", 7, "families.t.betta", "did you mean 'beta'"),
    ("  data.sep", "  dato.sep", 9, "grid.dato.separation", "did you mean 'data'"),
    ("  data.sep", "  data.seb", 9, "grid.data.sebaration", "did you mean 'separation'"),
    ("[0.1, 1.0]", "[0.1, strong]", 10, "grid.program.prior.strength[1]", r"'strong' \(text\); expected numbers"),
    ("[0.1, 1.0]", "0.1", 8, "grid", "lists of values"),
    ("evidence, evidence_gap", "evidense, evidence_gap", 12, "measure[1]", "did you mean 'evidence'"),
    ("steps]", "elbo]", 12, "measure[3]", "every measure once"),
    ("{x: data.separation", "{x: data.separatio", 14, "figures[0].x", "did you mean 'data.separation'"),
    ("y: [evidence, elbo]", "y: [evidence, ebo]", 14, "figures[0].y[1]", "did you mean 'elbo'"),
    ("colour:", "color:", 14, "figures[0].color", "did you mean 'colour'"),
    (
        "y: [evidence, elbo]",
        "y: [evidence, steps]",
        14,
        "figures[0].y",
        r"evidence \(nats, total\) and steps \(without",
    ),
    (
        "colour: program.prior.strength",
        "against: null",
        14,
        "figures[0].against",
        "got nothing; expected a mapping of names to values; give it a value, or leave the key out",
    ),
    (
        "colour: program.prior.strength",
        "against: {program.prior.strngth: 1}",
        14,
        "figures[0].against.program.prior.strngth",
        "did you mean 'program.prior.strength'",
    ),
    (
        "colour: program.prior.strength",
        "against: {program.prior.strength: 2}",
        14,
        "figures[0].against.program.prior.strength",
        "got 2.*one of 0.1, 1",
    ),
    (
        "colour: program.prior.strength",
        "against: {program.prior.strength: 1}, log: [y]",
        14,
        "figures[0].log",
        "numbers of either sign",
    ),
    ("seeds: 3", "seeds: four", 11, "seeds", r"got 'four' \(text\); expected a whole number, or a list; change"),
    ("seeds: 3", "seeds: 3\nfit: {restart: 2}", 12, "fit.restart", "did you mean 'restarts'"),
    ("seeds: 3", "seeds: 3\nfit: {init: loyd}", 12, "fit.init", "did you mean 'lloyd'"),
    ("seeds: 3", "seeds: 3\nfit: {acceleration: squarm}", 12, "fit.acceleration", "did you mean 'squarem'"),
    ("seeds: 3", "seeds: 3\nfit: {acceleration: 2}", 12, "fit.acceleration", "a name, or a mapping"),
    (
        "seeds: 3",
        "seeds: 3\nfit: {acceleration: {name: anderson, memory: 0}}",
        12,
        "fit.acceleration",
        "memory=0 in Anderson; expected a whole number of at least 1",
    ),
    (
        "seeds: 3",
        "seeds: 3\nfit: {acceleration: {name: squarem, grwth: 2}}",
        12,
        "fit.acceleration.grwth",
        "did you mean 'growth'",
    ),
]


@pytest.mark.parametrize(("old", "new", "line", "key", "words"), WRONG)
def test_a_fault_is_said_with_its_place_and_the_nearest_name(tmp_path, old, new, line, key, words):
    assert TEXT.count(old) >= 1
    found = faults(tmp_path / "x.yaml", TEXT.replace(old, new, 1))
    assert re.search(words, next(said for where, what, said in found if (where, what) == (line, key)))


def test_a_count_and_a_share_are_no_measures_of_one_unit(tmp_path):
    text = TEXT.replace("steps]", "occupied, converged]", 1).replace(
        "y: [evidence, elbo]", "y: [occupied, converged]", 1
    )
    ((_, key, said),) = faults(tmp_path / "x.yaml", text)
    assert (key, "measures of one unit" in said) == ("figures[0].y", True)


def test_differences_from_what_all_cells_have_are_refused(tmp_path):
    text = TEXT.replace("[0.1, 1.0]", "[0.1]").replace("colour:", "against: {").replace("strength}", "strength: 0.1}}")
    ((_, key, said),) = faults(tmp_path / "x.yaml", text)
    assert key == "figures[0].against.program.prior.strength"
    assert "0.1, which all cells have" in said


def test_all_faults_are_said_at_once(tmp_path):
    text = (
        TEXT.replace("num_components: 2", "num_component: 2").replace("rows: 6", "rows: six").replace("[elbo", "[ebo")
    )
    found = faults(tmp_path / "x.yaml", text)
    # In the order of the file; a key that is missing stands where its mapping begins.
    assert [(line, key) for line, key, _ in found] == [
        (1, "program.num_components"),
        (3, "program.num_component"),
        (6, "data.rows"),
        (12, "measure[0]"),
        (14, "figures[0].y[1]"),
    ]


def test_a_mapping_has_no_lines():
    with pytest.raises(ConfigError, match=r"^the experiment: data\.rows: got 'six' \(text\); expected a whole number"):
        experiment_of(changed(data={"name": "gaussian_clusters", "rows": "six"}, grid=None, figures=None))


@pytest.mark.parametrize(
    ("text", "cells", "path", "values"),
    [
        ("program.prior.strength=0.5", 3, "prior", 0.5),
        ("prior.strength=0.5", 3, "prior", 0.5),
        ("prior.strength=0.1,0.5,2", 9, "prior", None),
        ("separation=3", 2, "separation", 3),
        ("restarts=2,4", 12, "restarts", None),
        ("data.rows=5", 6, "rows", 5),
    ],
)
def test_set(text, cells, path, values):
    experiment, folder = experiment_of(SMALL, [text])
    made = cells_of(experiment, folder)
    assert len(made) == cells
    if values is not None:
        sections = [cell.settings for cell in made]
        taken = {"prior": lambda s: s["program"]["prior"]["strength"], "separation": lambda s: s["data"]["separation"]}
        assert {taken.get(path, lambda s: s["data"]["rows"])(each) for each in sections} == {values}


def test_set_reaches_seeds():
    assert experiment_of(SMALL, ["seeds=7"])[0].each_seed == tuple(range(7))
    assert experiment_of(SMALL, ["seeds=7,3"])[0].each_seed == (7, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("strenth=1", "a section of the experiment takes"),
        ("prior.strenth=1", "did you mean 'strength'"),
        ("prior.strength", "path=value"),
        ("prior.strength=", "path=value"),
        ("prior.strength=much", r"'much' \(text\); expected numbers"),
        ("x=1", "a section of the experiment takes"),
    ],
)
def test_set_refuses(text, words):
    with pytest.raises(InputError, match=words):
        experiment_of(SMALL, [text])


def test_cells_of_one_structure_are_neighbours_and_floats_are_no_structure():
    experiment, folder = experiment_of(
        changed(
            grid={
                "program.num_components": [1, 2],
                "data.separation": [0.0, 2.0],
                "program.prior.strength": [0.1, 1.0],
                "data.rows": [5, 6],
            },
            figures=None,
        )
    )
    structures = [cell.structure for cell in cells_of(experiment, folder)]
    assert len(structures) == 16
    assert len(set(structures)) == 4
    assert sum(first != second for first, second in itertools.pairwise(structures)) == 3


def test_keys_say_what_a_cell_resolves_to(tmp_path):
    """Equal settings have equal keys, in whatever order they are written; a source or a measure changes it."""

    def keys(**changes):
        experiment, folder = experiment_of(changed(figures=None, **changes))
        return [cell.key for cell in cells_of(experiment, folder)]

    first = keys()
    assert len(set(first)) == 6
    assert set(keys(grid={"program.prior.strength": [1.0, 0.1], "data.separation": [8.0, 0.0, 2.0]})) == set(first)
    # Seeds are no part of the key of a cell.
    assert keys(seeds=9) == first
    assert not set(keys(measure=["elbo"])) & set(first)
    assert not set(keys(fit={"restarts": 2})) & set(first)
    file = tmp_path / "own.py"
    file.write_text(OWN)
    own = {"program": {"name": f"{file}:mixture", "K": 2}, "families": "EM", "grid": None, "measure": ["elbo"]}
    (before,) = keys(**own)
    assert keys(**own) == [before]
    file.write_text(OWN.replace("spread=1.0", "spread=2.0"))
    assert keys(**own) != [before]


def test_several_grids_and_whole_sections():
    experiment, folder = experiment_of(
        changed(
            grid=[
                {"program": [{"name": "gmm", "num_components": 2}, {"name": "kmeans", "num_components": 2}]},
                {"families": ["EM", "HARD_EM"], "data.separation": [1.0]},
            ],
            figures=None,
            measure=["elbo"],
        )
    )
    axes = [dict(cell.axes) for cell in cells_of(experiment, folder)]
    said = [(each["program"], each["families"], each["data.separation"]) for each in axes]
    assert sorted(said) == [
        ("bayesian_gmm", "EM", 1.0),
        ("bayesian_gmm", "HARD_EM", 1.0),
        ("gmm", "VARIATIONAL_BAYES", 2.0),
        ("kmeans", "VARIATIONAL_BAYES", 2.0),
    ]


def test_a_file_that_is_not_there():
    with pytest.raises(InputError, match="no file at nowhere"):
        main("nowhere.yaml")


ODD = [
    None,
    3,
    -1,
    0.5,
    "x",
    "",
    "x.py",
    "x.py:f",
    "x.csv",
    [],
    {},
    [1, "a"],
    [[1], [2, 3]],
    {"name": "x"},
    True,
    {"a": {}},
]


def leaves(value, key=()):
    """The keys of everything in an experiment, mappings and lists themselves included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [key, *(leaf for name, each in inner for leaf in leaves(each, (*key, name)))]


def replaced(value, key, new):
    """The experiment with something else at a key."""
    if not key:
        return new
    copied = value.copy()
    copied[key[0]] = replaced(value[key[0]], key[1:], new)
    return copied


def is_taken_or_refused(experiment):
    """Whether it is refused by faults with their places, or is an experiment with cells."""
    try:
        right, folder = experiment_of(experiment)
    except ConfigError as error:
        return bool(error.faults) and all(fault.got and fault.expected and fault.remedy for fault in error.faults)
    return bool(cells_of(right, folder))


@pytest.mark.slow
@pytest.mark.parametrize("key", leaves(changed(fit={"restarts": 2}))[1:], ids=str)
def test_whatever_stands_somewhere_is_taken_or_refused(key):
    for odd in ODD:
        assert is_taken_or_refused(replaced(changed(fit={"restarts": 2}), key, odd)), odd


@pytest.mark.parametrize(
    "path",
    [
        *("program", "program.name", "program.prior", "program.covariance", "program.weights"),
        *("data", "data.name", "data.weights", "data.held_out", "data.standardise"),
        *("families", "families.t", "families.name", "fit", "fit.init", "fit.tolerance"),
    ],
)
def test_whatever_stands_in_a_grid_is_taken_or_refused(path):
    for odd in ODD:
        assert is_taken_or_refused(changed(grid={path: [odd]}, figures=None)), odd
