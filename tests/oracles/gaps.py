"""EM on rows with gaps by plain loops, row by row and entry by entry, in NumPy and SciPy alone."""

import numpy as np
import scipy.special
import scipy.stats

Params = dict[str, np.ndarray]


def with_gaps(x: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The rows with values missing at random, and the awkward ones: rows with nothing, with one value, a column with
    few values.
    """
    random = np.random.default_rng(seed)
    holes = random.random(x.shape) < share
    holes[3] = holes[11] = True
    holes[5], holes[5, 0] = True, False
    holes[17], holes[17, -1] = True, False
    holes[20:50, -1] = True
    return np.where(holes, np.nan, x)


def groups(num_rows: int, dim: int, seed: int, spread: float = 3.0) -> np.ndarray:
    """Two correlated groups of rows."""
    random = np.random.default_rng(seed)
    centres = spread * np.stack([np.ones(dim), -np.ones(dim)])
    mixing = np.eye(dim) + 0.4 * random.normal(size=(2, dim, dim))
    t = random.permutation(np.arange(num_rows) % 2)
    return centres[t] + np.einsum("nij,nj->ni", mixing[t], random.normal(size=(num_rows, dim)))


def conditional(row: np.ndarray, loc: np.ndarray, covariance: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """log N(x_o), E[x | x_o] and Cov[x | x_o] of one row of which NaN is missing."""
    seen, gone = ~np.isnan(row), np.isnan(row)
    log_density = scipy.stats.multivariate_normal.logpdf(row[seen], loc[seen], covariance[np.ix_(seen, seen)])
    gain = covariance[np.ix_(gone, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    mean, spread = row.copy(), np.zeros_like(covariance)
    mean[gone] = loc[gone] + gain @ (row[seen] - loc[seen])
    spread[np.ix_(gone, gone)] = covariance[np.ix_(gone, gone)] - gain @ covariance[np.ix_(seen, gone)]
    return float(log_density), mean, spread


def normal_table(params: Params, x: np.ndarray, views: list[slice]) -> np.ndarray:
    """log pi_k + log N(x_no | loc_k, covariance_k), [N, K]; features of different views are independent."""
    table = np.tile(np.log(params["weights"]), (len(x), 1))
    for n, row in enumerate(x):
        for k in range(len(params["weights"])):
            for view in views:
                if not np.isnan(row[view]).all():
                    covariance = params["covariance"][k][view, view]
                    table[n, k] += conditional(row[view], params["loc"][k][view], covariance)[0]
    return table


def conditional_em_step(
    params: Params,
    x: np.ndarray,
    tied: bool = False,
    views: list[slice] | None = None,
    weights: np.ndarray | None = None,
    added: np.ndarray | float = 0.0,
) -> tuple[float, Params]:
    """The observed-data log likelihood, and one step of EM that conditions row by row; covariances [K, D, D].

    A row of which nothing was observed says nothing about location and covariance. Source: Ghahramani & Jordan (1994),
    section 3.
    """
    dim = x.shape[1]
    views = [slice(0, dim)] if views is None else views
    weights = np.ones(len(x)) if weights is None else weights
    table = normal_table(params, x, views)
    log_density = scipy.special.logsumexp(table, axis=1)
    r = weights[:, None] * np.exp(table - log_density[:, None])
    loc, covariance = params["loc"].copy(), params["covariance"].copy()
    for view in views:
        counts, scatters = np.zeros(len(loc)), []
        for k in range(len(loc)):
            total, second = 0.0, 0.0
            for n, row in enumerate(x[:, view]):
                if not np.isnan(row).all():
                    _, mean, spread = conditional(row, params["loc"][k][view], params["covariance"][k][view, view])
                    counts[k] += r[n, k]
                    total = total + r[n, k] * mean
                    second = second + r[n, k] * (np.outer(mean, mean) + spread)
            own = total / counts[k]
            loc[k][view] = own
            scatters.append(second - counts[k] * np.outer(own, own))
        for k in range(len(loc)):
            found = sum(scatters) / counts.sum() if tied else scatters[k] / counts[k]
            covariance[k][view, view] = found + np.asarray(added) * np.eye(len(found))
    return float(weights @ log_density), {"weights": r.sum(0) / weights.sum(), "loc": loc, "covariance": covariance}


def _normal(value: float, loc: float, scale: float) -> float:
    return -0.5 * ((value - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def entry_table(params: Params, x: np.ndarray, kind: str) -> np.ndarray:
    """The table of features that are independent given the component, over the entries that are there, [N, K]."""
    count = len(next(value for name, value in params.items() if name != "weights" and value.ndim == 2))
    weights = params.get("weights", np.full(count, 1 / count))
    table = np.tile(np.log(weights), (len(x), 1))
    for n, d in np.argwhere(~np.isnan(x)):
        for k in range(count):
            if kind == "poisson":
                table[n, k] += scipy.stats.poisson.logpmf(x[n, d], params["rate"][k, d])
            elif kind == "bernoulli":
                table[n, k] += scipy.stats.bernoulli.logpmf(x[n, d], params["probs"][k, d])
            else:
                scale = np.asarray(params.get("scale", 1.0))
                own = {"diagonal": (k, d), "spherical": (k,)}.get(kind, ())
                table[n, k] += _normal(x[n, d], params["loc"][k, d], scale[own])
    return table


def entry_em_step(
    params: Params, x: np.ndarray, kind: str, q: np.ndarray | None = None, weights: np.ndarray | None = None
) -> tuple[float, Params]:
    """F (of the posterior, or of a given ``q``), and the parameters of one M-step, entry by entry."""
    table = entry_table(params, x, kind)
    weights = np.ones(len(x)) if weights is None else weights
    log_density = scipy.special.logsumexp(table, axis=1)
    posterior = np.exp(table - log_density[:, None]) if q is None else q
    elbo = weights @ log_density if q is None else weights @ (posterior * table - scipy.special.xlogy(q, q)).sum(1)
    r = weights[:, None] * posterior
    shape = (r.shape[1], x.shape[1])
    events, sums, squares = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for n, d in np.argwhere(~np.isnan(x)):
        events[:, d] += r[n]
        sums[:, d] += r[n] * x[n, d]
    mean = sums / events
    for n, d in np.argwhere(~np.isnan(x)):
        squares[:, d] += r[n] * (x[n, d] - mean[:, d]) ** 2
    found = {"weights": r.sum(0) / weights.sum()} if "weights" in params else {}
    if kind in ("poisson", "bernoulli"):
        return float(elbo), found | {{"poisson": "rate", "bernoulli": "probs"}[kind]: mean}
    found["loc"] = mean
    if kind == "diagonal":
        found["scale"] = np.sqrt(squares / events)
    elif kind == "spherical":
        found["scale"] = np.sqrt(squares.sum(1) / events.sum(1))
    elif kind == "shared":
        found["scale"] = np.sqrt(squares.sum() / events.sum())
    return float(elbo), found
