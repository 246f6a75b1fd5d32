"""What an experiment file may say; what its names mean is found out in ``resolution.py``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
import pydantic_core

from probem.runs.config import StrictModel, one_of

#: The parts of a cell: what a grid may vary.
SECTIONS = ("program", "data", "families", "fit")
#: Starts of a fit by name; ``truth`` is the labels that came with the data.
STARTS = ("kmeans++", "lloyd", "random_rows", "truth")

Seed = Annotated[int, pydantic.Field(ge=0, lt=2**32)]


def _named(value: Any) -> Any:
    """A name, or a mapping with its name and arguments."""
    named = isinstance(value, Mapping) and (isinstance(value.get("name"), str) or callable(value.get("name")))
    if not (isinstance(value, str) or callable(value) or named):
        raise pydantic_core.PydanticCustomError("named", "a name, or a mapping with a name and arguments")
    return value


def _chosen(value: Any) -> Any:
    """The name of a corner, or a mapping from sites to families."""
    if not isinstance(value, str | Mapping):
        raise pydantic_core.PydanticCustomError("named", "the name of a corner, or a mapping from sites to families")
    return value


def _grids(value: Any) -> Any:
    """A mapping from paths to lists of values, or a list of such mappings."""
    for grid in value if isinstance(value, list) else [value]:
        lists = list(grid.values()) if isinstance(grid, Mapping) else [None]
        if not all(isinstance(values, list) and values for values in lists):
            raise pydantic_core.PydanticCustomError(
                "grid", "a mapping from paths such as program.num_components to lists of values, or several of them"
            )
    return value


def _acceleration(value: Any) -> Any:
    """Nothing, or what has a name."""
    return None if value is None else _named(value)


class FitSettings(StrictModel):
    """Options of ``probem.fit``; ``tolerance`` in nats per row."""

    max_steps: Annotated[int, pydantic.Field(ge=1)] = 1000
    tolerance: Annotated[float, pydantic.Field(ge=0, lt=1)] = 1e-10
    restarts: Annotated[int, pydantic.Field(ge=1)] = 1
    added_variance: Annotated[float, pydantic.Field(ge=0)] = 0.0
    init: Annotated[str, one_of(STARTS)] = "kmeans++"
    acceleration: Annotated[Any, pydantic.AfterValidator(_acceleration)] = None


class FigureSettings(StrictModel):
    """Small multiples: measures ``y`` over an axis ``x`` of the grid, a colour and a panel for each value of others.

    ``log`` names the scales that are logarithmic; ``share_y`` says whether all panels have one scale of y. ``against``
    maps axes to the values that others are compared with: drawn are differences of rows with the same seed.
    """

    x: str
    y: Annotated[list[str], pydantic.Field(min_length=1)]
    colour: str | None = None
    panels: str | None = None
    against: dict[str, Any] = pydantic.Field(default_factory=dict)
    title: str | None = None
    log: list[Literal["x", "y"]] = pydantic.Field(default_factory=list)
    share_y: bool = True


class Experiment(StrictModel):
    """One sweep: a program and data, what varies, and what is measured of every fit.

    Attributes
    ----------
    question : what the experiment is to answer, for the report
    program : a name of ``probem.models`` or ``file.py:function``, alone or as the ``name`` beside its arguments
    data : a built-in set, a file or a generator, likewise
    families : the name of a corner, or families by site, beside the ``name`` of a corner
    fit : options of the fits
    grid : lists of values by path, all combinations of them; or several such grids
    seeds : how many, counted from 0, or which; of generators, of held-out rows and of starts
    measure : what is measured of every fit
    figures : what is drawn of it
    """

    title: str | None = None
    question: str | None = None
    program: Annotated[Any, pydantic.AfterValidator(_named)]
    data: Annotated[Any, pydantic.AfterValidator(_named)]
    families: Annotated[Any, pydantic.AfterValidator(_chosen)] = "EM"
    fit: dict[str, Any] = pydantic.Field(default_factory=dict)
    grid: Annotated[Any, pydantic.AfterValidator(_grids)] = pydantic.Field(default_factory=dict)
    seeds: Annotated[int, pydantic.Field(ge=1)] | Annotated[list[Seed], pydantic.Field(min_length=1)] = 1
    measure: Annotated[list[Any], pydantic.Field(min_length=1)]
    figures: list[FigureSettings] = pydantic.Field(default_factory=list)

    @property
    def each_seed(self) -> tuple[int, ...]:
        """The seeds, each once."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(dict.fromkeys(self.seeds))

    @property
    def grids(self) -> list[dict[str, list[Any]]]:
        """The grids; one of a single cell where nothing varies."""
        return self.grid if isinstance(self.grid, list) else [self.grid]
