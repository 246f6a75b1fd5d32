"""Which entries of a distribution's argument are which entries of a parameter.

The program is run with several random parameter values. An entry of an argument that equals, bit for bit and in every
run, an entry of a parameter *is* that entry: broadcast, gathered by an assignment or shared. An entry with the same
value in every run is a constant of the program. If that explains the whole argument, the link is a known index map.
"""

import numpy as np

from probem.form.form import ExponentialForm
from probem.plan.links import Link


def find_links(form: ExponentialForm) -> tuple[Link, ...]:
    """Every argument that is an index map of parameters, in the order in which a maximisation updates them."""
    draws = [sample.params for sample in form.samples]
    runs = [sample.arguments for sample in form.samples]
    # An entry of a parameter is known by its values; those repeated together (a symmetric matrix) are one entry.
    numbering: dict[tuple[float, ...], int] = {}
    entries: dict[str, np.ndarray] = {}
    for site in form.program.globals:
        columns = zip(*(np.asarray(draw[site.name]).reshape(-1).tolist() for draw in draws), strict=True)
        entries[site.name] = np.array([numbering.setdefault(values, len(numbering)) for values in columns], int)
    links = []
    for term in form.terms:
        for name in term.view.argument_names:
            seen = np.stack([np.asarray(run[term.site][name]).reshape(-1) for run in runs], 1)
            group = np.array([numbering.get(tuple(values), -1) for values in seen.tolist()], int)
            constant = (seen == seen[:, :1]).all(1)
            if ((group < 0) & ~constant).any() or not (group >= 0).any():
                continue
            where = {int(entry): index for index, entry in reversed(list(enumerate(group)))}
            source = {
                parameter: np.array([where[int(entry)] for entry in numbers], int)
                for parameter, numbers in entries.items()
                if len(numbers) and all(int(entry) in where for entry in numbers)
            }
            covered = {int(entry) for parameter in source for entry in entries[parameter]}
            if {int(entry) for entry in group if entry >= 0} <= covered:
                zero = constant & (seen[:, 0] == 0)
                links.append(Link(term.site, name, runs[0][term.site][name].shape, group, zero, source))
    return tuple(links)
