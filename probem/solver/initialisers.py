"""Where a fit starts: parameters, or a q from which the first M-step makes parameters.

An initialiser maps a key and the observed rows ``[N, F]`` to seeds, labels, responsibilities or parameters. The
named ones run under ``jit`` and ``vmap``.

Under hard labels a discrete density may get a probability of exactly zero for what no row of a component shows, and
zero is absorbing: no later step can leave it. In the first M-step a tenth of such a density, and of no other, is that
of all rows, wherever q came from. Where the probabilities of a discrete site are parameters of the gradient route, a
tenth of each labelled row is shared by all components instead; ``Responsibilities`` stay as they are on that route.

Known labels, and labels given as a start, say themselves which component is which; of seeds, ``solver/seedings.py``
says it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from probem.data.arrays import numeric
from probem.data.row_axes import RowAxes
from probem.errors import InputError
from probem.program.program import Program
from probem.program.values import check_values, is_concrete
from probem.solver.seedings import Seeding, SeedingIn


@dataclasses.dataclass(frozen=True, eq=False)
class Parameters:
    """Start at given parameters.

    Parameters
    ----------
    values : by site name; of a site with a full posterior, the arguments of its q
    others : any other initialiser, which starts the sites left out; without it they start at the program's initial
        values

    Raises
    ------
    InputError
        If ``values`` are not by site name.
    """

    values: Mapping[str, Any]
    others: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise InputError(
                f"Parameters of a {type(self.values).__name__}", "values by site name", "write Parameters({'loc': ...})"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Start with the M-step under a hard assignment.

    A probability of exactly zero, which no step could leave again, is softened: a discrete density that has such a
    probability is made of nine tenths of these rows and one tenth of all. For a start at zero, give it as
    ``Parameters``.

    Parameters
    ----------
    values : ``[N]``, whole numbers in 0..K-1
    """

    values: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Responsibilities:
    """Start with the M-step under a given q. Estimates of zero are softened as under ``Labels``.

    Parameters
    ----------
    values : ``[N, K]``, rows on the simplex
    """

    values: Any


GivenStart = Parameters | Labels | Responsibilities
Initializer = Seeding | SeedingIn | GivenStart | Callable[[PRNGKeyArray, Float[Array, "N F"]], Any]


def as_given_start(value: Any) -> GivenStart:
    """What a callable initialiser returned: parameters, labels or responsibilities."""
    if isinstance(value, GivenStart):
        return value
    if isinstance(value, Mapping):
        return Parameters(value)
    ndim = np.ndim(value)
    if ndim == 1:
        return Labels(value)
    if ndim == 2:
        return Responsibilities(value)
    raise InputError(
        f"{type(value).__name__} with {ndim} dimensions from the initialiser",
        "parameters by name, labels [N] or responsibilities [N, K]",
        "return one of them",
    )


def check_given_start(given: GivenStart, program: Program, axes: RowAxes) -> GivenStart:
    """The start with its arrays as numbers of the right shape, on their constraints.

    Raises
    ------
    InputError
        Naming the site, what was got and what was expected.
    """
    if isinstance(given, Parameters):
        return Parameters(check_values(given.values, program, lead=axes.shape[:-1]))
    count = program.num_components
    name, shape = ("labels", axes.shape) if isinstance(given, Labels) else ("responsibilities", (*axes.shape, count))
    values = numeric(given.values, f"initial {name}" if axes.num_sets is None else "the start")
    if values.shape != shape:
        remedy = "give one label for each row"
        if isinstance(given, Responsibilities):
            remedy = "give one row for each row of the data and one column for each component"
        raise InputError(f"initial {name} of shape {values.shape}", f"shape {shape}", remedy)
    if isinstance(given, Labels):
        if is_concrete(values):
            labels = np.asarray(values)
            if not (np.equal(np.mod(labels, 1), 0).all() and (labels >= 0).all() and (labels < count).all()):
                raise InputError(
                    f"initial labels from {labels.min()} to {labels.max()}",
                    f"whole numbers in 0..{count - 1}",
                    "number the components from zero",
                )
        return Labels(values.astype(np.int32))
    if is_concrete(values):
        rows = np.asarray(values, float).reshape(-1, count)
        off = np.flatnonzero(~(np.isfinite(rows).all(1) & (rows >= 0).all(1) & (np.abs(rows.sum(1) - 1) < 1e-4)))
        if off.size:
            raise InputError(
                f"initial responsibilities with {off.size} rows off the simplex (the first is"
                f" {axes.rows_in_words(off[:1])})",
                "rows that are not negative and sum to 1",
                "divide every row by its sum",
            )
    return Responsibilities(values)
