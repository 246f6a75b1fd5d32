"""Rules that say when a fit has converged, for ``tolerance=``; a rule of your own is a subclass of ``Stopping``."""

from .solver.stopping import BoundChange, ParameterShift, Progress, RelativeRise, Stopping

__all__ = ["BoundChange", "ParameterShift", "Progress", "RelativeRise", "Stopping"]
