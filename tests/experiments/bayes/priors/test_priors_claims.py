"""Claims D1, D2 and E5 to E8: each holds, and a planted fault makes the same check fail."""

import dataclasses
import functools

import numpy as np
import pytest

import probem
from probem.experiments.bayes.priors import bounded_likelihood, degeneracy, dp_limit, nuts, pruning
from probem.experiments.bayes.priors.claims import CLAIMS
from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.datasets import load
from probem.experiments.kmeans.limits import best_partition
from probem.experiments.kmeans.paths import fixed
from probem.experiments.oracles.dp_means import Pass, dp_means
from probem.experiments.report.report import formula, prose
from probem.models import equal, gmm

SEED = 5
BY_ID = {claim.id: claim for claim in CLAIMS}


@pytest.fixture(autouse=True)
def nothing_remembered():
    """A planted fault must neither find fits made without it nor leave its own behind."""
    pruning.forget()
    yield
    pruning.forget()


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Every prior and every number of components compiles another program."""
    monkeypatch.setattr(pruning, "CONCENTRATIONS", (0.01, 10.0))
    monkeypatch.setattr(pruning, "STICKS", (0.1, 100.0))
    monkeypatch.setattr(pruning, "CHOICES", (3, 4, 5))
    monkeypatch.setattr(pruning, "STARTS", 4)


@functools.cache
def small(scale=1.0):
    generator = np.random.default_rng(11)
    centres = 3.0 * generator.standard_normal((2, 2))
    rows = np.repeat(centres, 30, axis=0) + generator.standard_normal((60, 2))
    rows = np.concatenate([rows, [[9.0, 9.0]]])
    return Dataset("small", scale * rows, "two clusters of 30 rows, and one row far from them", ("x", "y"))


def data(claim):
    return small() if BY_ID[claim].datasets == ("old_faithful",) else load(BY_ID[claim].datasets[0])


def failing(claim, dataset=None):
    return [check.compared for check in BY_ID[claim].check(dataset or data(claim), SEED) if not check.holds]


# --- the claims hold ---


@pytest.mark.slow
# D2 compares where EM stops with a supremum over all starts, which EM need not reach beside the row far away.
@pytest.mark.parametrize("claim", [claim for claim in BY_ID if claim != "D2"])
def test_holds_on_small_data(claim, monkeypatch):
    plant_posteriors(monkeypatch, lambda own: own)  # NUTS samples once for all tests
    assert failing(claim) == []


@pytest.mark.slow
@pytest.mark.parametrize("claim", ["D1", "D2", "E8"])
def test_holds_on_old_faithful(claim):
    assert failing(claim, load("old_faithful")) == []


# --- planted faults: D1, D2, E8 ---


def without_engine(monkeypatch):
    """Only the ladder of D1, which is SciPy's: the fits are left out."""
    monkeypatch.setattr(degeneracy, "fit_from", lambda *given: dataclasses.replace(FINISHED))


@dataclasses.dataclass(frozen=True)
class Finished:
    elbo: float = 0.0


FINISHED = Finished()


def ladder(dataset):
    return next(BY_ID["D1"].check(dataset, SEED))


def test_d1_the_likelihood_grows(monkeypatch):
    without_engine(monkeypatch)
    assert ladder(small()).holds


def test_d1_sees_a_floor_under_the_covariances(monkeypatch):
    def floored(rows, params, real=degeneracy.log_joint):
        return real(rows, {**params, "covariance": params["covariance"] + 1e-6 * np.eye(2)})

    without_engine(monkeypatch)
    monkeypatch.setattr(degeneracy, "log_joint", floored)
    assert not ladder(small()).holds


@pytest.mark.slow
def test_d1_sees_a_start_that_does_not_collapse(monkeypatch):
    # From here EM on Old Faithful settles on a narrow ellipse.
    monkeypatch.setattr(degeneracy, "START", 0.35)
    found = failing("D1", load("old_faithful"))
    assert [one.split(":")[0] for one in found] == ["EM from there", "the same run with throw=True"]


