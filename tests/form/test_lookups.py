"""Arguments that data look up, and masks: beside plain loops over the rows, and beside the program with gaps."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import constraints
from scipy.special import digamma, entr, gammaln, logsumexp

import probem
from probem.families.corners import Families

RANDOM = np.random.default_rng(0)
ROWS, CATEGORIES = 120, 3
GROUP = RANDOM.integers(0, 2, ROWS)
STATES = RANDOM.integers(0, CATEGORIES, (ROWS, 2))
STATES[:, 1] = np.where(RANDOM.random(ROWS) < 0.7, (STATES[:, 0] + 1 + GROUP) % CATEGORIES, STATES[:, 1])
LINE = RANDOM.normal(4.0 * GROUP + STATES[:, 0], 1.0)
SEEN = RANDOM.random((ROWS, 2)) < 0.7
PLANE = np.stack([LINE, RANDOM.normal(2.0 * GROUP, 1.0)], 1)


def weights() -> Any:
    return numpyro.sample("weights", dist.Dirichlet(jnp.array([2.0, 3.0])))


def transitions(states: Any, x: Any) -> None:
    share = numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([0.0, 3.0]))
    start = jnp.full((2, CATEGORIES, CATEGORIES), 1 / CATEGORIES)
    following = numpyro.param("following", start, constraint=constraints.simplex)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(share))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)
        numpyro.sample("state", dist.Categorical(following[t, states[:, 0]]), obs=states[:, 1])


def test_em_beside_a_loop_over_the_rows() -> None:
    """Five steps from the same parameters; sums of 120 rows keep their digits."""
    share, loc = np.array([0.4, 0.6]), np.array([0.0, 3.0])
    following = np.random.default_rng(1).dirichlet(np.ones(CATEGORIES), (2, CATEGORIES))
    start = probem.Parameters({"weights": share, "loc": loc, "following": following})
    fit = probem.fit(transitions, STATES, LINE, init=start, max_steps=5, throw=False)
    bounds = []
    for _ in range(5):
        table = np.empty((ROWS, 2))
        for n, k in np.ndindex(ROWS, 2):
            of_line = -0.5 * (LINE[n] - loc[k]) ** 2 - 0.5 * np.log(2 * np.pi)
            table[n, k] = np.log(share[k]) + of_line + np.log(following[k, STATES[n, 0], STATES[n, 1]])
        bounds.append(logsumexp(table, axis=1).sum())
        q = np.exp(table - logsumexp(table, axis=1, keepdims=True))
        share, loc = q.mean(0), q.T @ LINE / q.sum(0)
        counts = np.zeros_like(following)
        for n in range(ROWS):
            counts[:, STATES[n, 0], STATES[n, 1]] += q[n]
        following = counts / counts.sum(2, keepdims=True)
    np.testing.assert_allclose(fit.history.elbo[fit.history.half == "E"], bounds, rtol=1e-12)


def documents(word: Any, document: Any) -> None:
    """Latent Dirichlet allocation, every word a row."""
    theta = numpyro.sample("theta", dist.Dirichlet(jnp.full((3, 2), 1.5)).to_event(1))
    topics = numpyro.sample("topics", dist.Dirichlet(jnp.full((2, 4), 1.2)).to_event(1))
    with numpyro.plate("data", word.shape[0]):
        t = numpyro.sample("t", dist.Categorical(theta[document]))
        numpyro.sample("word", dist.Categorical(topics[t]), obs=word)


DOCUMENT = RANDOM.integers(0, 3, ROWS)
WORD = np.where(RANDOM.random(ROWS) < 0.2 + 0.3 * DOCUMENT, RANDOM.integers(0, 2, ROWS), RANDOM.integers(1, 4, ROWS))


def _log_dirichlet(alpha: np.ndarray) -> np.ndarray:
    return gammaln(alpha).sum(-1) - gammaln(alpha.sum(-1))


@pytest.mark.slow
def test_full_posteriors_beside_coordinate_ascent_of_latent_dirichlet_allocation() -> None:
    fit = probem.fit(documents, WORD, DOCUMENT, families=probem.VARIATIONAL_BAYES, tolerance=1e-12)
    theta = np.asarray(fit.variational["theta"]["concentration"]).reshape(3, 2)
    topics = np.asarray(fit.variational["topics"]["concentration"]).reshape(2, 4)
    for _ in range(500):
        log_theta = digamma(theta) - digamma(theta.sum(1, keepdims=True))
        log_topics = digamma(topics) - digamma(topics.sum(1, keepdims=True))
        table = log_theta[DOCUMENT] + log_topics[:, WORD].T
        q = np.exp(table - logsumexp(table, axis=1, keepdims=True))
        theta, topics = np.full((3, 2), 1.5), np.full((2, 4), 1.2)
        np.add.at(theta, DOCUMENT, q)
        np.add.at(topics.T, WORD, q)
    log_theta = digamma(theta) - digamma(theta.sum(1, keepdims=True))
    log_topics = digamma(topics) - digamma(topics.sum(1, keepdims=True))
    bound = (q * (log_theta[DOCUMENT] + log_topics[:, WORD].T)).sum() + entr(q).sum()
    for prior, alpha, logs in ((1.5, theta, log_theta), (1.2, topics, log_topics)):
        before = np.full_like(alpha, prior)
        bound += (_log_dirichlet(alpha) - _log_dirichlet(before) + ((before - alpha) * logs).sum(1)).sum()
    # Steps of the fit end where F rises by no more than its digits.
    assert fit.elbo == pytest.approx(bound, rel=1e-9)
    np.testing.assert_allclose(fit.variational["theta"]["concentration"], theta, rtol=1e-4)

    # Of a new row: E_q[theta] and E_q[topics], which are independent under q.
    mean_theta, mean_topics = (each / each.sum(1, keepdims=True) for each in (theta, topics))
    expected = np.log((mean_theta[DOCUMENT] * mean_topics[:, WORD].T).sum(1))
    np.testing.assert_allclose(fit.log_density(WORD, DOCUMENT), expected, atol=1e-5)


def under_a_mask(x: Any, seen: Any) -> None:
    share = weights()
    with numpyro.plate("columns", 2), numpyro.plate("components", 2):
        precision = numpyro.sample("precision", dist.Gamma(2.0, 2.0))
        loc = numpyro.sample("loc", dist.Normal(0.0, 1 / jnp.sqrt(0.1 * precision)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(share))
        normal = dist.Normal(loc[t], 1 / jnp.sqrt(precision[t]))
        numpyro.sample("x", normal.mask(seen).to_event(1), obs=x)


def with_gaps(x: Any) -> None:
    under_a_mask(x, True)


def whole_rows(x: Any, seen: Any) -> None:
    share = weights()
    with numpyro.plate("components", 2):
        precision = numpyro.sample("precision", dist.Wishart(4.0, jnp.eye(2)))
        loc = numpyro.sample("loc", dist.MultivariateNormal(jnp.zeros(2), precision_matrix=0.1 * precision))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(share))
        with handlers.mask(mask=seen):
            numpyro.sample("x", dist.MultivariateNormal(loc[t], precision_matrix=precision[t]), obs=x)


@pytest.mark.slow
@pytest.mark.parametrize("families", [probem.EM, probem.VARIATIONAL_BAYES], ids=["EM", "VB"])
def test_what_a_mask_leaves_out_is_missing(families: Families) -> None:
    """Entries under a mask have any value, as seeds as well, and NaN means the same."""
    masked = probem.fit(under_a_mask, np.where(SEEN, PLANE, 1e300), SEEN, families=families)
    gaps = probem.fit(with_gaps, np.where(SEEN, PLANE, np.nan), families=families)
    assert masked.num_steps == gaps.num_steps
    # The same sums in another order.
    assert masked.elbo == pytest.approx(gaps.elbo, rel=1e-12)
    np.testing.assert_allclose(
        masked.log_density(PLANE, SEEN), gaps.log_density(np.where(SEEN, PLANE, np.nan)), rtol=1e-9
    )


@pytest.mark.slow
def test_a_row_under_a_mask_is_an_assignment_from_its_prior() -> None:
    seen = SEEN[:, 0]
    labels = probem.Labels(np.where(seen, GROUP, 0))
    fit = probem.fit(whole_rows, PLANE, seen, families=probem.VARIATIONAL_BAYES, init=labels)
    alpha = fit.variational["weights"]["concentration"].ravel()
    q = np.exp(digamma(alpha))
    np.testing.assert_allclose(
        fit.responsibilities(PLANE, seen)[~seen], np.broadcast_to(q / q.sum(), ((~seen).sum(), 2)), rtol=1e-9
    )
    # Nothing but the concentrations of the weights differs from the fit of the rows that are there.
    alone = probem.fit(whole_rows, PLANE[seen], seen[seen], families=probem.VARIATIONAL_BAYES)
    order = np.argsort(fit.params["loc"][:, 0]), np.argsort(alone.params["loc"][:, 0])
    rows = [
        np.asarray(each.variational["precision"]["concentration"])[at]
        for each, at in zip((fit, alone), order, strict=True)
    ]
    assert rows[0].sum() == pytest.approx(rows[1].sum(), rel=1e-12)


def _argument(of: Callable[[Any, Any, Any, Any], Any]) -> Callable[..., None]:
    """A Poisson mixture with this rate, of t, the rates ``[2, 3]``, a whole number and a value of every row."""

    def program(count: Any, index: Any, x: Any) -> None:
        share = weights()
        rate = numpyro.sample("rate", dist.Gamma(2.0, jnp.full((2, 3), 0.5)).to_event(2))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(share))
            numpyro.sample("count", dist.Poisson(of(t, rate, index, x)), obs=count)

    return program


COUNTS = RANDOM.poisson(2.0 + 4.0 * GROUP)
LOOKED_UP = {
    "by a column": lambda t, rate, index, x: rate[t, index],
    "by a column, from the last": lambda t, rate, index, x: rate[t, -1 - index],
    "where a value is large": lambda t, rate, index, x: jnp.where(x > 1.0, rate[t, 0], rate[t, 2]),
    "by two that are told apart": lambda t, rate, index, x: jnp.where(x > 1.0, rate[t, index], rate[t, 0]),
    "by a number that is computed": lambda t, rate, index, x: rate[t, jnp.clip(jnp.floor(x), 0, 2).astype(int)],
    "among components in order": lambda t, rate, index, x: rate[jnp.argsort(rate[:, 0])][t, index],
    "by the first axis": lambda t, rate, index, x: rate.T[index, t],
}
NOT_LOOKED_UP = {
    "times a value": lambda t, rate, index, x: rate[t, index] * jnp.exp(x),
    "one for what is out of bounds": lambda t, rate, index, x: rate.at[t, 1 + index].get(mode="fill", fill_value=1.0),
    "by a value of the parameters": lambda t, rate, index, x: rate[t, (rate[0, 0] > index).astype(int)],
    "a sum over what is before": lambda t, rate, index, x: (rate[t] * (jnp.arange(3) <= index[:, None])).sum(-1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOOKED_UP, *NOT_LOOKED_UP])
def test_what_is_looked_up_is_read_off_the_program(name: str) -> None:
    """The table is that of the program whatever was read; what is looked up needs no gradient."""
    program = _argument({**LOOKED_UP, **NOT_LOOKED_UP}[name])
    data = (COUNTS, STATES[:, 0], LINE)
    fit = probem.fit(program, *data, max_steps=2, throw=False)
    assert (not fit.plan.form.generic) == (name in LOOKED_UP)
    table = probem.log_joint(program, fit.params, *data)
    np.testing.assert_allclose(fit.log_density(*data), logsumexp(table, axis=1), rtol=1e-10)


def _stacked(each: Any) -> Any:
    return jnp.stack(each, -1)


def _concatenated(each: Any) -> Any:
    return jnp.concatenate([column[..., None] for column in each], -1)


def _two_columns(joined: Callable[[Any], Any]) -> Callable[..., None]:
    """Two counts, each with the rate of a level of its own."""

    def program(counts: Any, levels: Any) -> None:
        share = weights()
        rate = numpyro.sample("rate", dist.Gamma(2.0, jnp.full((2, 3), 0.5)).to_event(2))
        with numpyro.plate("data", counts.shape[0]):
            t = numpyro.sample("t", dist.Categorical(share))
            each = jnp.broadcast_arrays(*(rate[t, levels[:, column]] for column in range(2)))
            numpyro.sample("counts", dist.Poisson(joined(each)).to_event(1), obs=counts)

    return program


@pytest.mark.slow
@pytest.mark.parametrize("joined", [_stacked, _concatenated])
def test_every_column_has_cells_of_its_own(joined: Callable[[Any], Any]) -> None:
    """Three for each of two columns; and of a rate that both may have, the predictive density has no closed form."""
    program = _two_columns(joined)
    counts = np.stack([COUNTS, COUNTS[::-1]], 1)
    fit = probem.fit(program, counts, STATES, families=probem.VARIATIONAL_BAYES)
    (term,) = fit.plan.form.data_terms
    assert term.copies == 6
    with pytest.raises(probem.InputError, match="some, but not all, share an uncertain value"):
        fit.log_density(counts, STATES)


@pytest.mark.slow
def test_assignments_that_may_share_a_probability_have_no_closed_predictive_density() -> None:
    def program(x: Any, levels: Any) -> None:
        theta = numpyro.sample("theta", dist.Dirichlet(jnp.full((3, 2), 1.5)).to_event(1))
        loc = numpyro.param("loc", jnp.array([[0.0, 2.0], [4.0, 6.0]]))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(theta[levels[:, 0]]))
            u = numpyro.sample("u", dist.Categorical(theta[levels[:, 1]]))
            numpyro.sample("x", dist.Normal(loc[t, u], 1.0), obs=x)

    fit = probem.fit(program, LINE, STATES, families=probem.VARIATIONAL_BAYES, max_steps=3, throw=False)
    with pytest.raises(probem.InputError, match="may share an uncertain probability"):
        fit.log_density(LINE, STATES)
    assert np.isfinite(fit.log_density(LINE, STATES, plug_in=True)).all()


@pytest.mark.slow
def test_gaps_are_filled_in_by_the_densities_of_the_group_of_their_row() -> None:
    """Two columns of which some entries are missing, with locations and covariances by group: means of the normal
    distributions of NumPy.
    """

    def program(x: Any, group: Any) -> None:
        share = numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)
        loc = numpyro.param("loc", jnp.zeros((2, CATEGORIES, 2)))
        start = jnp.broadcast_to(jnp.eye(2), (2, CATEGORIES, 2, 2))
        covariance = numpyro.param("covariance", start, constraint=constraints.positive_definite)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(share))
            normal = dist.MultivariateNormal(loc[t, group], covariance_matrix=covariance[t, group])
            numpyro.sample("x", normal, obs=x)

    group, x = STATES[:, 0], np.where(SEEN, PLANE, np.nan)
    fit = probem.fit(program, x, group, max_steps=4, throw=False)
    assert not fit.plan.form.generic
    filled = fit.impute(x, group)[0]
    densities = np.empty(ROWS)
    for n in range(ROWS):
        seen, locs, covariances = SEEN[n], fit.params["loc"][:, group[n]], fit.params["covariance"][:, group[n]]
        table, means = np.log(np.asarray(fit.params["weights"])), np.tile(x[n], (2, 1))
        for k in range(2):
            inner, across = covariances[k][np.ix_(seen, seen)], covariances[k][np.ix_(~seen, seen)]
            residual = x[n, seen] - locs[k][seen]
            solved = np.linalg.solve(inner, residual) if seen.any() else residual
            table[k] -= 0.5 * (residual @ solved + np.linalg.slogdet(2 * np.pi * inner)[1])
            means[k, ~seen] = locs[k][~seen] + across @ solved
        densities[n] = logsumexp(table)
        np.testing.assert_allclose(filled[n], np.exp(table - densities[n]) @ means, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(fit.log_density(x, group), densities, rtol=1e-9)


@pytest.mark.slow
def test_gaps_beside_scales_by_group_in_two_columns() -> None:
    def program(x: Any, group: Any) -> None:
        share = numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)
        loc = numpyro.param("loc", jnp.zeros((2, 2)))
        scale = numpyro.param("scale", jnp.ones((2, CATEGORIES, 2)), constraint=constraints.positive)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(share))
            numpyro.sample("x", dist.Normal(loc[t], scale[t, group]).to_event(1), obs=x)

    group, x = STATES[:, 0], np.where(SEEN, PLANE, np.nan)
    fit = probem.fit(program, x, group, max_steps=4, throw=False)
    loc, scale = np.asarray(fit.params["loc"]), np.asarray(fit.params["scale"])[:, group]
    each = -0.5 * ((x - loc[:, None]) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    table = np.log(fit.params["weights"])[:, None] + np.where(SEEN, each, 0.0).sum(2)
    np.testing.assert_allclose(fit.log_density(x, group), logsumexp(table, axis=0), rtol=1e-10)


def kinds(x: Any) -> None:
    share = weights()
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.array([[3.0, 2.0, 1.5], [1.5, 2.0, 3.0]])).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(share))
        numpyro.sample("x", dist.Multinomial(5, shares[t]), obs=x)


@pytest.mark.slow
def test_counts_of_categories_are_missing_as_a_whole() -> None:
    """A row of gaps has the assignment of its prior, in a stream as well; a part of a row has no density."""
    x = np.random.default_rng(2).multinomial(5, [0.5, 0.3, 0.2], 40).astype(float)
    fit = probem.fit(kinds, x, families=probem.VARIATIONAL_BAYES)
    x[3] = np.nan
    absorbed = probem.absorb(fit, x)
    alpha = fit.variational["weights"]["concentration"].ravel()
    prior = np.exp(digamma(alpha)) / np.exp(digamma(alpha)).sum()
    np.testing.assert_allclose(fit.responsibilities(x)[3], prior, rtol=1e-9)
    assert absorbed.total_weight == 80
    assert np.asarray(absorbed.variational["shares"]["concentration"]).shape == (2, 3)
    x[5, 0] = np.nan
    with pytest.raises(probem.InputError, match="only a part is missing"):
        probem.fit(kinds, x, families=probem.VARIATIONAL_BAYES)
