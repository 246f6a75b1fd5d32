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
from probem.analysis.options import FitOptions
from probem.analysis.problem import parse


def explain(
    program: Callable[..., Any], *data: Any, families: Any = None, fixed: Mapping[str, Any] | None = None
) -> Explanation:
    """What ``fit`` would do with a program: each site, its family, its update, and the cost of a pass over the rows.

    Parameters
    ----------
    program, data, families, fixed : as in ``fit``; nothing is fitted

    Returns
    -------
    Explanation : ``rows``, each with ``site``, ``role``, ``shape``, ``family`` and ``update`` in words, and ``cost``, a
        sentence; ``str`` of it is a table

    Raises
    ------
    InputError
        As ``fit`` would.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import gmm
    >>> numpyro.enable_x64()
    >>> program = partial(gmm, num_components=2)
    >>> x = np.r_[0.0:6, 100:106][:, None]
    >>> for row in probem.explain(program, x).rows:
    ...     print(row.site, "|", row.role, "|", row.update)
    t | assignment | posterior
    weights | param | closed form: share of the rows
    loc | param | closed form: weighted mean
    covariance | param | closed form: moments of 'covariance_matrix'
    x | observed | exponential family (MultivariateNormal, 2 statistics)
    """
    problem = parse(program, data, FitOptions(families=families, fixed=fixed))
    plan, parsed = problem.plan, problem.plan.program
    rows = [
        Row(site.name, "assignment", f"rows, {site.size} values", repr(plan.family), projection_in_words(plan))
        for site in parsed.assignments
    ]
    for site in parsed.globals:
        family = plan.families.of(site.name).in_words if site.has_prior else "point (ML)"
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
    for name in parsed.observed:
        update = "log density of the program, row by row"
        if name in terms:
            term = terms[name]
            counted = statistics_in_words(term.copies * term.num_statistics)
            update = f"exponential family ({type(term.view).__name__}, {counted})"
        if plan.form.gaps:
            completes = name in terms and terms[name].completes
            update += ", missing values " + ("filled in by their moments" if completes else "left out")
        rows.append(Row(name, "observed", "rows", "", update))
    return Explanation(tuple(rows), cost_in_words(plan, problem.rows.num_rows))
