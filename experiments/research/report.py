"""The folder of a sweep: results line by line and as tables, settings, environment, figures and report.html."""

import collections
import functools
import importlib.resources
import io
import os
import platform
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from probem.experiments.claims.drawing import draw
from probem.experiments.report.report import count, number
from probem.runs.folders import ENVIRONMENT, versions, write_json

from .figures import caption, draw_figure
from .log import append
from .resolution import name_of
from .results import Results
from .settings import Experiment

RESULTS = "results.jsonl"
# Cells in the table of the report.
_SHOWN = 200


def write(results: Results, folder: Path, started: datetime, base: Path) -> None:
    """Write everything that a sweep leaves behind into an existing folder.

    Relative paths of the experiment begin at ``base``; in its copy they begin where the results will stand.
    """
    environment = environment_of(results, started)
    append(folder / RESULTS, (*results.lines, *results.others))
    frame = results.to_polars()
    frame.write_csv(folder / "results.csv")
    frame.write_parquet(folder / "results.parquet")
    write_json(folder / ENVIRONMENT, environment)
    settings = as_yaml(results.experiment, functools.partial(_moved, base, results.folder or folder))
    (folder / "config.yaml").write_text(settings, encoding="utf-8")
    (folder / "figures").mkdir()
    pictures = []
    for place, settings in enumerate(results.experiment.figures, start=1):
        drawing = draw(lambda settings=settings: draw_figure(results, settings), prefix=f"figure-{place}")
        (folder / "figures" / f"figure-{place}.png").write_bytes(drawing.png)
        pictures.append({"svg": _markup(drawing.svg), "caption": caption(results, settings)})
    (folder / "report.html").write_text(_page(results, environment, pictures), encoding="utf-8")


def environment_of(results: Results, started: datetime) -> dict[str, Any]:
    """Versions, machine, seeds and time of a sweep."""
    import jax

    return {
        "versions": versions("jax", "jaxlib", "numpyro", "numpy", "scikit-learn", "scipy", "polars"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": jax.default_backend(),
        "precision": "float64",
        "seeds": list(results.experiment.each_seed),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(results.seconds, 1),
        "lines": len(results),
        "resumed": results.num_resumed,
    }


def _moved(base: Path, destination: Path, text: str) -> str:
    """A text that names a file below ``base``, or a function in one, as it is said from ``destination``."""
    path, colon, function = text.partition(":") if ".py:" in text else (text, "", "")
    if Path(path).is_absolute() or not (base / path).is_file():
        return text
    return Path(os.path.relpath(base / path, destination)).as_posix() + colon + function


def as_yaml(experiment: Experiment, moved: Callable[[str], str] = str) -> str:
    """The settings of an experiment, all of them, as a file that can be run; ``moved`` is applied to every text."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        if isinstance(value, str):
            return moved(value)
        return f"<function {name_of(value)}>" if callable(value) else value

    text = io.StringIO()
    YAML().dump(plain(experiment.model_dump(exclude_none=True)), text)
    return text.getvalue()


def endings(results: Results) -> str:
    """How many fits ended how, in a sentence; empty if all converged and were measured."""
    ended = collections.Counter(line.result for line in results.unconverged)
    said = [f"{count(len(results) - sum(ended.values()), 'fit')} of {number(len(results))} converged"] if ended else []
    said += [f"{number(many)} ended as {result}" for result, many in ended.most_common()]
    if results.unmeasured:
        said.append(f"a measure failed for {count(len(results.unmeasured), 'fit')} that converged")
    return "; ".join(said) + "." if said else ""


def title_of(experiment: Experiment) -> str:
    """The title, or the name of the program."""
    program = experiment.program
    return experiment.title or name_of(program["name"] if isinstance(program, dict) else program)


def _page(results: Results, environment: dict[str, Any], pictures: list[dict[str, Any]]) -> str:
    import jinja2

    style = importlib.resources.files("probem.experiments.report").joinpath("report.css")
    template = importlib.resources.files(__name__.rpartition(".")[0]).joinpath("report.html.jinja")
    jinja = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    heading, *table = results.table()
    bad = {
        name: [
            {
                "cell": ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in line.axes.items()),
                "seed": line.seed,
                "result": line.result,
                "message": line.message,
            }
            for line in getattr(results, name)
        ]
        for name in ("unconverged", "unmeasured")
    }
    others = {name: value for name, value in environment.items() if name not in ("versions", "seeds")}
    return jinja.from_string(template.read_text(encoding="utf-8")).render(
        title=title_of(results.experiment),
        question=results.experiment.question,
        cells=len(table),
        seeds=len(results.experiment.each_seed),
        lines=len(results),
        resumed=results.num_resumed,
        seconds=round(results.seconds, 1),
        endings=endings(results),
        pictures=pictures,
        heading=heading,
        table=table[:_SHOWN],
        axes=len(results.axes),
        left=max(0, len(table) - _SHOWN),
        settings=as_yaml(results.experiment),
        environment=[*others.items(), *environment["versions"].items()],
        style=_markup(style.read_text(encoding="utf-8")),
        count=count,
        number=number,
        **bad,
    )


def _markup(text: str) -> Any:
    import markupsafe

    return markupsafe.Markup(text)
