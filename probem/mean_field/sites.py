"""A site with a conjugate prior and its q."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from probem.exponential import Density, Prior


@dataclasses.dataclass(frozen=True, eq=False)
class SitePosterior:
    """A site with a conjugate prior, and q a full posterior or a ``point``.

    A location is cut into ``cells`` of ``dim`` entries that are independent under q. It is ``tied`` if the precision of
    each is a multiple of that in its prior, where it follows from one cell of one other site: the name of that site,
    and the cell there for every cell ``[C]``. Other sites have one cell for each event of their prior.
    """

    name: str
    view: Density
    shape: tuple[int, ...]
    cells: int
    dim: int = 0
    tied: tuple[str, np.ndarray] | None = None
    point: bool = False

    @property
    def is_location(self) -> bool:
        return not isinstance(self.view, Prior)

    @property
    def prior(self) -> Prior:
        """The view of a site that is no location."""
        assert isinstance(self.view, Prior)
        return self.view

    @property
    def num_statistics(self) -> int:
        """Of one cell, where it is no location."""
        event = self.shape[len(self.shape) - self.prior.event_ndim :]
        value = jax.ShapeDtypeStruct(event, jnp.result_type(float))
        return jax.eval_shape(self.prior.statistics, value).shape[-1]
