"""Whether a program can be fitted to sparse rows: whether its statistics are sums over what is not zero."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probem.errors import InputError
from probem.form.building import exponential_form
from probem.form.layout import unwrapped
from probem.program.program import Program
from probem.program.sites import Params
from probem.program.support_rules import support_rules

_REMEDY = "pass x.toarray() if it fits, or a mixture of Poisson, Bernoulli or independent normal entries"
# Rows of the trace that is looked at, as in ``support_rules``.
_LOOKING_ROWS = 4099


@functools.lru_cache(maxsize=256)
def check_sparse_rows(program: Program) -> None:
    """Refuse a program for sparse rows, unless it observes every entry of a row by itself, as it stands, under a
    density of which T(0) = 0: then the table of log joints and the sums over rows are sums over the non-zeros.

    Raises
    ------
    InputError
        Naming the site, before anything is computed.
    """
    support_rules(program)  # which says what is wrong with a program that does not run
    ((shape, _),) = program.spec.rows
    as_they_are: dict[str, bool] = {}
    of_entries: dict[str, bool] = {}

    def look(params: Params, data: tuple[Any, ...]) -> None:
        sites = program.enumerated_trace(params, data)
        for name in program.observed:
            as_they_are[name] = sites[name]["value"] is data[0]
            of_entries[name] = not unwrapped(sites[name]["fn"]).event_shape

    params = {site.name: jax.ShapeDtypeStruct(site.shape, jnp.result_type(float)) for site in program.globals}
    jax.eval_shape(look, params, program.spec.abstract(_LOOKING_ROWS))
    for name in program.observed:
        if not as_they_are[name]:
            _refuse(f"the observation '{name}', computed from the rows", "the rows as they stand")
        if not of_entries[name]:
            # Before statistics are looked at: the places of all pairs of entries may not fit.
            _refuse(f"'{name}', whose statistics are products of entries of a row", "statistics of single entries")
    form = exponential_form(program)
    if form.generic:
        _refuse(f"'{form.generic[0]}', a density without an exponential-family form", "sums over non-zeros")
    if len(form.data_terms) > 1:
        _refuse(f"{len(form.data_terms)} observed sites", "one")
    term = next(iter(form.data_terms))
    if term.companion is not None or form.partial:
        _refuse(f"'{term.site}', whose arguments differ from row to row", "arguments that are the same in every row")
    if (term.copies,) != tuple(shape):
        _refuse(f"'{term.site}', which observes them in another shape", "the rows as they stand")
    with jax.ensure_compile_time_eval():
        at_zero = np.asarray(term.view.statistics(jnp.zeros(())))
    if (at_zero != 0).any():
        _refuse(f"'{term.site}', whose statistics are not zero where the rows are", "statistics that are zero at zero")


def _refuse(what: str, expected: str) -> None:
    raise InputError(f"sparse rows for {what}", expected, _REMEDY)
