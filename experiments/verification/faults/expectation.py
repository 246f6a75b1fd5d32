"""Faults of the E-step, of the statistics that a pass over the rows adds up, and of the bound."""

from .fault import Fault

_DENSE_ENTROPY = """

    def entropy(self) -> Float[Array, " n"]:
        return -jnp.where(self.q.T == 0, 0.0, self.q.T * self.log_q.T).sum(0)

    def dense(self) -> Float[Array, "n K"]:
        return self.q
"""

FAULTS = (
    Fault(
        "the entropy of q with its sign turned",
        "probem/families/posteriors.py",
        _DENSE_ENTROPY,
        _DENSE_ENTROPY.replace("return -jnp", "return jnp"),
        "tests/e_step/test_bound.py::test_terms_of_any_q_are_sums_over_every_entry",
        ("A1", "iris"),
    ),
    Fault(
        "ties go to the highest index",
        "probem/families/posteriors.py",
        "higher = some[number] > best[0]",
        "higher = some[number] >= best[0]",
        "tests/families/test_assignments.py::test_ties_go_to_the_lowest_index",
        ("B3", "iris"),
    ),
    Fault(
        "the logarithm of the posterior is not normalised",
        "probem/families/posteriors.py",
        "centred - jnp.log(total)",
        "centred",
        "tests/families/test_assignments.py::test_every_reduction_is_that_of_the_dense_probabilities",
        ("A2", "iris"),
    ),
    Fault(
        "a tempered q is flattened where it should be sharpened",
        "probem/families/assignments.py",
        "softmax(self.beta * table)",
        "softmax(table / self.beta)",
        "tests/families/test_assignments.py::test_no_member_of_the_family_does_better",
        ("A3", "iris"),
    ),
    Fault(
        "the entropy of a tempered q is weighted by its power and not by one over it",
        "probem/families/assignments.py",
        "return 1.0 / self.beta",
        "return 1.0 * self.beta",
        "tests/experiments/hard_and_soft/test_hard_and_soft.py::test_holds[C2]",
        ("C2", "old_faithful"),
    ),
    Fault(
        "a truncated q keeps a value less",
        "probem/families/assignments.py",
        "jax.lax.top_k(table, min(self.num_kept, table.shape[1]))",
        "jax.lax.top_k(table, max(self.num_kept - 1, 1))",
        "tests/experiments/hard_and_soft/test_hard_and_soft.py::test_holds[C6]",
        ("C6", "old_faithful"),
    ),
    Fault(
        "the lowest values are kept and not the largest",
        "probem/families/assignments.py",
        "kept = softmax(values)",
        "kept = softmax(-values)",
        "tests/families/test_assignments.py::test_corners_of_the_families_meet",
        ("A3", "iris"),
    ),
    Fault(
        "a known label is not observed",
        "probem/e_step/evaluation.py",
        "    return jnp.where((label < 0) | (label == jnp.arange(table.shape[1])[None, :]), table, -jnp.inf)",
        "    return jnp.where(label < len(table), table, -jnp.inf)",
        "tests/fitting/test_known_labels.py::test_half_known_is_em_with_q_clamped",
        ("H5", "old_faithful"),
    ),
    Fault(
        "padding is counted as rows",
        "probem/data/blocks.py",
        "jnp.arange(self.size, dtype=jnp.int32) < self.num_rows",
        "jnp.arange(self.size, dtype=jnp.int32) < self.num_rows + 1",
        "tests/fitting/test_fit.py::test_em_is_the_plain_loop_at_every_half_step",
        ("B5", "old_faithful"),
    ),
    Fault(
        "weights of rows are ignored",
        "probem/data/blocks.py",
        "jnp.where(real, self.row_weights, 0.0)",
        "real * 1.0",
        "tests/fitting/test_fit.py::test_fractional_weights_are_the_weighted_loop",
        ("H4", "old_faithful"),
    ),
    Fault(
        "point masses forget the weights of rows",
        "probem/families/posteriors.py",
        "self.zeros.at[index].add(rows.row_weights, mode=",
        "self.zeros.at[index].add(rows.real * 1.0, mode=",
        "tests/e_step/test_relocation.py::test_several_empty_clusters_at_once_get_the_farthest_rows[False-1]",
        None,
        "the weighted rows of the claims have soft assignments",
    ),
    Fault(
        "columns that do not vary are counted more than once",
        "probem/e_step/summary.py",
        "proportions = (summary.counts / totals.total_weight)[:, None]",
        "proportions = (summary.counts / summary.counts.max())[:, None]",
        "tests/fitting/test_sklearn_equality.py::test_em_has_the_parameters_of_scikit_learn_after_every_iteration[old_faithful-tied]",
        ("B9", "old_faithful"),
    ),
    Fault(
        "the base measure is left out of the bound",
        "probem/solver/judgement.py",
        "inner + totals.log_base_measure.sum() + summary.generic",
        "inner + summary.generic",
        "tests/fitting/test_fit.py::test_em_is_the_plain_loop_at_every_half_step",
        ("B5", "iris"),
    ),
    Fault(
        "the entropy is subtracted from the bound",
        "probem/e_step/bound.py",
        "Bound(expected_log_joint + entropy + log_prior,",
        "Bound(expected_log_joint - entropy + log_prior,",
        "tests/e_step/test_bound.py::test_terms_of_any_q_are_sums_over_every_entry",
        ("A1", "iris"),
    ),
    Fault(
        "the prior is left out of the bound",
        "probem/e_step/bound.py",
        "Bound(expected_log_joint + entropy + log_prior, expected",
        "Bound(expected_log_joint + entropy, expected",
        "tests/checking/test_evaluate.py::test_the_bound_of_a_program_includes_its_prior_and_the_gap_vanishes_at_the_posterior",
        ("E2", "iris"),
    ),
    Fault(
        "the gap adds the entropy",
        "probem/e_step/bound.py",
        "q.expectation(table) - q.entropy()",
        "q.expectation(table) + q.entropy()",
        "tests/checking/test_evaluate.py::test_the_bound_of_a_program_includes_its_prior_and_the_gap_vanishes_at_the_posterior",
        ("A2", "iris"),
    ),
)
