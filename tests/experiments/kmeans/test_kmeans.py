"""Claims B1 to B10: each holds on small data, and a planted fault makes the same check fail."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.datasets import load
from probem.experiments.kmeans import limits as kmeans_limits
from probem.experiments.kmeans import paths as kmeans_paths
from probem.experiments.kmeans import steps as kmeans_steps
from probem.experiments.kmeans import trajectories
from probem.experiments.kmeans.claims import CLAIMS
from probem.experiments.oracles.lloyd import (
    Iteration,
    inertia,
    lloyd,
    means,
    nearest,
    partitions,
    scikit_learn_lloyd,
    starts,
    tied,
)
from probem.families import Corner, Delta, Point
from probem.models import gmm, identity

# The claims on small data and their planted faults compile many programs: `probem verify` itself is the quick way to
# see that the claims hold.
pytestmark = pytest.mark.slow

SEED = 5
BY_ID = {claim.id: claim for claim in CLAIMS}


@pytest.fixture(autouse=True)
def nothing_remembered():
    """A planted fault must neither find trajectories made without it nor leave its own behind."""
    trajectories.forget()
    yield
    trajectories.forget()


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Every number of clusters, every fixed variance and every restriction compiles another program."""
    two = {name: kmeans_limits.DROPPED[name] for name in ("free weights", "its own σ² for each cluster")}
    monkeypatch.setattr(kmeans_paths, "COMPONENTS", (3,))
    monkeypatch.setattr(kmeans_paths, "SCALES", (10.0,))
    monkeypatch.setattr(kmeans_limits, "DROPPED", two)


@functools.cache
def small(dimension=2):
    generator = np.random.default_rng(11)
    centres = 3.0 * generator.standard_normal((3, dimension))
    sizes = (50, 25, 10)
    rows = np.concatenate(
        [centre + generator.standard_normal((n, dimension)) for centre, n in zip(centres, sizes, strict=True)]
    )
    return Dataset("small", rows, "three clusters of 50, 25 and 10 rows", tuple("xy"[:dimension]))


def failing(claim, dataset=None):
    itself = BY_ID[claim].by_itself(SEED) if BY_ID[claim].by_itself else ()
    return [check.compared for check in (*BY_ID[claim].check(dataset or small(), SEED), *itself) if not check.holds]


# --- the claims hold ---


@pytest.mark.parametrize("claim", [pytest.param(one, marks=[pytest.mark.slow] * (one == "B10")) for one in BY_ID])
def test_holds_on_small_data(claim):
    assert failing(claim) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claim", "name"),
    [(claim.id, name) for claim in CLAIMS for name in claim.datasets or ("digits", "one_dimensional")],
)
def test_holds_on_data_sets(claim, name, monkeypatch):
    """On many columns, some of them constant, and on one.

    In full what has data sets of its own: .ci/run has `probem verify` check the others in full, on iris.
    """
    if BY_ID[claim].datasets:
        monkeypatch.undo()
    assert failing(claim, load(name)) == []


# --- planted faults ---


class HighestIndex(Delta):
    """The mode, but ties to the highest index."""

    def project(self, table):
        last = table.shape[1] - 1 - jnp.argmax(table[:, ::-1], axis=1)
        return Point(last.astype(jnp.int32), jnp.zeros(table.shape[1], table.dtype))

    def mode(self, table):
        return self.project(table).index

    # Not equal to Delta(), so that nothing compiled for one serves the other.
    def __eq__(self, other):
        return type(other) is HighestIndex

    def __hash__(self):
        return 1


class Furthest(HighestIndex):
    """Not the mode at all."""

    def project(self, table):
        return Point(jnp.argmin(table, axis=1).astype(jnp.int32), jnp.zeros(table.shape[1], table.dtype))

    def __eq__(self, other):
        return type(other) is Furthest

    def __hash__(self):
        return 2


def unequal(num_components):
    return jnp.arange(1.0, num_components + 1) / sum(range(1, num_components + 1))


unequal_kmeans = functools.partial(gmm, covariance=identity, weights=unequal)


def shifted_mean(x, *, num_components, structure):
    """Rows that lie about twice the centre: an M-step that finds half the mean."""
    loc = numpyro.param("loc", jnp.zeros((num_components, x.shape[-1])))
    scale = structure(num_components)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.full(num_components, 1 / num_components)))
        numpyro.sample("x", dist.Normal(2.0 * loc[t], scale).to_event(1), obs=x)


def plant_family(monkeypatch, family):
    monkeypatch.setattr(probem, "HARD_EM", Corner("HARD_EM", family, Delta()))


def plant_path(monkeypatch, change):
    """Change the trajectories on their way from the engine to the checks."""
    found = trajectories.hard_em

    def changed(program, rows, start, max_steps=1000):
        run = found(program, rows, start, max_steps)
        iterations, bounds = change(rows, run.iterations, run.bounds)
        return trajectories.Trajectory(tuple(iterations), run.params, np.asarray(bounds), run.fit)

    for module in (trajectories, kmeans_steps, kmeans_paths):
        monkeypatch.setattr(module, "hard_em", changed)


