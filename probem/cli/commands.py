"""The commands and their options; what they do stands in the modules beside this one."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from probem import __version__
from probem.errors import InputError, nearest
from probem.runs.process import INTERRUPTED, NOTHING, REFUSED, UNWRITTEN, unwritten


class _Refusal(click.ClickException):
    """Bad input, said in the sentence of the error and nothing more."""

    exit_code = REFUSED


class _Unwritten(click.ClickException):
    """A disk that is full, say: no fault of what was asked for."""

    exit_code = UNWRITTEN


class _Group(click.Group):
    """Commands in which bad input, a full disk and Ctrl-C end with one sentence and no traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except InputError as error:
            raise _Refusal(str(error)) from None
        except KeyboardInterrupt:
            click.echo(NOTHING, err=True)
            context.exit(INTERRUPTED)
        except OSError as error:
            raise _Unwritten(unwritten(error, "the results")) from None

    def resolve_command(self, context: click.Context, arguments: list[str]) -> Any:

        if arguments and not arguments[0].startswith("-") and arguments[0] not in self.commands:
            remedy = nearest(arguments[0], self.commands)
            raise _Refusal(f"got the command '{arguments[0]}'; expected one of {', '.join(self.commands)}; {remedy}.")
        return super().resolve_command(context, arguments)


class _Names(click.ParamType):
    """Names separated by commas."""

    name = "a,b,..."

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> list[str]:
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        if not all(names):
            self.fail("an empty name; separate names by single commas", parameter, context)
        return names


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def group() -> None:
    """Write a mixture as a NumPyro program, choose a family for q, get the EM algorithm."""


def _keep_compiled() -> None:
    """Open the folder of what was compiled; where there can be none, a command takes the time to compile."""
    from probem.jit.disk import cache

    with warnings.catch_warnings(action="ignore"):
        cache()


@group.command()
@click.option("--claims", type=_Names(), help="Claims, or letters that stand for groups of them: A,B3.  [default: all]")
@click.option(
    "--data",
    type=_Names(),
    help="Data sets: iris, wine, digits, old_faithful, blobs, overlapping, one_dimensional.  [default: a choice"
    " for each claim]",
)
@click.option("--full", is_flag=True, help="All data sets and the longest ladders, which take much longer.")
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file in place of the one installed.")
@click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), help="Seed of whatever is drawn.")
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: runs/verify-<date and time>]")
@click.pass_context
def verify(
    context: click.Context,
    claims: list[str] | None,
    data: list[str] | None,
    full: bool,
    config: Path | None,
    seed: int | None,
    out: Path | None,
) -> None:
    """Check on real data that k-means is EM with three restrictions, and write a report.

    It has data of its own; `probem check` checks the bound on a program and a file of yours.

    Exit code 1 if a claim fails, 2 on bad input, 74 if the results could not be written, 130 after Ctrl-C.
    """
    from .verifying import run

    _keep_compiled()
    context.exit(run(claims, data, config, seed, out, full))


@group.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE[,VALUE]",
    help="A value in place of that in the file, or several as an axis of the grid; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Print the cells, what has to be compiled and the time it will take.")
@click.option("--resume", is_flag=True, help="Keep the results that are there, and run what is missing.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: runs/<name of CONFIG>]")
@click.pass_context
def run(
    context: click.Context,
    config: Path,
    sets: tuple[str, ...],
    dry_run: bool,
    resume: bool,
    jobs: int,
    out: Path | None,
) -> None:
    """Run the experiment in CONFIG, a YAML file: a program, data, a grid, and what is measured.

    The name alone of one that was installed will do: probem run evidence.

    Exit code 1 if no fit converges, 2 on bad input, 74 if the results could not be written, 130 after Ctrl-C.
    """
    from . import running

    _keep_compiled()
    if dry_run:
        running.plan(config, sets, out, resume)
    else:
        context.exit(running.run(config, sets, out, resume, jobs))


_MODEL = "A program of probem.models, or path/to/file.py:function."
_MODEL_OPTION = click.option("--model", required=True, help=_MODEL)