@pytest.mark.slow
def test_d1_sees_a_bound_that_falls(monkeypatch):
    def reversed_history(*given, real=degeneracy.fit_from, **options):
        fit = real(*given, **options)
        evaluated = 2 * fit.num_steps - 1
        elbo = np.concatenate([fit.history.elbo[:evaluated][::-1], fit.history.elbo[evaluated:]])
        return dataclasses.replace(fit, history=dataclasses.replace(fit.history, elbo=elbo))

    monkeypatch.setattr(degeneracy, "fit_from", reversed_history)
    assert "EM from there: the largest fall of F in a half-step, relative, and 0" in failing("D1")


@pytest.mark.slow
def test_d2_sees_covariances_that_are_not_the_identity(monkeypatch):
    narrow = functools.partial(gmm, covariance=fixed(0.1), weights=equal)
    monkeypatch.setattr(bounded_likelihood, "kmeans", narrow)
    found = failing("D2", small(0.01))
    assert {one.split(":")[0] for one in found} == {
        "Σ = I, soft EM",
        "Σ = I, point masses",
        "Σ = I, eight rows and a centre on each",
    }


@pytest.mark.slow
def test_d2_sees_a_fit_that_did_not_converge(monkeypatch):
    def early(*given, real=probem.fit, **options):
        return real(*given, **options | {"max_steps": 1})

    monkeypatch.setattr(probem, "fit", early)
    assert [one for one in failing("D2") if "CONVERGED" in one] == [
        "Σ = I, soft EM: what is missing from an end as CONVERGED",
        "Σ = I, point masses: what is missing from an end as CONVERGED",
    ]


def test_d2_the_best_two_clusters_are_those_of_all_partitions():
    for seed in range(4):
        rows = np.random.default_rng(seed).integers(0, 4, (9, 2)).astype(float)  # rows that coincide, and lie in line
        exact, _ = best_partition(rows, 2)
        assert bounded_likelihood.best_two_clusters(rows) == pytest.approx(exact, abs=1e-12)


def test_d2_the_plain_posterior_is_that_of_scipy():
    prior, rows, params = prior_and_maximum()
    params = {**params, "weights": np.array([0.3, 0.7]), "loc": params["loc"] + np.eye(2)}
    at = bounded_likelihood.to_free(params)
    assert bounded_likelihood.log_posterior(rows, prior, at) == pytest.approx(posterior(prior, rows, params), abs=1e-9)
    again = bounded_likelihood.from_free(at, 2)
    assert all(np.allclose(again[name], params[name], rtol=1e-12) for name in params)


def test_d2_tells_priors_that_bound_from_those_that_do_not(monkeypatch):
    checks = list(bounded_likelihood.proper_priors(small(), SEED))
    assert [check.holds for check in checks] == [True, True, True]
    swapped = {name: (density, not bounds) for name, (density, bounds) in bounded_likelihood.SCALE_PRIORS.items()}
    monkeypatch.setattr(bounded_likelihood, "SCALE_PRIORS", swapped)
    assert not any(check.holds for check in bounded_likelihood.proper_priors(small(), SEED))


def prior_and_maximum(num_rows=7):
    """All rows at the mean of the prior, and the parameters at which the upper bound with a prior is attained."""
    prior = bounded_likelihood.weak_prior(small().rows)
    rest = prior.dof - 2
    precision = np.stack([(num_rows + rest) * np.linalg.inv(prior.scatter), rest * np.linalg.inv(prior.scatter)])
    params = {"weights": np.array([1 - 1e-13, 1e-13]), "loc": np.stack([prior.mean] * 2), "precision": precision}
    return prior, np.stack([prior.mean] * num_rows), params


def posterior(prior, rows, params):
    return degeneracy.log_likelihood(rows, params) + bounded_likelihood.log_prior(prior, params)


def test_d2_the_bound_with_a_prior_is_attained():
    prior, rows, params = prior_and_maximum()
    supremum = bounded_likelihood.supremum_with_prior(prior, len(rows), 2)
    assert posterior(prior, rows, params) == pytest.approx(supremum, abs=1e-9)
    for factor in (0.9, 1.1):
        assert posterior(prior, rows, {**params, "precision": factor * params["precision"]}) < supremum - 1e-3


