"""``python -m probem.experiments.benchmarks CONFIG [--out FOLDER] [--markdown]``."""

import contextlib
import sys
from pathlib import Path

import click

from probem.errors import InputError
from probem.experiments.claims.drawing import draw
from probem.runs.config import read
from probem.runs.folders import ENVIRONMENT, whole_folder, write_json
from probem.runs.process import REFUSED

from . import figures
from .benchmark import Benchmark, run
from .settings import BenchmarkSettings
from .tables import cells, markdown, table


def write(benchmark: Benchmark, folder: Path) -> None:
    """Everything that a run leaves behind, into an existing folder."""
    write_json(folder / ENVIRONMENT, benchmark.environment)
    write_json(folder / "benchmark.json", benchmark.as_json())
    (folder / "table.txt").write_text(table(benchmark) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(markdown(benchmark) + "\n", encoding="utf-8")
    if benchmark.growth:
        (folder / "growth.png").write_bytes(draw(lambda: figures.growth(benchmark), "growth").png)
    if benchmark.measurements:
        (folder / "shares.png").write_bytes(draw(lambda: figures.shares(benchmark), "shares").png)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="A folder for the table, JSON and figures.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the block of README.md in place of the table.")
def main(config: Path, out: Path | None, as_markdown: bool) -> None:
    """Measure what CONFIG asks for, beside the peers that are installed."""
    try:
        settings = read(config, BenchmarkSettings)
        # A folder that cannot be written is refused before anything is measured.
        with contextlib.nullcontext() if out is None else whole_folder(out) as folder:
            benchmark = run(
                settings, lambda measurement: click.echo("  ".join(filter(None, cells(measurement))), err=True)
            )
            if folder is not None:
                write(benchmark, folder)
    except InputError as error:
        click.echo(str(error), err=True)
        sys.exit(REFUSED)
    click.echo(markdown(benchmark) if as_markdown else table(benchmark))


if __name__ == "__main__":
    main()