def medians(rows, iterations, bounds):
    """The trajectory of k-medians with k-means' E-step."""
    centres, found = iterations[0].centres, []
    for _ in iterations:
        labels = nearest(rows, centres)
        found.append(Iteration(centres, labels))
        parts = [rows[labels == k] for k in range(len(centres))]
        centres = np.stack(
            [np.median(part, axis=0) if len(part) else c for part, c in zip(parts, centres, strict=True)]
        )
    return found, bounds


def test_b1_ties_to_the_highest_index(monkeypatch):
    plant_family(monkeypatch, HighestIndex())
    assert failing("B1") == [
        "random p with two equal largest entries: rows whose closest point mass (lowest index at a tie) is not where "
        "the engine puts q"
    ]


def test_b1_the_least_probable_cluster(monkeypatch):
    plant_family(monkeypatch, Furthest())
    assert len(failing("B1")) == 3


def test_b1_divergence_the_other_way_round(monkeypatch):
    from scipy.special import rel_entr

    def reversed_divergence(p, index):
        return float(rel_entr(p, np.eye(len(p))[index] * (1 - 1e-6) + 1e-6 / len(p)).sum())

    monkeypatch.setattr(kmeans_steps, "_divergence", reversed_divergence)
    assert any("lecture" in compared for compared in failing("B1"))


def test_b2_a_joint_without_its_weights(monkeypatch):
    log_joint = probem.log_joint
    monkeypatch.setattr(
        probem, "log_joint", lambda program, p, *data: log_joint(program, p, *data) - jnp.log(p["weights"])
    )
    assert len(failing("B2")) == 2


def test_b3_unequal_weights(monkeypatch):
    monkeypatch.setattr(kmeans_steps, "kmeans", unequal_kmeans)
    assert len(failing("B3", small(1))) == 2


def test_b3_ties_to_the_highest_index(monkeypatch):
    plant_family(monkeypatch, HighestIndex())
    (compared,) = failing("B3", small(1))
    assert "every such tie must go to the lower index" in compared


@pytest.mark.slow
def test_b4_a_program_that_is_not_about_its_centres(monkeypatch):
    monkeypatch.setattr(kmeans_steps, "kmeans", functools.partial(shifted_mean, structure=lambda k: 1.0))
    assert len(failing("B4")) == 4


def test_b4_the_median_for_the_mean(monkeypatch):
    plant_path(monkeypatch, medians)
    assert failing("B4") == ["the centres after the engine's M-step against the means of the rows assigned, relative"]


def test_b5_a_constant_dropped(monkeypatch):
    plant_path(monkeypatch, lambda rows, iterations, bounds: (iterations, bounds + len(rows) * np.log(3)))
    assert len(failing("B5")) == 1


@pytest.mark.slow
def test_b5_unequal_weights(monkeypatch):
    monkeypatch.setattr(trajectories, "kmeans", unequal_kmeans)
    assert len(failing("B5")) == 1


@pytest.mark.slow
def test_b6_unequal_weights(monkeypatch):
    monkeypatch.setattr(trajectories, "kmeans", unequal_kmeans)
    assert any("labels that differ" in compared for compared in failing("B6"))


def test_b6_the_median_for_the_mean(monkeypatch):
    plant_path(monkeypatch, medians)
    assert any("centres at every iteration" in compared for compared in failing("B6"))


def test_b6_one_iteration_too_few(monkeypatch):
    plant_path(monkeypatch, lambda rows, iterations, bounds: (iterations[:-1], bounds[:-1]))
    assert {compared.split(": ")[1] for compared in failing("B6")} == {"difference in the number of iterations"}


def test_b6_one_label(monkeypatch):
    def change(rows, iterations, bounds):
        labels = iterations[1].labels.copy()
        labels[0] = (labels[0] + 1) % 3
        return [iterations[0], Iteration(iterations[1].centres, labels), *iterations[2:]], bounds

    plant_path(monkeypatch, change)
    assert any("labels that differ" in compared for compared in failing("B6"))


def test_b7_a_step_back(monkeypatch):
    def change(rows, iterations, bounds):
        return [iterations[0], iterations[1], iterations[0], *iterations[1:]], bounds

    plant_path(monkeypatch, change)
    assert failing("B7") == [
        "iterations in which labels moved and J did not fall, or J rose",
        "partitions that came twice before the end",
    ]


def test_b7_stopped_before_the_end(monkeypatch):
    plant_path(monkeypatch, lambda rows, iterations, bounds: (iterations[:-1], bounds[:-1]))
    assert failing("B7") == ["runs that did not end on labels repeated"]


def test_b8_stopped_before_the_end(monkeypatch):
    plant_path(monkeypatch, lambda rows, iterations, bounds: (iterations[:1], bounds[:1]))
    assert any("another M-step would move a centre" in compared for compared in failing("B8"))


