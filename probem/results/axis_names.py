"""What the axes of sites are called, and their places, in what ArviZ takes."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from probem.errors import InputError


class AxisNames(NamedTuple):
    """The names of the axes of every site, after those of draws and rows, and the places along named axes."""

    names: Mapping[str, tuple[str, ...]]
    coords: Mapping[str, Sequence[Any]]

    @classmethod
    def of(
        cls,
        shapes: Mapping[str, tuple[int, ...]],
        plates: Mapping[str, Mapping[int, str]],
        taken: Set[str],
        dims: Mapping[str, Sequence[str]],
        coords: Mapping[str, Sequence[Any]],
    ) -> "AxisNames":
        """Names for sites of these shapes: ``dims``, else the plate of an axis, else ``"<site>_dim_0"``.

        Raises
        ------
        InputError
            For ``dims`` or ``coords`` that are not those of these sites, or contradict each other.
        """
        for site in dims:
            if site not in shapes:
                raise InputError(f"dims of '{site}'", f"sites among {_listed(shapes)}", "change the name")
        names = {
            site: _asked_for(site, dims[site], shape, taken)
            if site in dims
            else tuple(_by_default(site, axis, plates.get(site, {}), taken) for axis in range(len(shape)))
            for site, shape in shapes.items()
        }
        sizes: dict[str, int] = {}
        for site, shape in shapes.items():
            for name, size in zip(names[site], shape, strict=True):
                if sizes.setdefault(name, size) != size:
                    raise InputError(
                        f"an axis '{name}' of {sizes[name]} and, in '{site}', of {size} entries",
                        "axes of one length under one name",
                        f"give '{site}' other dims",
                    )
        for name, places in coords.items():
            if name not in sizes:
                raise InputError(f"coords of '{name}'", f"axes among {_listed(sizes)}", "name the axis by dims=")
            if len(places) != sizes[name]:
                raise InputError(
                    f"{len(places)} coords of '{name}'", f"{sizes[name]}, one for each entry", "change their number"
                )
        return cls(names, coords)

    def of_site(self, site: str) -> tuple[str, ...]:
        """The names of the axes of a site."""
        return self.names[site]

    def places(self, variables: Mapping[str, tuple[tuple[str, ...], np.ndarray]]) -> dict[str, Any]:
        """The coordinates of all axes of variables (names of axes, value): those given, else whole numbers from 0."""
        sizes = {name: size for axes, value in variables.values() for name, size in zip(axes, value.shape, strict=True)}
        return {name: list(self.coords.get(name, range(size))) for name, size in sizes.items()}


def _by_default(site: str, axis: int, plates: Mapping[int, str], taken: Set[str]) -> str:
    plate = plates.get(axis)
    return f"{site}_dim_{axis}" if plate is None or plate in taken else plate


def _asked_for(site: str, names: Sequence[str], shape: tuple[int, ...], taken: Set[str]) -> tuple[str, ...]:
    if isinstance(names, str) or len(names) != len(shape):
        count = "no name" if not shape else f"{len(shape)} names, one for each axis after those of draws and rows"
        raise InputError(f"dims={{'{site}': {names!r}}} for values of shape {shape}", count, "change their number")
    wrong = [name for name in names if name in taken or list(names).count(name) > 1]
    if wrong:
        raise InputError(
            f"an axis '{wrong[0]}' in the dims of '{site}'",
            "a name that is no site, no other axis, and none of chain, draw and row",
            "choose another",
        )
    return tuple(names)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