_DATA = click.argument("data", type=click.Path(path_type=Path))


def _reads_data(
    command: Callable[..., None], model: Callable[..., Any] = _MODEL_OPTION, data: Callable[..., Any] = _DATA
) -> Callable[..., None]:
    """The options that ``fit``, ``explain`` and ``check`` share: which rows, which program, which family."""
    options = (
        data,
        model,
        click.option("--components", type=click.IntRange(min=1), help="How many components (num_components)."),
        click.option(
            "--covariance",
            help="Covariance structure: full, tied, diagonal, spherical, shared_spherical, identity, or "
            "path/to/file.py:function.",
        ),
        click.option(
            "--weights", help="Mixing weights: free or equal; dirichlet or stick_breaking; or path/to/file.py:function."
        ),
        click.option(
            "--family",
            help="Family of q: categorical, delta, tempered:BETA or top:C.  [default: delta for kmeans]",
        ),
        click.option(
            "--parameters",
            help="q of sites with a prior: delta (MAP) or conjugate.  [default: conjugate for the Bayesian models]",
        ),
        click.option("--columns", type=_Names(), help="Only these columns of the file."),
        click.option("--index", metavar="COLUMN", help="The column that names the rows, which is left out."),
        click.option(
            "--header/--no-header",
            default=None,
            help="Whether the first line of a CSV file names its columns.  [default: found out]",
        ),
        click.option("--standardise", is_flag=True, help="Give every column mean 0 and standard deviation 1 first."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@group.command()
@_reads_data
@click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), default=0, show_default=True, help="Of the start.")
@click.option("--restarts", type=click.IntRange(min=1), default=1, show_default=True, help="Starts; the best is kept.")
@click.option("--max-steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Iterations at most.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-10,
    show_default=True,
    help="Rise of F, in nats a row, that counts as none.",
)
@click.option("--acceleration", help="squarem or anderson: reaches what EM reaches, in fewer steps.")
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: runs/fit-<date and time>]")
@click.pass_context
def fit(context: click.Context, out: Path | None, **options: Any) -> None:
    """Fit a program to DATA, a CSV, Parquet or NPY file of numbers, one row per observation.

    Exit code 1 if the fit ends badly (the last good state is written), 2 on bad input, 74 if the results could not be
    written, 130 after Ctrl-C.
    """
    from .fitting import run

    _keep_compiled()
    context.exit(run(out=out, **options))


@group.command()
@_reads_data
def explain(**options: Any) -> None:
    """Print how a program would be fitted to DATA, without fitting it."""
    from .fitting import plan

    _keep_compiled()
    plan(**options)


def _checks(command: Callable[..., None]) -> Callable[..., None]:
    """With the program as the first argument, or by ``--model`` as the other commands have it."""
    second = click.argument("data", type=click.Path(path_type=Path), required=False)
    by_option = click.option("--model", "named", help=f"{_MODEL}  [default: MODEL]")
    return click.argument("model")(_reads_data(command, by_option, second))


@group.command()
@_checks
@click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), default=0, show_default=True, help="Of the start.")
@click.option("--max-steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Iterations at most.")
@click.option("--html", type=click.Path(path_type=Path), help="Write the report as a page as well.")
@click.pass_context
def check(
    context: click.Context, html: Path | None, model: str, named: str | None, data: Path | None, **options: Any
) -> None:
    """Check the theory of the bound on MODEL, a program of probem.models or path/to/file.py:function, and DATA.

    Exit code 1 if a comparison fails, 2 on bad input, 74 if the page could not be written, 130 after Ctrl-C.
    """
    from .checking import run

    if (named is None) == (data is None):
        got = "a program twice" if named is not None else "no data"
        raise click.UsageError(f"got {got}; expected a program and data; write probem check MODEL DATA.", context)
    if named is not None:
        model, data = named, Path(model)
    _keep_compiled()
    context.exit(run(html=html, model=model, data=data, **options))
