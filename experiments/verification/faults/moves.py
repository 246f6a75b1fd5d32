"""Faults of moves between numbers of components."""

from .fault import Fault

_NO_CLAIM = "claims are about one fit, and not about which of several is kept"

FAULTS = (
    Fault(
        "a move that lowers F is accepted",
        "probem/moves/refine.py",
        "is_better = not trial.ended_badly and trial.elbo > target",
        "is_better = not trial.ended_badly",
        "tests/moves/test_refine.py::test_where_no_move_is_accepted_the_fit_is_returned",
        None,
        _NO_CLAIM,
    ),
    Fault(
        "moves are compared without the entropy of q",
        "probem/moves/trial.py",
        "value = float(self.state.bound.elbo)",
        "value = float(self.state.bound.elbo - self.state.bound.entropy)",
        "tests/moves/test_refine.py::test_f_of_every_accepted_move_is_that_of_the_formulas",
        None,
        _NO_CLAIM,
    ),
    Fault(
        "a merge loses no entropy in its score",
        "probem/moves/candidates.py",
        "exact = [(score + change[made.merge], made) for score, made in every]",
        "exact = [(score, made) for score, made in every]",
        "tests/moves/test_candidates.py::test_a_score_is_f_after_the_first_m_step[merge]",
        None,
        _NO_CLAIM,
    ),
    Fault(
        "components of known rows are emptied",
        "probem/moves/candidates.py",
        "if not view.labelled[other]:",
        "if True:",
        "tests/moves/test_candidates.py::test_components_of_known_rows_stay_and_their_rows_are_not_split_off",
        None,
        _NO_CLAIM,
    ),
    Fault(
        "a row of weight two counts once in what a delete loses",
        "probem/moves/rows.py",
        "return np.where(weights[:, None] > 0, weights[:, None] * others, 0.0).sum(0)",
        "return np.where(weights[:, None] > 0, others, 0.0).sum(0)",
        "tests/moves/test_candidates.py::test_what_a_delete_loses_counts_rows_by_their_weight",
        None,
        _NO_CLAIM,
    ),
)
