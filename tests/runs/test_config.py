"""Configuration files: strict, all faults at once, each with its place."""

import importlib.resources
from typing import Annotated

import pydantic
import pytest

from probem.errors import InputError
from probem.runs.config import ConfigError, StrictModel, one_of, read


class Run(StrictModel):
    repeats: Annotated[int, pydantic.Field(ge=1)]
    tolerance: float = 1e-9


class Example(StrictModel):
    seed: int
    data: list[Annotated[str, one_of(("iris", "wine"))]]
    runs: list[Run] = pydantic.Field(default_factory=list)
    output: str | None = None


def written(tmp_path, text):
    path = tmp_path / "example.yaml"
    path.write_text(text)
    return path


def faults(tmp_path, text):
    with pytest.raises(ConfigError, match=r"example\.yaml") as caught:
        read(written(tmp_path, text), Example)
    return [(fault.line, fault.key, str(fault)) for fault in caught.value.faults]


def test_reads_a_right_file(tmp_path):
    settings = read(written(tmp_path, "seed: 3\ndata: [iris]\nruns:\n- repeats: 2\n  tolerance: 1e-7\n"), Example)
    assert settings == Example(seed=3, data=["iris"], runs=[Run(repeats=2, tolerance=1e-7)])


def test_all_faults_at_once_in_the_order_of_the_file(tmp_path):
    text = "seed: '3'\ndata: [iris, whine]\nruns:\n- repeats: 0\n  tolerence: 1\nsede: 4\nseed: 5\noutput: [a]\n"
    found = faults(tmp_path, text)
    assert [(line, key) for line, key, _ in found] == [
        (1, "seed"),
        (2, "data[1]"),
        (4, "runs[0].repeats"),
        (5, "runs[0].tolerence"),
        (6, "sede"),
        (7, "seed"),
        (8, "output"),
    ]
    sentences = [sentence.split("example.yaml")[1] for _, _, sentence in found]
    assert sentences[0] == ":1: seed: got '3' (text); expected a whole number; change the value."
    assert sentences[1] == ":2: data[1]: got 'whine' (text); expected one of iris, wine; did you mean 'wine'."
    assert "greater than or equal to 1" in sentences[2]
    assert sentences[3].endswith("got an unknown key; expected one of repeats, tolerance; did you mean 'tolerance'.")
    assert sentences[4].endswith("did you mean 'seed'.")
    assert "a second time (first on line 1)" in sentences[5]


@pytest.mark.parametrize("value", ["true", "1.0", "1e3", "[1]", "null", "0x", "2022-07-25"])
def test_nothing_is_coerced_to_a_whole_number(tmp_path, value):
    assert [(line, key) for line, key, _ in faults(tmp_path, f"seed: {value}\ndata: []\n")] == [(1, "seed")]


def test_missing_key_names_itself_and_the_mapping_that_lacks_it(tmp_path):
    assert [(line, key) for line, key, _ in faults(tmp_path, "data: []\nruns:\n- tolerance: 1\n")] == [
        (1, "seed"),
        (3, "runs[0].repeats"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got nothing in .*example.yaml; expected a YAML mapping"),
        ("# only a remark\n", "got nothing in"),
        ("seed: [1\ndata: 3\n", r"broken YAML at .*example.yaml:2:5 \(expected ',' or '\]'"),
        ("\tseed: 1", r"broken YAML at .*example.yaml:1:1"),
        ("seed: 1\n---\nseed: 2\n", "broken YAML at .*another document"),
        ("a: &a [1]\nb: *a\n", r"broken YAML at .*:2:4 \(found an alias"),
        ("seed: !!python/object/apply:os.system ['true']", "got .*expected"),
        ("seed: \0", "broken YAML in"),
        ("seed: |\n \n   \n", "broken YAML at .*more indented"),
        ("seed: 2022-13-01", "broken YAML in .*month"),
        ("[" * 200 + "]" * 200, "broken YAML at .*depth"),
        ("- seed", "got .*list.*expected a mapping of settings"),
        ("seed", "got 'seed' .*expected a mapping of settings"),
        ("? [a]\n: 1\n", "list or mapping as a key"),
    ],
)
def test_what_is_not_a_mapping_is_one_sentence(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(written(tmp_path, text), Example)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"got no file at .*absent\.yaml"):
        read(tmp_path / "absent.yaml", Example)
    with pytest.raises(InputError, match="got a folder at"):
        read(tmp_path, Example)
    (tmp_path / "latin.yaml").write_bytes("seed: \xe9".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        read(tmp_path / "latin.yaml", Example)


def test_the_default_configuration_is_found_through_the_package():
    from probem.experiments.outcomes.record import VerifySettings

    settings = read(importlib.resources.files("probem.configs") / "verify.yaml", VerifySettings)
    assert settings.claims == list("ABCDEFGH")
    assert settings.data is None
