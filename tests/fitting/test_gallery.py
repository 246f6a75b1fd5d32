"""Programs of tutorials in every corner, beside what NumPyro says of their densities."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from numpyro import handlers

import probem
from tests.oracles import plain
from tests.programs.gallery.gallery import GALLERY, PAGE, corners, page
from tests.programs.gallery.oracle import Densities

# Parameters that NumPyro evaluates at once: draws from q, or the ends of differences along every coordinate.
BATCH = 512
STEP = 1e-4
# Rounding of F, relative: sums of some hundred terms whose parts cancel.
EXACT = 1e-9
# Nats that a Newton step along one coordinate may gain; fits end with 6e-9 promised.
LEFT = 1e-5


def _evaluated(densities: Densities, params: Any, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.asarray(part, float) for part in densities.at(params, jnp.asarray(offsets)))


def _check_points(fit: probem.Fit, densities: Densities, is_hard: bool) -> None:
    """F by the table and the prior of NumPyro, and what a Newton step along each coordinate would gain."""
    params = {name: np.asarray(fit.params[name]) for name in densities.bijections}
    same = {name: jnp.asarray(np.broadcast_to(value, (BATCH, *value.shape))) for name, value in params.items()}
    offsets, size = np.zeros((BATCH, densities.size)), densities.size
    assert 2 * size < BATCH
    offsets[1 : size + 1], offsets[size + 1 : 2 * size + 1] = STEP * np.eye(size), -STEP * np.eye(size)
    table, prior = _evaluated(densities, same, offsets)
    labels = table[0].argmax(1)
    if is_hard:
        objective = table[:, np.arange(len(labels)), labels].sum(1) + prior
    else:
        objective = scipy.special.logsumexp(table, axis=2).sum(1) + prior
    assert abs(fit.elbo - objective[0]) <= EXACT * (1 + abs(objective[0]))
    up, down = objective[1 : size + 1], objective[size + 1 : 2 * size + 1]
    slope, curvature = (up - down) / (2 * STEP), (up - 2 * objective[0] + down) / STEP**2
    # Along a coordinate on which F does not depend both are rounding.
    gain = slope**2 / (2 * np.maximum(np.abs(curvature), 1e-2))
    # At a corner there is no slope: neither side is higher.
    is_peak = np.maximum(up, down) <= objective[0] + 1e-12 * (1 + abs(objective[0]))
    # Hard EM ends once no row moves: parameters that are updated in turn may have nats left, which the fit promises.
    assert gain[~is_peak].max(initial=0.0) <= LEFT + 2 * fit.promised


def _check_posterior(fit: probem.Fit, densities: Densities, data: tuple[Any, ...]) -> None:
    """F by draws from the guide of the fit: E_q[log p(X, t, params) - log q(params)] + H(q(t))."""
    guide = fit.guide()

    def draw(key: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        sites = handlers.trace(handlers.seed(guide, key)).get_trace(*data)
        values = {name: sites[name]["value"] for name in densities.bijections}
        log_q = [
            jnp.sum(sites[name]["fn"].log_prob(value))
            for name, value in values.items()
            if sites[name]["type"] == "sample"
        ]
        return values, sum(log_q, jnp.zeros(()))

    params, log_q = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), BATCH))
    table, prior = _evaluated(densities, params, np.zeros((BATCH, densities.size)))
    q = np.asarray(fit.responsibilities(*data), float)
    expected = np.where(q > 0, q * table, 0.0).sum((1, 2)) + prior - np.asarray(log_q)
    values = expected + scipy.special.entr(q).sum()
    error = values.std(ddof=1) / np.sqrt(BATCH)
    assert error < 0.5
    assert abs(fit.elbo - values.mean()) <= 5 * error + EXACT * (1 + abs(fit.elbo))


@pytest.mark.slow
@pytest.mark.parametrize("is_hard", [False, True])
@pytest.mark.parametrize("name", GALLERY)
def test_a_program_in_every_corner(name: str, is_hard: bool) -> None:
    """With point-mass assignments, or full ones."""
    entry = GALLERY[name]
    densities = functools.cache(lambda: Densities(*(entry.meaning or (entry.program, entry.data))))
    for corner in corners(entry):
        if isinstance(corner.assignments, probem.Delta) != is_hard:
            continue
        run = functools.partial(probem.fit, entry.program, *entry.data, families=corner, init=entry.init, verbose=0)
        if corner.name in entry.refused:
            with pytest.raises(probem.InputError, match=entry.refused[corner.name]):
                run()
            continue
        fit = run()
        assert fit.result is probem.Result.CONVERGED
        assert set(fit.at_boundary) <= set(entry.on_edge if is_hard else ())
        assert not fit.twins
        assert plain.rises(fit.history)
        if fit.at_boundary:
            # NumPyro's coordinates have no edge; every word is in the topic that alone has it.
            table = probem.log_joint(entry.program, fit.params, *entry.data)
            assert abs(fit.elbo - float(table.max(1).sum())) <= EXACT * (1 + abs(fit.elbo))
        elif set(fit.params) == set(densities().bijections) and not fit.plan.mean_field.is_bayesian:
            _check_points(fit, densities(), corner is probem.HARD_EM)
        else:
            _check_posterior(fit, densities(), entry.data)


def test_the_page_lists_what_is_tested() -> None:
    assert len(GALLERY) >= 60
    assert PAGE.read_text() == page()
