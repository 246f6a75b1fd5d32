"""Moves between numbers of components: what they find, that F never falls, and F by the formulas."""

import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.sparse
import scipy.stats

import probem
from probem.families.numbers import lifted_family
from probem.models import diagonal, gmm, kmeans
from probem.moves.trial import Trial
from probem.results.moves import Move, Moves
from tests.moves.scenes import (
    PROGRAM,
    SPARSE,
    SPOILT,
    TRUTH,
    VB,
    X,
    at_random,
    bound_of,
    fitted,
    halved,
    in_one,
    occupied,
)
from tests.oracles.plain import rises
from tests.programs.counted import cost

# F of some 1e4 nats is a sum of terms of up to 1e5.
ROUNDING = 1e-8


def separates(fit: probem.Fit) -> bool:
    """Whether each component that is occupied has the rows of one cluster."""
    labels = fit.predict(X)
    return occupied(fit) == 3 and len({*zip(labels.tolist(), TRUTH.tolist(), strict=True)}) == 3


def test_components_of_one_cluster_are_merged_at_once() -> None:
    fit = halved()
    assert occupied(fit) == 4
    better = probem.refine(fit, X, moves=("merge",))
    first = better.moves[0]
    assert (first.kind, first.accepted) == ("merge", True)
    assert set(first.components) == set(np.unique(fit.predict(X[TRUTH == 0])))
    assert separates(better)
    assert better.elbo > fit.elbo + 1


def test_a_component_of_strayed_rows_is_deleted() -> None:
    fit = fitted(SPOILT)
    small = int(np.argmin(np.where(fit.counts > 0.5, fit.counts, np.inf)))
    assert occupied(fit) == 4
    better = probem.refine(fit, X, moves=("delete",))
    assert better.moves[0] == dataclasses.replace(better.moves[0], kind="delete", components=(small,), accepted=True)
    assert separates(better)
    assert better.elbo > fit.elbo + 1


def test_births_separate_clusters_that_share_a_component() -> None:
    fit = in_one()
    assert occupied(fit) == 1
    better = probem.refine(fit, X, moves=("birth",))
    assert next(move.components[0] for move in better.moves.accepted) == int(np.argmax(fit.counts))
    assert separates(better)


def test_components_are_numbered_by_size_where_their_order_counts() -> None:
    """E log of a later stick is lower: the largest first is the best order of clusters that do not overlap."""
    fit = fitted(5 - TRUTH)
    better = probem.refine(fit, X, moves=("relabel",))
    assert [move.kind for move in better.moves] == ["relabel"]
    np.testing.assert_allclose(better.counts[:3], [250, 200, 150], atol=1e-3)
    assert better.elbo > fit.elbo + 1


def test_f_of_every_accepted_move_is_that_of_the_formulas() -> None:
    """Each search goes no further than one accepted move, and the next begins there."""
    fit, kinds = at_random(), set()
    for _ in range(20):
        better = probem.refine(fit, X, max_moves=1)
        (move,) = better.moves
        np.testing.assert_allclose(better.elbo, bound_of(better), rtol=ROUNDING)
        # The last steps go on from where the move ended, by the tolerance.
        assert abs(move.elbo_before - fit.elbo) <= 1e-6 * len(X)
        if not move.accepted:
            break
        assert 0 <= better.elbo - move.elbo_after <= 1e-5 * len(X)
        assert move.elbo_after > move.elbo_before
        assert rises(better.history, 1e-11)
        kinds.add(move.kind)
        fit = better
    assert len(kinds) > 1


def test_all_moves_lead_from_random_labels_to_the_clusters() -> None:
    fit = at_random()
    better = probem.refine(fit, X)
    assert separates(better)
    best = probem.refine(fitted(TRUTH), X)
    np.testing.assert_allclose(better.elbo, best.elbo, atol=1e-3)
    assert all(move.elbo_after > move.elbo_before for move in better.moves.accepted)
    # Each that was accepted began where the one before it ended.
    ends = [move.elbo_after for move in better.moves.accepted]
    begins = [move.elbo_before for move in better.moves.accepted]
    np.testing.assert_allclose(begins[1:], ends[:-1], rtol=1e-12)


