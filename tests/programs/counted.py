"""Traces of a program and compilations, counted."""

import jax
import jax.monitoring
import numpy as np

TRACES = []
COMPILATIONS = []


def _count(event: str, duration: float, **attributes: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILATIONS.append(attributes)


jax.monitoring.register_event_duration_secs_listener(_count)


def data(num_rows: int) -> np.ndarray:
    random = np.random.default_rng(num_rows)
    return np.array([0.0, 6.0])[random.integers(0, 2, num_rows)] + random.normal(size=num_rows)


def cost(run) -> tuple[int, int]:
    TRACES.clear()
    COMPILATIONS.clear()
    run()
    return len(TRACES), len(COMPILATIONS)
