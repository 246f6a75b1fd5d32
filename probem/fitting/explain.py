"""``explain``: what a fit would do, before anything runs."""

from collections.abc import Callable, Mapping
from typing import Any

from probem.analysis.explanation import (
    Explanation,
    Row,
    cost_in_words,
    projection_in_words,
    route_in_words,
    statistics_in_words,
)
from probem.analysis.problem import FitOptions, parse


def explain(
    program: Callable[..., Any], *data: Any, families: Any = None, fixed: Mapping[str, Any] | None = None
) -> Explanation:
    """What ``fit`` would do with this program: each site, its family, how it is updated, and the cost of one pass.

    Raises
    ------
    InputError
        As ``fit`` would.
    """
    plan, given = parse(program, data, FitOptions(families=families, fixed=fixed))[1:3]
    known = plan.program
    rows = [
        Row(site.name, "assignment", f"rows, {site.size} values", repr(plan.family), projection_in_words(plan))
        for site in known.assignments
    ]
    for site in known.globals:
        full = site.name in plan.mean_field.full
        family = "Conjugate()" if full else ("Delta() (MAP)" if site.has_prior else "point (ML)")
        rows.append(
            Row(
                site.name,
                "prior" if site.has_prior else "param",
                str(site.shape),
                family,
                route_in_words(plan, site.name),
            )
        )
    terms = {term.site: term for term in plan.form.data_terms}
    for name in known.observed:
        update = "log density of the program, row by row"
        if name in terms:
            term = terms[name]
            counted = statistics_in_words(term.copies * term.num_statistics)
            update = f"exponential family ({type(term.view).__name__}, {counted})"
        if plan.form.partial:
            completes = name in terms and terms[name].completes
            update += ", missing values " + ("filled in by their moments" if completes else "left out")
        rows.append(Row(name, "observed", "rows", "", update))
    return Explanation(tuple(rows), cost_in_words(plan, given.num_rows))