def test_where_no_move_is_accepted_the_fit_is_returned() -> None:
    fit = probem.refine(fitted(TRUTH), X)
    again = probem.refine(fit, X)
    assert again.moves
    assert not again.moves.accepted
    assert again.elbo == fit.elbo
    assert again.history is fit.history


def test_moves_compile_nothing_anew() -> None:
    probem.refine(at_random(), X)
    assert cost(lambda: probem.refine(in_one(), X)) == (0, 0)


def test_a_move_that_is_far_below_is_given_up() -> None:
    """To merge two clusters costs thousands of nats, which few steps say."""
    refused = [move for move in probem.refine(fitted(TRUTH), X, moves=("merge",)).moves if not move.accepted]
    whole = probem.fit(PROGRAM, X, families=VB, init=probem.Labels(np.where(TRUTH == 2, 1, TRUTH)), verbose=0)
    assert min(move.num_steps for move in refused) < whole.num_steps
    assert all(move.elbo_after < move.elbo_before - 100 for move in refused)


@pytest.mark.slow
def test_points_of_the_assignments_are_moved_as_well() -> None:
    start = probem.Labels(np.random.default_rng(0).integers(6, size=600))
    fit = probem.fit(PROGRAM, X, families=probem.MAXIMIZATION_EXPECTATION, init=start, verbose=0)
    better = probem.refine(fit, X)
    assert better.elbo > fit.elbo + 1
    assert separates(better)
    np.testing.assert_allclose(better.elbo, bound_of(better), rtol=ROUNDING)
    assert set(np.unique(better.responsibilities(X))) == {0.0, 1.0}


@pytest.mark.slow
def test_components_that_are_one_are_merged_under_a_sparse_dirichlet_prior() -> None:
    """Equal shares of every row stay equal: no iteration parts them, and the fit is a saddle."""
    shares = np.eye(6)[TRUTH]
    shares[TRUTH == 0] = np.eye(6)[0] / 2 + np.eye(6)[3] / 2
    fit = probem.fit(SPARSE, X, families=VB, init=probem.Responsibilities(shares), verbose=0, throw=False)
    np.testing.assert_allclose(fit.counts[[0, 3]], 125, atol=1e-6)
    better = probem.refine(fit, X)
    first = better.moves[0]
    assert (first.kind, set(first.components), first.accepted) == ("merge", {0, 3}, True)
    assert better.result is probem.Result.CONVERGED
    assert separates(better)


def test_known_labels_hold() -> None:
    """A component of known rows is not emptied, nor numbered anew, and what is known of a row stays so."""
    labels = np.where(np.arange(600) % 40 == 0, 5 - TRUTH, -1)
    start = probem.Labels(np.random.default_rng(0).integers(6, size=600))
    fit = probem.fit(PROGRAM, X, families=VB, init=start, labels=labels, verbose=0)
    better = probem.refine(fit, X, labels=labels)
    assert better.elbo >= fit.elbo
    known = labels >= 0
    assert set(np.flatnonzero(better.counts > 0.5)) >= set(labels[known])
    emptied = {move.components[1] for move in better.moves if move.kind == "merge"}
    emptied |= {move.components[0] for move in better.moves if move.kind == "delete"}
    assert not emptied & set(labels[known].tolist())
    r = better.responsibilities(X)
    r[known] = np.eye(6)[labels[known]]
    np.testing.assert_allclose(r.sum(0), better.counts, atol=1e-6)