def test_d2_no_parameters_exceed_the_bound_with_a_prior():
    generator = np.random.default_rng(SEED)
    rows = small().rows
    prior = bounded_likelihood.weak_prior(rows)
    supremum = bounded_likelihood.supremum_with_prior(prior, len(rows), 2)
    for _ in range(50):
        factor = generator.standard_normal((2, 2, 2)) * np.exp(2 * generator.standard_normal((2, 1, 1)))
        params = {
            "weights": generator.dirichlet(np.ones(2)),
            "loc": rows[generator.choice(60, 2)],
            "precision": factor @ factor.transpose(0, 2, 1),
        }
        assert posterior(prior, rows, params) < supremum


@pytest.mark.slow
def test_e8_sees_a_prior_without_its_location(monkeypatch):
    def without(prior, params, real=bounded_likelihood.log_prior):
        return real(prior, params) - np.log(prior.strength)

    monkeypatch.setattr(bounded_likelihood, "log_prior", without)
    assert failing("E8") == ["F + log p(θ) of every half-step as recorded, and from SciPy’s densities, relative"]


@pytest.mark.slow
def test_e8_sees_iterations_out_of_order_and_a_collapse(monkeypatch):
    def change(*given, real=bounded_likelihood.map_run):
        first, *rest, last = real(*given)
        precision = last.params["precision"].at[0].multiply(1e8)
        collapsed = dataclasses.replace(last, params={**last.params, "precision": precision})
        return [rest[-1], *rest[:-1], first, collapsed]

    monkeypatch.setattr(bounded_likelihood, "map_run", change)
    found = failing("E8")
    assert any("largest fall" in one for one in found)
    assert any("smallest eigenvalue" in one for one in found)


@pytest.mark.slow
def test_e8_sees_maximum_likelihood(monkeypatch):
    def collapse(setting, prior):
        return [degeneracy.fit_from(setting, setting.start)]

    real = bounded_likelihood.map_run
    monkeypatch.setattr(
        bounded_likelihood,
        "map_run",
        lambda *given: [*real(*given)[:-1], dataclasses.replace(real(*given)[-1], result=collapse(*given)[0].result)],
    )
    assert failing("E8") == ["D1’s start: what is missing from an end as CONVERGED with finite parameters"]


# --- planted faults: E5 ---


@pytest.mark.slow
def test_e5_sees_a_concentration_upside_down(monkeypatch):
    monkeypatch.setattr(pruning, "prune", lambda *given, real=pruning.prune: real(*given[:3], 0.1 / given[3]))
    monkeypatch.setattr(pruning, "STICKS", (0.01, 10.0))
    monkeypatch.setattr(pruning, "stick_breaking", pruning.dirichlet)
    monkeypatch.setattr(pruning, "keep", lambda *given: pruning.prune(*given, pruning.dirichlet, 10.0))
    monkeypatch.setattr(pruning, "_chooses", lambda *given: iter(()))
    assert len(failing("E5")) == 7


@pytest.mark.slow
def test_e5_sees_a_choice_by_inertia(monkeypatch):
    def by_inertia(*given, real=pruning.choices):
        return [dataclasses.replace(one, bound=-one.inertia) for one in real(*given)]

    monkeypatch.setattr(pruning, "choices", by_inertia)
    rows = pruning.centred(load("blobs"))
    found = [check for check in pruning._chooses("blobs", rows, SEED) if not check.holds]
    assert len(found) == 2
    assert found[1].numbers == {"chosen": 5}


@pytest.mark.slow
def test_e5_sees_labels_without_their_probability_and_an_inertia_that_rises(monkeypatch):
    def rising(*given, real=pruning.choices):
        return [dataclasses.replace(one, inertia=-one.inertia) for one in real(*given)]

    monkeypatch.setattr(pruning, "dirichlet_log_prob", lambda *given: 0.0)
    monkeypatch.setattr(pruning, "choices", rising)
    rows = pruning.centred(load("blobs"))
    found = [check.holds for check in pruning._chooses("blobs", rows, SEED)]
    assert found == [False, True, False]


# --- planted faults: E6 ---


