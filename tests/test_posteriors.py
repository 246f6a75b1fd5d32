"""Full posteriors: which parts q has, its updates, and its bound, held to plain loops, closed forms and SciPy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.special
import scipy.stats as stats
from bayesian_programs import (
    ALPHA,
    EXAMPLES,
    GAMMA,
    MIXED,
    MIXED_CELLS,
    NORMAL,
    PRIOR,
    SPHERICAL,
    STICK_ALPHA,
    WISHART,
    dirichlet,
    fitted,
    log_prior_of_labels,
    mixture,
    sticks,
)

import probem
from probem import loop
from probem.experiments import evidence, plain_bayes
from probem.families import choose_families
from probem.fit import _key
from probem.maximization import objective
from probem.plan import Plan, make_plan
from probem.random_statistics import draw_rows, random_statistics
from probem.reading import read
from probem.start import begin_in_trace, initial_params, resolve

VB, ME = probem.VARIATIONAL_BAYES, probem.MAXIMIZATION_EXPECTATION
HALF = np.tile([[0.7, 0.3], [0.4, 0.6]], (20, 1))
slow = pytest.mark.slow


def some_slow(names: Any, quick: tuple[str, ...] = ()) -> Any:
    return pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in quick else slow) for name in names])


@functools.cache
def plan_of(name: str) -> Plan:
    program, families = MIXED[name] if name in MIXED else (mixture(name), VB)
    known = read(program, (NORMAL if name in MIXED else EXAMPLES[name].rows,))
    return make_plan(known, choose_families(known, families))


# The parts of q.


@some_slow([*EXAMPLES, *MIXED], quick=("diagonal", "poisson"))
def test_cells_and_ties_are_found(name: str) -> None:
    expected = MIXED_CELLS[name] if name in MIXED else {"weights": (1, 0, None), **EXAMPLES[name].cells}
    sites = plan_of(name).mean_field.sites
    found = {site.name: (site.cells, site.dim, site.tied and site.tied[0]) for site in sites}
    assert found == expected
    for site in sites:
        if site.tied is not None:
            # Cells and their precisions in the same order, one for each or one for all of a column.
            count = {own.name: own.cells for own in sites}[site.tied[0]]
            shared = np.tile(np.arange(count), site.cells) if name.startswith("tied") else None
            features = np.arange(site.cells) * count // site.cells if shared is None else shared[: site.cells]
            np.testing.assert_array_equal(site.tied[1], features)


@slow
def test_explain_says_the_parts() -> None:
    families = VB | {"precision": probem.Delta()}
    rows = probem.explain(mixture("factorised location"), NORMAL, families=families).rows
    assert {row.site: (row.family, row.update) for row in rows} == {
        "t": ("Categorical()", "posterior"),
        "weights": ("Conjugate()", "closed form: Dirichlet, prior + statistics"),
        "precision": ("Delta() (MAP)", "closed form: mode of its conditional posterior"),
        "loc": ("Conjugate()", "closed form: Normal, 2 entries together, prior + statistics"),
        "x": ("", "exponential family (MultivariateNormal, 5 statistics)"),
    }
    rows = probem.explain(mixture("full", weights=sticks), NORMAL, families=VB).rows
    assert {row.site: row.update for row in rows if row.role == "prior"} == {
        "sticks": "closed form: Beta, prior + statistics",
        "precision": "closed form: Wishart, prior + statistics",
        "loc": "closed form: Normal given 'precision', prior + statistics",
    }
    rows = probem.explain(mixture("poisson"), EXAMPLES["poisson"].rows, families=VB).rows
    assert {row.site: row.update for row in rows}["rate"] == "closed form: Gamma, prior + statistics"


# The update.

# One of every kind: the others differ from these in shapes only.
SETTLED = (
    "full covariance",
    "tied",
    "diagonal",
    "factorised location",
    "poisson",
    "categorical",
    "hierarchical",
    "param covariance",
    "point location",
    "point precision",
)


@some_slow(SETTLED)
def test_an_update_is_the_maximum_of_the_bound(name: str) -> None:
    """Once the updates in turn have settled, no argument of any q has a slope, and no q nearby is better."""
    plan = plan_of(name)
    mean_field = plan.mean_field
    stats_of_rows = random_statistics(mean_field.form, draw_rows(mean_field.form, 7))
    points = plan.program.random_params(8)

    @jax.jit
    def settled(points: Any) -> Any:
        once = mean_field.maximise(stats_of_rows, mean_field.start(points))
        again = jax.lax.fori_loop(0, 300, lambda _, params: mean_field.maximise(stats_of_rows, params), once)
        return once, again

    def value(own: Any, params: Any) -> jax.Array:
        return objective(mean_field, stats_of_rows, {**params, **own})

    once, params = settled(points)
    names = [site.name for site in mean_field.sites]
    own = {site: params[site] for site in names}
    highest, slope = jax.jit(jax.value_and_grad(value))(own, params)
    for site in mean_field.sites:
        for argument, (at, part) in enumerate(
            zip(*map(jax.tree.leaves, (own[site.name], slope[site.name])), strict=True)
        ):
            part = np.asarray(part)
            if site.point and not site.is_location and site.prior.event_ndim == 1:
                # On the simplex: the slope along it.
                part = part - part.mean(-1, keepdims=True)
            if site.name != "loc" and part.ndim == 3:
                part = part + np.swapaxes(part, -1, -2)
            scaled = np.abs(part * np.abs(at).max())
            assert scaled.max() <= 1e-8 * (1 + abs(float(highest))), (site.name, argument)
    # In the plain cases nothing waits for anything: one round is the maximum.
    if name in EXAMPLES and name != "factorised location":
        for first, last in zip(*map(jax.tree.leaves, (once, params)), strict=True):
            np.testing.assert_allclose(first, last, rtol=1e-9, atol=1e-9)

    def shaken(one: jax.Array, key: jax.Array) -> jax.Array:
        noise = 0.03 * jax.random.normal(key, one.shape)
        if one.ndim < 3:
            return one * (1 + noise)
        # Turned and stretched on both sides, a matrix stays positive definite.
        both = jnp.eye(one.shape[-1]) + noise
        return both @ one @ jnp.swapaxes(both, -1, -2)

    def moved(seed: jax.Array) -> Any:
        leaves, treedef = jax.tree.flatten(own)
        keys = jax.random.split(seed, len(leaves))
        return value(jax.tree.unflatten(treedef, map(shaken, leaves, keys)), params)

    if not any(site.point for site in mean_field.sites):
        nearby = jax.jit(jax.vmap(moved))(jax.random.split(jax.random.key(0), 200))
        assert (np.asarray(nearby) < highest).all()


# The evidence.


def exact(name: str, rows: np.ndarray, num_components: int, weights: Any) -> float:
    example = EXAMPLES[name]
    assert example.log_marginal is not None
    return evidence.log_evidence(
        rows,
        num_components,
        lambda labels: log_prior_of_labels(labels, num_components, weights),
        functools.partial(example.log_marginal, num_components=num_components)
        if "tied" not in name
        else lambda rows, labels: example.log_marginal(rows, labels, num_components),
    )


# The other pairs are held to their evidence by the claims of experiments/evidence_kinds.py.
@slow
@pytest.mark.parametrize("name", ["full covariance", "diagonal variance", "tied spherical", "gamma"])
def test_one_component_has_the_log_evidence(name: str) -> None:
    rows, log_marginal = EXAMPLES[name].rows, EXAMPLES[name].log_marginal
    assert log_marginal is not None
    fit = probem.fit(mixture(name, 1), rows, families=VB)
    alone = np.zeros(len(rows), int)
    np.testing.assert_allclose(fit.elbo, log_marginal(rows, alone, 1), rtol=0, atol=1e-8)


@slow
@pytest.mark.parametrize("name", ["full", "tied", "spherical", "known variance", "poisson", "bernoulli", "categorical"])
def test_point_assignments_have_the_joint_evidence(name: str) -> None:
    """Maximisation-expectation ends at F = log p(t) + log p(X | t), whatever the pair. Kurihara & Welling (2009)."""
    example = EXAMPLES[name]
    fit = probem.fit(mixture(name), example.rows, families=ME, key=1)
    assert example.log_marginal is not None
    labels = np.asarray(fit.predict(example.rows))
    expected = log_prior_of_labels(labels, 2, dirichlet) + example.log_marginal(example.rows, labels, 2)
    np.testing.assert_allclose(fit.elbo, expected, rtol=0, atol=1e-8)


@slow
@pytest.mark.parametrize("name", ["full", "tied", "poisson"])
def test_the_bound_is_below_the_evidence(name: str) -> None:
    """With full posteriors, by enumeration of all assignments of seven rows."""
    rows = EXAMPLES[name].rows[:7]
    log_evidence = exact(name, rows, 2, dirichlet)
    for families in (VB, ME):
        for key in range(2):
            fit = probem.fit(mixture(name), rows, families=families, key=key, throw=False)
            assert fit.elbo <= log_evidence + 1e-9
            # Not by being far below it: the best single assignment alone is within N log K.
            assert fit.elbo >= log_evidence - 7 * np.log(2) - 5


@slow
@pytest.mark.parametrize("families", [VB, ME], ids=lambda corner: corner.name)
def test_the_bound_of_three_components_with_sticks_is_below_the_evidence(families: Any) -> None:
    rows = NORMAL[:7]
    log_evidence = exact("full", rows, 3, sticks)
    for key in range(3):
        fit = probem.fit(mixture("full", 3, sticks), rows, families=families, key=key, throw=False)
        assert fit.elbo <= log_evidence + 1e-9
        assert oracles.rises(fit.history)


# Iteration by iteration.

LOOPS = {
    "full": (WISHART, False),
    "tied": (WISHART, True),
    "diagonal": (GAMMA, False),
    "tied diagonal": (GAMMA, True),
    "spherical": (SPHERICAL, False),
    "tied spherical": (SPHERICAL, True),
}


def arguments_of(fit: probem.Fit) -> dict[str, np.ndarray]:
    """q in the parameters of the plain loop, ``[G, ...]``."""
    found = {name: {key: np.asarray(own) for key, own in q.items()} for name, q in fit.variational.items()}
    loc, precision, weights = found["loc"], found["precision"], found.get("weights", found.get("sticks"))
    assert weights is not None
    strength = PRIOR.strength * loc["strength"].reshape(2, -1)
    np.testing.assert_allclose(strength, strength[:, :1].repeat(strength.shape[1], 1), rtol=1e-6)
    return {
        "mean": loc["loc"].reshape(2, 2),
        "strength": strength[:, 0],
        "dof": precision["concentration"],
        "scatter": precision.get("rate", precision.get("rate_matrix")),
        "weights": weights["concentration"][0]
        if "concentration" in weights
        else np.stack([weights["concentration1"], weights["concentration0"]], 1),
    }


def compare_with_loop(
    name: str, families: Any, weights: Any, rows: np.ndarray = NORMAL, digits: float = 1e-10, num_steps: int = 12
) -> None:
    prior, tied = LOOPS[name]
    plain = (
        plain_bayes.StickWeights(STICK_ALPHA) if weights is sticks else plain_bayes.DirichletWeights(np.full(2, ALPHA))
    )
    held = HALF if families is VB else np.eye(2)[HALF.argmax(1)]
    steps = probem.iterate(
        mixture(name, 2, weights),
        rows,
        families=families,
        init=probem.Responsibilities(held),
        tolerance=0.0,
        throw=False,
    )
    expected = plain_bayes.variational_bayes(
        np.asarray(rows, float), held, prior, plain, tied=tied, hard=families is ME, num_steps=num_steps
    )
    made = 0
    for fit, iteration in zip(steps, expected, strict=False):
        np.testing.assert_allclose(fit.elbo, iteration.bound, rtol=digits)
        np.testing.assert_allclose(fit.responsibilities(rows), iteration.responsibilities, atol=digits, rtol=0)
        for part, value in arguments_of(fit).items():
            other = getattr(iteration.posterior, part)
            # A gamma distribution has a shape for every feature, all the same.
            value = value.reshape(len(other), -1)
            other = np.broadcast_to(other.reshape(len(other), -1), value.shape)
            np.testing.assert_allclose(value, other, rtol=digits, atol=digits, err_msg=part)
        made += 1
    assert made == num_steps or families is ME
    assert made >= 2


@some_slow(LOOPS)
def test_every_iteration_is_that_of_the_plain_loop(name: str) -> None:
    compare_with_loop(name, VB, dirichlet)


@slow
@pytest.mark.parametrize("name", ["full", "tied", "spherical"])
def test_every_iteration_with_point_assignments_is_that_of_the_plain_loop(name: str) -> None:
    compare_with_loop(name, ME, dirichlet)


@slow
@pytest.mark.parametrize("name", ["full", "diagonal"])
def test_every_iteration_with_sticks_is_that_of_the_plain_loop(name: str) -> None:
    compare_with_loop(name, VB, sticks)


@slow
def test_float32_follows_the_plain_loop() -> None:
    """As far as seven digits go: four are left after twelve iterations of sums over forty rows."""
    compare_with_loop("diagonal", VB, dirichlet, NORMAL.astype(np.float32), digits=1e-3)


# The bound never falls.

NUM_PROBLEMS, NUM_STEPS = 200, 15


@slow
@pytest.mark.parametrize(
    "families", [probem.EM, probem.HARD_EM, VB, ME], ids=lambda corner: f"{corner.name}-with-priors"
)
def test_the_bound_never_falls_in_any_half_step(families: Any) -> None:
    """Two hundred data sets of twelve rows side by side, every half-step of fifteen iterations of each."""
    program = mixture("full", 3)
    rows = np.random.default_rng(5).normal(size=(NUM_PROBLEMS, 12, 2)) * 1.5
    known = read(program, (rows[0],))
    plan = make_plan(known, choose_families(known, families))
    limits = loop.Limits(jnp.zeros(()), jnp.asarray(10**6, jnp.int32))

    @jax.jit
    @jax.vmap
    def history(x: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        seeding, start = resolve(plan, (x,), None, seed, 1)
        block = one_block(x, plan)
        prepared, block, state = begin_in_trace(plan, seeding, start, initial_params(plan, (x,)), block, 1)
        labels = (jnp.full(block.size if plan.family.is_point else 0, -1, jnp.int32),)

        def step(carry: Any, _: None) -> Any:
            state, labels, record = loop.step(plan, carry[0], carry[1], None, prepared, (block,), limits, loop.inline)
            return (state, labels), (record.expectation.elbo, record.maximization.elbo)

        _, halves = jax.lax.scan(step, (state, labels), None, NUM_STEPS)
        return halves

    keys = jax.random.split(_key(0), NUM_PROBLEMS)
    bounds = np.stack(history(jnp.asarray(rows), keys), -1).reshape(NUM_PROBLEMS, -1)
    assert np.isfinite(bounds).all()
    rise = np.diff(bounds, axis=1)
    assert (rise >= -1e-12 * (1 + np.abs(bounds[:, :-1]))).all()
    # They are not all at rest from the first.
    assert np.mean(rise.sum(1)) > 0.1


def one_block(x: jax.Array, plan: Plan) -> Any:
    return probem.data.one_block((x,), None, plan.cut(x.shape[0]).chunk_rows, plan.dtype)


# The terms.


@slow
@pytest.mark.parametrize("name", ["full", "factorised location", "poisson", *MIXED])
def test_the_terms_add_up(name: str) -> None:
    fit = fitted(name)
    assert sum(fit.elbo_terms.values()) == pytest.approx(fit.elbo, rel=1e-12)
    assert oracles.rises(fit.history)
    for site in fit.plan.program.globals:
        full = site.name in fit.plan.mean_field.full
        assert (f"H({site.name})" in fit.elbo_terms) == full
        assert (f"E log p({site.name})" in fit.elbo_terms) == full
        assert (f"log p({site.name})" in fit.elbo_terms) == (site.has_prior and not full)


@slow
def test_each_term_is_what_it_says() -> None:
    """SciPy's entropies and log densities, and averages over SciPy's draws of q, four standard errors."""
    fit, random = fitted("diagonal"), np.random.default_rng(0)
    terms = fit.elbo_terms
    q = {name: {key: np.asarray(own) for key, own in site.items()} for name, site in fit.variational.items()}
    concentration = q["weights"]["concentration"][0]
    counts = np.asarray(fit.counts)
    log_weights = scipy.special.digamma(concentration) - scipy.special.digamma(concentration.sum())
    normaliser = scipy.special.gammaln(2 * ALPHA) - 2 * scipy.special.gammaln(ALPHA)
    assert terms["E log p(weights)"] == pytest.approx((ALPHA - 1) * log_weights.sum() + normaliser, rel=1e-10)
    assert terms["H(weights)"] == pytest.approx(stats.dirichlet(concentration).entropy(), rel=1e-10)
    assert terms["E log p(t)"] == pytest.approx(counts @ log_weights, rel=1e-10)
    assert terms["H(t)"] == pytest.approx(stats.entropy(fit.responsibilities(NORMAL), axis=1).sum(), rel=1e-10)
    gamma = stats.gamma(q["precision"]["concentration"], scale=1 / q["precision"]["rate"])
    assert terms["H(precision)"] == pytest.approx(gamma.entropy().sum(), rel=1e-10)
    precision = gamma.rvs((20_000, 4), random_state=random)
    loc = random.normal(q["loc"]["loc"][:, 0], 1 / np.sqrt(PRIOR.strength * q["loc"]["strength"] * precision))
    prior = stats.gamma(GAMMA.shape, scale=1 / np.tile(GAMMA.rate, 2))
    around = stats.norm(np.tile(PRIOR.mean, 2), 1 / np.sqrt(PRIOR.strength * precision))
    own = stats.norm(q["loc"]["loc"][:, 0], 1 / np.sqrt(PRIOR.strength * q["loc"]["strength"] * precision))
    responsibilities = np.asarray(fit.responsibilities(NORMAL))
    table = stats.norm.logpdf(
        NORMAL[:, None, None], loc[:1000].reshape(-1, 2, 2), precision[:1000].reshape(-1, 2, 2) ** -0.5
    ).sum(-1)
    for name, draws in {
        "E log p(precision)": prior.logpdf(precision).sum(1),
        "E log p(loc)": around.logpdf(loc).sum(1),
        "H(loc)": -own.logpdf(loc).sum(1),
        "E log p(x)": np.einsum("nsk,nk->s", table, responsibilities),
    }.items():
        assert abs(draws.mean() - terms[name]) <= 4 * draws.std() / np.sqrt(len(draws)), name
