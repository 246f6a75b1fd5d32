"""The pages about experiments name what there is."""

import re
from pathlib import Path

import pytest

from probem.experiments.research.generators import GENERATORS
from probem.experiments.research.measures import MEASURES
from probem.experiments.research.resolution import CORNERS, FAMILIES
from probem.experiments.research.run import experiment_of
from probem.experiments.research.settings import STARTS, Experiment, FigureSettings, FitSettings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "experiments.md").read_text()
EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if "\nprogram:" in path.read_text())


def test_every_name_is_on_the_page():
    names = [*Experiment.model_fields, *FitSettings.model_fields, *FigureSettings.model_fields, *MEASURES, *FAMILIES]
    for name in [*names, *GENERATORS, *CORNERS, *STARTS]:
        assert re.search(rf"`[^`\n]*(?<!\w){re.escape(name)}(?!\w)[^`\n]*`", PAGE), name


def test_the_file_on_the_page_runs(tmp_path):
    text = re.search(r"```yaml\n(title: .*?)```", PAGE, flags=re.DOTALL)[1]
    (tmp_path / "x.yaml").write_text(text)
    experiment, _ = experiment_of(tmp_path / "x.yaml")
    assert len(experiment.each_seed) == 20


def test_every_experiment_has_a_page_and_a_line():
    assert len(EXPERIMENTS) >= 8
    assert sorted(path.stem for path in (ROOT / "docs" / "experiments").glob("*.md")) == EXPERIMENTS
    assert sorted(re.findall(r"\]\(experiments/(\w+)\.md\)", PAGE)) == EXPERIMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_page_is_about_its_file(name):
    """The numbers of cells, seeds and fits that a page begins with are those of the file."""
    from probem.experiments.research.cells import cells_of

    experiment, folder = experiment_of(ROOT / "configs" / f"{name}.yaml")
    page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text()
    cells, seeds = len(cells_of(experiment, folder)), len(experiment.each_seed)
    assert page.startswith(f"# {experiment.title}\n")
    assert f"`probem run configs/{name}.yaml` ({cells} cells, {seeds} seeds, {cells * seeds} fits;" in page
    assert "## What was found" in page