@pytest.mark.slow
def test_a_row_of_weight_two_is_two_rows() -> None:
    weights = np.random.default_rng(5).integers(0, 3, size=600)
    shares = np.eye(6)[np.random.default_rng(0).integers(6, size=600)]
    every = np.repeat(np.arange(600), weights)
    one = probem.fit(PROGRAM, X, families=VB, init=probem.Responsibilities(shares), row_weights=weights, verbose=0)
    other = probem.fit(PROGRAM, X[every], families=VB, init=probem.Responsibilities(shares[every]), verbose=0)
    one, other = probem.refine(one, X, row_weights=weights), probem.refine(other, X[every])
    assert one.moves.accepted
    np.testing.assert_allclose(one.elbo, other.elbo, rtol=1e-9)
    assert [move.kind for move in one.moves.accepted] == [move.kind for move in other.moves.accepted]


def test_ctrl_c_loses_nothing(monkeypatch) -> None:
    fit, calls, climb = in_one(), [], Trial.climb

    def interrupted(self, *arguments, **options) -> None:
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        climb(self, *arguments, **options)

    monkeypatch.setattr(Trial, "climb", interrupted)
    better = probem.refine(fit, X)
    assert better.result is probem.Result.INTERRUPTED
    assert better.moves.accepted
    assert better.elbo >= better.moves.accepted[-1].elbo_after > fit.elbo
    np.testing.assert_allclose(better.elbo, bound_of(better), rtol=ROUNDING)
    calls[:] = [1] * 3
    assert probem.refine(fit, X).elbo == fit.elbo


def test_the_record_prints_as_a_table_and_is_kept(tmp_path) -> None:
    moves = Moves(
        (
            Move("relabel", (1, 0), -12.0, -11.5, 3, True),
            Move("merge", (0, 3), -11.5, -10.0, 12, True),
            Move("delete", (2,), -10.0, -10.25, 4, False),
            Move("birth", (1, 3), -10.0, -9.0, 7, True),
            Move("merge+birth", (0, 3, 2, 3), -9.0, -8.5, 7, True),
        )
    )
    assert str(moves) == (
        "move         components           F before  F after  steps  accepted\n"
        "-----------  -------------------  --------  -------  -----  --------\n"
        "relabel      by size               -12.000  -11.500      3  yes\n"
        "merge        3 into 0              -11.500  -10.000     12  yes\n"
        "delete       2                     -10.000  -10.250      4  no\n"
        "birth        1 to 1, 3             -10.000   -9.000      7  yes\n"
        "merge+birth  3 into 0; 2 to 2, 3    -9.000   -8.500      7  yes"
    )
    assert str(Moves()) == "no move was tried"
    assert [move.kind for move in moves[1:3]] == ["merge", "delete"]
    better = dataclasses.replace(in_one(), moves=moves)
    better.save(tmp_path / "fit.npz")
    assert probem.load(tmp_path / "fit.npz").moves == moves
    assert pickle.loads(pickle.dumps(dataclasses.replace(better, plan=None))).moves == moves


@pytest.mark.slow
def test_rows_with_gaps_and_sparse_rows_are_moved_as_well() -> None:
    random = np.random.default_rng(6)
    start = probem.Labels(random.integers(6, size=600))
    holed = np.where(random.random(X.shape) < 0.2, np.nan, X)
    fit = probem.fit(PROGRAM, holed, families=VB, init=start, verbose=0)
    better = probem.refine(fit, holed)
    assert better.moves.accepted
    assert occupied(better) == 3
    np.testing.assert_allclose(better.elbo, bound_of(better, holed), rtol=ROUNDING)
    rows = scipy.sparse.csr_matrix(X)
    sparse = probem.refine(probem.fit(PROGRAM, rows, families=VB, init=start, verbose=0), rows)
    assert sparse.moves.accepted
    assert occupied(sparse) == 3
    np.testing.assert_allclose(sparse.elbo, bound_of(sparse), rtol=ROUNDING)


