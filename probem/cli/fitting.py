"""``probem fit`` and ``probem explain``: read, plan, fit, print, write."""

import csv
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.markup import escape

import probem
from probem.analysis.options import FitOptions
from probem.data.observations import distinct_rows
from probem.errors import FitError, InputError
from probem.families import AssignmentFamily, ParameterFamily
from probem.plotting.fit import blank_figure
from probem.program.reading import read as read_program
from probem.runs.folders import ENVIRONMENT, dated, versions, whole_folder, write_json
from probem.runs.process import FAILED, INTERRUPTED
from probem.runs.tables import Table
from probem.runs.tables import read as read_table

from . import components
from .console import console
from .programs import acceleration_of, family_of, parameters_of, program_of, with_prior


def run(*, out: Path | None, seed: int, **options: Any) -> int:
    """Fit, print and write; the exit code. Those of the options that ``probem.fit`` knows are passed on to it."""
    output = console()
    asked = {name: value for name, value in options.items() if name in FitOptions._fields}
    choice = {name: value for name, value in options.items() if name not in asked}
    accelerated: dict[str, Any] = asked | {"acceleration": acceleration_of(asked.get("acceleration"))}
    with whole_folder(folder := out or dated("fit")) as partial:
        table, program, families = choose(output, **choice)
        x = jnp.asarray(table.rows)
        output.print(str(probem.explain(program, x, families=families)), markup=False)
        clock = time.perf_counter()
        failure = None
        try:
            fit = probem.fit(program, x, families=families, key=seed, **accelerated)
        except FitError as error:
            # At the command line the state is in a folder, named below, and not on the error.
            fit, failure = error.fit, str(error).removesuffix(" The last good state is in the error's .fit.")
        seconds = time.perf_counter() - clock
        summary = _summary(fit, x, seconds, choice | {"seed": seed} | asked)
        try:
            _write(partial, fit, table, summary)
        except OSError:
            # What was found is at least seen.
            _print(output, fit, x, table, summary)
            raise
    _print(output, fit, x, table, summary)
    output.print(f"Written to {escape(str(folder))}", soft_wrap=True)
    if failure:
        console(stderr=True).print(
            f"Error: {escape(failure)} The last good state is in {escape(str(folder))}.", soft_wrap=True
        )
        return FAILED
    return INTERRUPTED if fit.result is probem.Result.INTERRUPTED else 0


def plan(**choice: Any) -> None:
    """Print how the program would be fitted."""
    output = console()
    table, program, families = choose(output, **choice)
    output.print(str(probem.explain(program, jnp.asarray(table.rows), families=families)), markup=False)


def choose(
    output: Console,
    *,
    data: Path,
    model: str,
    components: int | None,
    covariance: str | None,
    weights: str | None,
    family: str | None,
    parameters: str | None,
    columns: list[str] | None,
    index: str | None,
    header: bool | None,
    standardise: bool,
) -> tuple[Table, Callable[..., Any], dict[str, AssignmentFamily | ParameterFamily]]:
    """The rows, the program and the family of every latent site."""
    jax.config.update("jax_enable_x64", True)
    chosen, posterior = family_of(family, model), parameters_of(parameters, model)
    program = program_of(model, components, covariance, weights)
    table = read_table(data, columns, index, header)
    table = table.standardised() if standardise else table
    program = with_prior(program, table.rows)
    mixture = read_program(program, (jnp.asarray(table.rows),))
    # probem.fit says this too, but after the plan, which may take longer than this look at the rows.
    distinct = distinct_rows([table.rows], mixture.num_components)
    priors = [site.name for site in mixture.globals if site.has_prior]
    if posterior.needs_conjugate_prior and not priors:
        raise InputError(
            f"--parameters conjugate for {model}, in which no parameter has a prior",
            "a model with priors",
            "leave it out, or choose a Bayesian model",
        )
    if mixture.num_components > distinct and len(priors) < len(mixture.globals):
        raise InputError(
            f"{mixture.num_components} components for {distinct} distinct rows in {data}",
            "at most as many components as distinct rows",
            "ask for fewer",
        )
    if table.remark:
        output.print(table.remark, markup=False)
    families: dict[str, Any] = {site.name: chosen for site in mixture.assignments}
    return table, program, families | dict.fromkeys(priors, posterior)


def _summary(fit: Any, x: jax.Array, seconds: float, options: dict[str, Any]) -> dict[str, Any]:
    """What the fit came to, as plain values; F and log likelihoods in nats."""
    density = np.asarray(fit.log_density(x, plug_in=True))
    return {
        "result": fit.result.name,
        "message": fit.result.value,
        "elbo": float(fit.elbo),
        "log_likelihood_per_row": float(density.mean()),
        "num_steps": int(fit.num_steps),
        "seconds": round(seconds, 3),
        "restart_elbos": fit.restart_elbos,
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in options.items()},
    }


def _print(output: Console, fit: Any, x: jax.Array, table: Table, summary: dict[str, Any]) -> None:
    output.print(
        f"\n{escape(summary['message'])}\n"
        f"F = {summary['elbo']:.6f} nats after {summary['num_steps']} steps, {summary['seconds']:.2f} s; "
        f"log likelihood {summary['log_likelihood_per_row']:.6f} nats a row\n"
    )
    params = {name: np.asarray(value) for name, value in fit.params.items()}
    components.show(output, params, np.asarray(fit.responsibilities(x)).sum(axis=0), table.columns)


def _write(folder: Path, fit: Any, table: Table, summary: dict[str, Any]) -> None:
    x = jnp.asarray(table.rows)
    params = {name: np.asarray(value) for name, value in fit.params.items()}
    # Not numpy.savez, which could not take a site called "file".
    with zipfile.ZipFile(folder / "parameters.npz", "w") as archive:
        for name, value in params.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, value, allow_pickle=False)
    write_json(folder / "parameters.json", params)
    placement = {"centre": table.centre, "scale": table.scale}
    write_json(folder / "summary.json", summary | {"columns": table.columns} | placement)
    write_json(folder / ENVIRONMENT, {"versions": versions("jax", "numpyro", "numpy")})
    fit.save(folder / "fit.npz")

    responsibilities = np.asarray(fit.responsibilities(x))
    labels = responsibilities.argmax(axis=1)
    with (folder / "assignments.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("row", "component", "probability"))
        writer.writerows((row, int(k), repr(float(responsibilities[row, k]))) for row, k in enumerate(labels))

    figure, axes = blank_figure()
    fit.plot(x, columns=table.columns, axes=axes)
    figure.savefig(folder / "figure.png", dpi=160)