def test_b8_a_search_that_misses_partitions(monkeypatch):
    few = lambda rows, k: (inertia(rows, labels := np.arange(len(rows)) % k, means(rows, labels, rows[:k])), labels)  # noqa: E731
    monkeypatch.setattr(kmeans_limits, "best_partition", few)
    assert any("below the best of all partitions" in compared for compared in failing("B8"))


@pytest.mark.slow
def test_b8_ties_to_the_highest_index(monkeypatch):
    plant_family(monkeypatch, HighestIndex())
    assert any("a limit at a tie" in compared for compared in failing("B8"))


def test_b9_a_variance_that_is_not_shared(monkeypatch):
    def own(scale):
        def structure(num_components, dim):
            scales = scale * jnp.arange(1.0, num_components + 1)
            return lambda loc, t: dist.Normal(loc, scales[t][..., None]).to_event(1)

        return structure

    monkeypatch.setattr(kmeans_paths, "fixed", functools.cache(own))
    compared = failing("B9")
    assert any("σ² fixed at 100: labels" in one for one in compared)
    assert any("σ² fixed at 100: centres" in one for one in compared)
    assert not any("learned" in one for one in compared)


def test_b9_a_constant_dropped_from_the_inertia(monkeypatch):
    monkeypatch.setattr(kmeans_paths, "inertia", lambda rows, labels, centres: 0.5 * inertia(rows, labels, centres))
    assert {one.split(": ")[1][:1] for one in failing("B9")} == {"F", "i"}


def test_b10_restrictions_that_were_not_dropped(monkeypatch):
    restrictions = {"covariance": identity, "weights": kmeans_limits.equal}
    kept = {name: kmeans_limits.Dropped(restrictions, {}) for name in kmeans_limits.DROPPED}
    monkeypatch.setattr(kmeans_limits, "DROPPED", kept)
    # Of the weights' boundaries nothing can be asked where there are no weights.
    monkeypatch.setattr(kmeans_limits, "_moved_boundaries", lambda *arguments: iter(()))
    assert len(failing("B10")) == 2


@pytest.mark.slow
def test_b10_boundaries_that_do_not_move(monkeypatch):
    found = kmeans_limits.dropped

    def still(rows, start, name):
        run = found(rows, start, name)
        equal = tuple({**params, "weights": np.full(3, 1 / 3)} for params in run.params)
        return trajectories.Trajectory(run.iterations, equal, run.bounds, run.fit)

    monkeypatch.setattr(kmeans_limits, "dropped", still)
    assert any("− 2 log π_c" in compared for compared in failing("B10"))


# --- the references themselves ---


def test_lloyd_by_hand():
    rows = np.array([[0.0], [1.0], [5.0], [6.0]])
    found = lloyd(rows, np.array([[0.0], [1.0]]))
    assert [list(own.labels) for own in found] == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert [own.centres.ravel().tolist() for own in found] == [[0, 1], [0, 4], [0.5, 5.5]]


def test_scikit_learn_is_followed_iteration_by_iteration():
    rows = np.array([[0.0], [1.0], [5.0], [6.0]])
    found = scikit_learn_lloyd(rows, np.array([[0.0], [1.0]]))
    assert [list(own.labels) for own in found] == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_ties_are_found_and_go_to_the_lowest_index():
    rows, centres = np.array([[0.1], [1.0], [0.2]]), np.array([[0.0], [0.2], [2.0]])
    assert tied(rows, centres).tolist() == [True, False, False]
    assert nearest(np.array([[1.0]]), np.array([[2.0], [0.0]])).tolist() == [0]


def test_two_runs_that_part_at_a_tie_are_compared_from_there_on():
    rows = np.array([[0.0], [2.0], [3.0], [3.0]])
    start = np.array([[1.0], [3.0]])
    other_way = [Iteration(start, np.array([0, 1, 1, 1])), *lloyd(rows, np.array([[0.0], [8 / 3]]))]
    found = trajectories.compare(rows, other_way, functools.partial(lloyd, rows))
    assert (found.different, found.parted, found.excess, found.ties) == (0, 1, 0, ((0, 1),))


def test_partitions_are_counted_by_stirling_numbers():
    assert [len(list(partitions(5, k))) for k in range(1, 6)] == [1, 15, 25, 10, 1]


def test_starts_are_distinct_points():
    rows = np.repeat(np.arange(6.0)[:, None], 3, axis=0)
    assert all(len(np.unique(start)) == 5 for start in starts(rows, 5, 4, seed=0))


# --- what the report shows ---


def test_words_and_formulas_can_be_rendered():
    from probem.experiments.report.report import formula, prose

    for claim in CLAIMS:
        assert "<math" in formula(claim.formula)
        assert "$" not in prose(claim.statement) + prose(claim.figure_caption)


@pytest.mark.slow
@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if claim.figure], ids=lambda claim: claim.id)
def test_figures(claim, monkeypatch):
    from probem.experiments.claims.drawing import draw

    monkeypatch.undo()
    name = claim.figure_dataset or "iris"
    assert draw(lambda: claim.figure(load(name), SEED), prefix=claim.id).png.startswith(b"\x89PNG")