def whole():
    rows = pruning.centred(load("overlapping"))[:: dp_limit.EVERY]
    return rows, Pass(np.zeros(len(rows), dtype=int), rows.mean(axis=0, keepdims=True), 0.0)


def test_e6_the_log_joint_opens_a_cluster_where_dp_means_does():
    asked, wrong = dp_limit.opening(*whole(), dp_limit.VARIANCES[-1])
    assert asked > 0
    assert wrong == 0


def test_e6_sees_another_penalty(monkeypatch):
    monkeypatch.setattr(
        dp_limit, "log_concentration", lambda *given, real=dp_limit.log_concentration: 0.7 * real(*given)
    )
    _, wrong = dp_limit.opening(*whole(), dp_limit.VARIANCES[-1])
    assert wrong > 0


def test_e6_the_last_opening():
    rows, _ = whole()
    passes = dp_means(rows, dp_limit.PENALTY)
    sizes = [len(one.centres) for one in passes]
    number = dp_limit.last_opening(passes)
    assert len(set(sizes[number:])) == 1
    assert sizes[number - 1] < sizes[number]


@pytest.mark.slow
def test_e6_sees_one_label_and_a_constant_dropped(monkeypatch):
    def one_label(*given, real=dp_limit.follow):
        run = real(*given)
        run.labels[1][0] = (run.labels[1][0] + 1) % 6
        return run

    monkeypatch.setattr(dp_limit, "follow", one_label)
    monkeypatch.setattr(
        dp_limit, "scaled_bound", lambda *given, real=dp_limit.scaled_bound: real(*given) - dp_limit.PENALTY
    )
    assert len(failing("E6")) == 4


@pytest.mark.slow
def test_e6_sees_a_variance_that_is_not_small(monkeypatch):
    monkeypatch.setattr(dp_limit, "VARIANCES", (5.0, 0.5))
    assert any("labels unlike" in one for one in failing("E6"))


# --- planted faults: E7 ---


@functools.cache
def sampled(name, real=nuts.posteriors):
    return real(nuts.settings(load("one_dimensional").rows)[name], SEED)


def plant_posteriors(monkeypatch, change):
    both = nuts.settings(load("one_dimensional").rows)

    def changed(rows, seed):
        name = next(name for name, own in both.items() if np.array_equal(own, rows))
        return change(sampled(name))

    monkeypatch.setattr(nuts, "posteriors", changed)


@pytest.mark.slow
def test_e7_sees_wrong_standard_deviations(monkeypatch):
    plant_posteriors(monkeypatch, lambda own: dataclasses.replace(own, deviation=1.4 * own.deviation))
    assert [one.split(":")[0] for one in failing("E7")] == ["overlapping", "set apart"]


@pytest.mark.slow
def test_e7_sees_wrong_means(monkeypatch):
    plant_posteriors(monkeypatch, lambda own: dataclasses.replace(own, mean=own.mean + 0.5 * own.deviation))
    assert [one.split(" by ")[0] for one in failing("E7")] == [
        "overlapping: posterior means of the centres",
        "set apart: posterior means of the centres",
    ]


@pytest.mark.slow
def test_e7_sees_labels_that_switch(monkeypatch):
    def switched(own):
        return dataclasses.replace(own, draws=np.concatenate([own.draws[:-5], own.draws[-5:, ::-1]]))

    plant_posteriors(monkeypatch, switched)
    assert sum("changed places" in one for one in failing("E7")) == 2


# --- what the report shows ---


@pytest.mark.parametrize("claim", CLAIMS, ids=BY_ID)
def test_words_and_formulas_can_be_shown(claim):
    assert "merror" not in formula(claim.formula)
    assert "$" not in prose(claim.statement) + prose(claim.figure_caption)


@pytest.mark.slow
@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if claim.figure], ids=lambda claim: claim.id)
def test_figures_can_be_drawn(claim, monkeypatch):
    from probem.experiments.claims.drawing import draw

    plant_posteriors(monkeypatch, lambda own: own)
    assert draw(lambda: claim.figure(load(claim.figure_dataset), SEED), prefix=claim.id).png.startswith(b"\x89PNG")
