"""What claims cost: seconds of one process, measured once, by which a run is ordered and its bar is weighted."""

from .record import Task

#: Seconds of a claim on one data set, its share of what is compiled for several included.
SECONDS: dict[str, float] = {}
_OTHERS, _FIGURE = 2.0, 1.0


def cost(task: Task) -> float:
    """The seconds of a task, roughly."""
    return _FIGURE if task.is_figure else SECONDS.get(task.claim, _OTHERS)
