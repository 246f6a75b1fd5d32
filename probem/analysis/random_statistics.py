"""Random data in the form in which it reaches the parameters: what a plan is tried out on."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpyro.distributions import biject_to, constraints

from probem.form.centring import centred_events
from probem.form.form import ExponentialForm
from probem.form.statistics import Statistics, column_counts


class Draws(NamedTuple):
    """Random numbers from which rows and responsibilities are made."""

    rows: dict[str, Float[np.ndarray, "n C ..."]]
    assignments: Float[np.ndarray, "n K"]


def draw_rows(form: ExponentialForm, seed: int) -> Draws:
    """A few random rows for every observed site, and logits of responsibilities."""
    random = np.random.default_rng(seed)
    dims = [math.prod(term.event_shape) for term in form.data_terms]
    num_rows = 16 + 4 * max(dims, default=0)
    rows = {
        term.site: _raw_rows(term.support, random, (num_rows, term.copies, *term.event_shape))
        for term in form.data_terms
    }
    for term in form.data_terms:
        if term.companion is not None and term.support.is_discrete:
            # No more successes than trials.
            rows[term.site] = rows[term.site].cumsum(-1)
    return Draws(rows, random.normal(size=(num_rows, form.program.num_components)))


def _raw_rows(support: Any, random: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "n C ..."]:
    """Counts for a discrete support, unconstrained numbers for a continuous one."""
    dtype = np.dtype(jnp.result_type(float))
    if not support.is_discrete:
        return random.normal(size=shape).astype(dtype)
    most = 1 if support is constraints.boolean else getattr(support, "upper_bound", 9)
    return random.integers(0, int(most), size=shape, endpoint=True).astype(dtype)


def random_statistics(form: ExponentialForm, draws: Draws) -> Statistics:
    """Statistics of random rows that the distributions allow, under random responsibilities."""
    columns, shifts = [], {}
    for term in form.column_terms:
        if term.is_assignment:
            here = np.arange(len(draws.assignments))[:, None] % term.copies == np.arange(term.copies)
            columns.append(jnp.asarray(here, jnp.result_type(float)))
            continue
        rows = draws.rows[term.site]
        rows = jnp.asarray(rows) if term.support.is_discrete else biject_to(term.support)(jnp.asarray(rows))
        shifts[term.site] = rows.mean(0) if term.view.is_location else jnp.zeros_like(rows[0])
        statistics = term.view.statistics(centred_events(term, rows, shifts))
        if term.partial:
            # Every sixth event was not observed; of one with several entries, all are filled in.
            numbers = np.arange(len(rows) * term.copies).reshape(len(rows), term.copies)
            here = jnp.asarray((numbers % 6 != 5) | term.completes)
            statistics = jnp.where(here[:, :, None], statistics, 0.0)
            columns += [statistics.reshape(len(rows), -1), here.astype(statistics.dtype)]
        else:
            columns.append(statistics.reshape(len(rows), -1))
    responsibilities = jax.nn.softmax(jnp.asarray(draws.assignments))
    features = jnp.concatenate(columns, 1) if columns else jnp.zeros((len(responsibilities), 0))
    sums = responsibilities.T @ features
    counts = responsibilities.sum(0)
    events = column_counts(form, counts, sums)
    shared = sums.sum(0) * events / jnp.where(events.sum(0) > 0, events.sum(0), 1.0)
    return Statistics(counts, jnp.where(form.varying, sums, shared), shifts)