@pytest.mark.slow
def test_densities_without_statistics_are_moved_by_overlap() -> None:
    """Laplace errors climb along their gradient; two components in one cluster, and one in two."""
    truth = np.repeat([0, 1, 2], 40)
    x = np.array([-50.0, 0.0, 50.0])[truth] + np.random.default_rng(0).laplace(size=120)

    def laplace(x: jax.Array) -> None:
        loc = numpyro.param("loc", jnp.array([-1.0, 0.0, 1.0]))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
            numpyro.sample("x", dist.Laplace(loc[t], 1.0), obs=x)

    fit = probem.fit(laplace, x, init=probem.Parameters({"loc": [-51.0, -49.0, 25.0]}), verbose=0, throw=False)
    better = probem.refine(fit, x, throw=False)
    assert better.moves.accepted
    assert better.elbo > fit.elbo + 10
    table = scipy.stats.laplace.logpdf(x[:, None], np.asarray(better.params["loc"])) - np.log(3)
    np.testing.assert_allclose(better.elbo, np.logaddexp.reduce(table, axis=1).sum(), rtol=1e-10)
    np.testing.assert_allclose(np.sort(better.params["loc"]), [-50, 0, 50], atol=0.6)


@pytest.mark.slow
def test_maximum_likelihood_splits_and_merges_at_once() -> None:
    """Without a prior a merge alone gains nothing; EM from two components in one cluster, and one in two, stays."""
    random = np.random.default_rng(0)
    truth = np.arange(150) % 3
    x = np.array([[0.0, 0.0], [12.0, 0.0], [24.0, 3.0]])[truth] + random.normal(size=(150, 2))
    labels = np.where(truth == 0, (x[:, 0] > 0).astype(int), 2)
    program = functools.partial(gmm, num_components=3, covariance=diagonal)
    fit = probem.fit(program, x, init=probem.Labels(labels), verbose=0)
    better = probem.refine(fit, x)
    assert {move.kind for move in better.moves} == {"merge+birth"}
    assert len({*zip(better.predict(x).tolist(), truth.tolist(), strict=True)}) == 3
    np.testing.assert_allclose(better.elbo, better.log_density(x).sum(), rtol=1e-10)
    assert better.elbo > fit.elbo + 10
    hard = probem.fit(
        functools.partial(kmeans, num_components=3), x, families=probem.HARD_EM, init=probem.Labels(labels)
    )
    better = probem.refine(hard, x)
    centres = np.stack([x[truth == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(better.params["loc"][np.argsort(better.params["loc"][:, 0])], centres, rtol=1e-10)


def test_bad_input_gets_one_sentence() -> None:
    fit = in_one()
    for options, match in (
        ({"moves": ("merge", "split")}, "the move 'split'"),
        ({"moves": "merge"}, "moves='merge'"),
        ({"moves": ()}, "no moves"),
        ({"tries": 0}, "tries=0"),
        ({"max_moves": -1}, "max_moves=-1"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"labels": np.zeros(3)}, "labels of shape"),
        ({"row_weights": np.full(600, 2.0)}, "rows on which the fit has F"),
    ):
        with pytest.raises(probem.InputError, match=match):
            probem.refine(fit, X, **options)
    with pytest.raises(probem.InputError, match="rows on which the fit has F"):
        probem.refine(fit, X[::-1] + 1)
    with pytest.raises(probem.InputError, match=r"columns|shape"):
        probem.refine(fit, X[:, :3])
    with pytest.raises(probem.InputError, match="has no F"):
        probem.refine(dataclasses.replace(fit, bound=fit.bound._replace(elbo=np.nan)), X)
    with pytest.raises(probem.InputError, match="ended as SINGULAR"):
        probem.refine(dataclasses.replace(fit, result=probem.Result.SINGULAR), X)
    with pytest.raises(probem.InputError, match="loaded without its program"):
        probem.refine(dataclasses.replace(fit, plan=None), X)


@pytest.mark.parametrize("family", [probem.Tempered(0.5), probem.Annealed(0.5), probem.Sampled()])
def test_families_that_do_not_maximise_f_are_refused(family) -> None:
    fit = in_one()
    other = dataclasses.replace(fit, plan=dataclasses.replace(fit.plan, lifted_family=lifted_family(family, 6)))
    with pytest.raises(probem.InputError, match="which does not maximise F"):
        probem.refine(other, X)
