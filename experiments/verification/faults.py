"""Faults of one line each, in words, with the claim and the test that see them.

What a fault replaces is written here as it stands in the source, and must occur there exactly once. Where no claim sees
a fault, ``unclaimed`` says why: claims are about the bound and the algorithms, and not about refusals, files, or what
only happens where something has already gone wrong.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Fault:
    """One line that is wrong: ``before`` in ``file`` becomes ``after``.

    ``claim`` is one of ``probem verify`` and the data set on which it fails, or None; ``test`` the pytest node that
    fails.
    """

    name: str
    file: str
    before: str
    after: str
    test: str
    claim: tuple[str, str] | None = None
    unclaimed: str = ""


_DENSE_ENTROPY = """

    def entropy(self) -> Array:
        return -jnp.where(self.q == 0, 0.0, self.q * self.log_q).sum(1)

    def dense(self) -> Array:
        return self.q
"""

_E_STEP = (
    Fault(
        "the entropy of q with its sign turned",
        "probem/families.py",
        _DENSE_ENTROPY,
        _DENSE_ENTROPY.replace("return -jnp", "return jnp"),
        "tests/test_bound.py::test_terms_of_any_q_are_sums_over_every_entry",
        ("A1", "iris"),
    ),
    Fault(
        "ties go to the highest index",
        "probem/families.py",
        "(second[1] < first[1])",
        "(second[1] > first[1])",
        "tests/test_families.py::test_ties_go_to_the_lowest_index",
        ("B3", "iris"),
    ),
    Fault(
        "the logarithm of the posterior is not normalised",
        "probem/families.py",
        "centred - jnp.log(total))",
        "centred)",
        "tests/test_families.py::test_every_reduction_is_that_of_the_dense_probabilities",
        ("A2", "iris"),
    ),
    Fault(
        "a tempered q is flattened where it should be sharpened",
        "probem/families.py",
        "_softmax(self.beta * table)",
        "_softmax(table / self.beta)",
        "tests/test_families.py::test_no_member_of_the_family_does_better",
        ("A3", "iris"),
    ),
    Fault(
        "the lowest values are kept and not the largest",
        "probem/families.py",
        "kept = _softmax(values)",
        "kept = _softmax(-values)",
        "tests/test_families.py::test_corners_of_the_families_meet",
        ("A3", "iris"),
    ),
    Fault(
        "a known label is not observed",
        "probem/expectation.py",
        "    return jnp.where((own < 0) | (own == jnp.arange(table.shape[1])[None, :]), table, -jnp.inf)",
        "    return jnp.where(own < len(table), table, -jnp.inf)",
        "tests/test_known_labels.py::test_half_known_is_em_with_q_clamped",
        ("H5", "old_faithful"),
    ),
)

_STATISTICS = (
    Fault(
        "padding is counted as rows",
        "probem/data.py",
        "jnp.arange(self.size, dtype=jnp.int32) < self.num_rows",
        "jnp.arange(self.size, dtype=jnp.int32) < self.num_rows + 1",
        "tests/test_fit.py::test_em_is_the_plain_loop_at_every_half_step",
        ("B5", "old_faithful"),
    ),
    Fault(
        "weights of rows are ignored",
        "probem/data.py",
        "jnp.where(real, self.row_weights, 0.0)",
        "real * 1.0",
        "tests/test_fit.py::test_fractional_weights_are_the_weighted_loop",
        ("H4", "old_faithful"),
    ),
    Fault(
        "point masses forget the weights of rows",
        "probem/families.py",
        "self.zeros.at[index].add(rows.row_weights, mode=",
        "self.zeros.at[index].add(rows.real * 1.0, mode=",
        "tests/test_stopping.py::test_several_empty_clusters_at_once_get_the_farthest_rows[False-1]",
        None,
        "the weighted rows of the claims have soft assignments",
    ),
    Fault(
        "columns that do not vary are counted more than once",
        "probem/expectation.py",
        "share = (summary.counts / prepared.total_weight)[:, None]",
        "share = (summary.counts / summary.counts.max())[:, None]",
        "tests/test_sklearn_equality.py::test_em_has_the_parameters_of_scikit_learn_after_every_iteration[old_faithful-tied]",
        ("B9", "old_faithful"),
    ),
    Fault(
        "the base measure is left out of the bound",
        "probem/loop.py",
        "expected(lin, stats) + prepared.log_base_measure.sum() + summary.generic",
        "expected(lin, stats) + summary.generic",
        "tests/test_fit.py::test_em_is_the_plain_loop_at_every_half_step",
        ("B5", "iris"),
    ),
)

_BOUND = (
    Fault(
        "the entropy is subtracted from the bound",
        "probem/bound.py",
        "Bound(expected_log_joint + entropy + log_prior,",
        "Bound(expected_log_joint - entropy + log_prior,",
        "tests/test_bound.py::test_terms_of_any_q_are_sums_over_every_entry",
        ("A1", "iris"),
    ),
    Fault(
        "the prior is left out of the bound",
        "probem/bound.py",
        "Bound(expected_log_joint + entropy + log_prior, expected",
        "Bound(expected_log_joint + entropy, expected",
        "tests/test_bound.py::test_the_bound_of_a_program_includes_its_prior_and_the_gap_vanishes_at_the_posterior",
        ("E2", "iris"),
    ),
    Fault(
        "the gap adds the entropy",
        "probem/bound.py",
        "q.expectation(table) - q.entropy()",
        "q.expectation(table) + q.entropy()",
        "tests/test_bound.py::test_the_bound_of_a_program_includes_its_prior_and_the_gap_vanishes_at_the_posterior",
        ("A2", "iris"),
    ),
)

_M_STEP = (
    Fault(
        "a shared spread is averaged over components and not over rows",
        "probem/maximization.py",
        "weight = jnp.broadcast_to(rows_per_entry, moment.shape).reshape(-1)",
        "weight = jnp.broadcast_to(jnp.sign(rows_per_entry), moment.shape).reshape(-1)",
        "tests/test_links.py::test_routes[shared spherical]",
        ("B9", "old_faithful"),
    ),
    Fault(
        "a component without rows forgets its parameters",
        "probem/maximization.py",
        "value = jnp.where(weight.reshape(moment.shape) > 0, value, current).reshape(-1)",
        "value = value.reshape(-1)",
        "tests/test_links.py::test_an_empty_component_keeps_its_parameters",
        None,
        "claims start where every component has rows, or end as soon as one has none",
    ),
    Fault(
        "the mean of a component is divided by one row too many",
        "probem/maximization.py",
        "jnp.where(counts > 0, counts, 1.0)[:, :, None]",
        "jnp.where(counts > 0, counts + 1.0, 1.0)[:, :, None]",
        "tests/test_fit.py::test_hard_em_is_lloyd_step_by_step",
        ("B4", "iris"),
    ),
    Fault(
        "a worse candidate of the optimiser is taken",
        "probem/numeric.py",
        "better = jnp.isfinite(after) & ~(after > before)",
        "better = jnp.isfinite(after)",
        "tests/test_numeric.py::test_a_worse_candidate_is_never_taken",
        None,
        "the optimiser of the claims never comes back with a worse point",
    ),
    Fault(
        "the Newton decrement is four times too large",
        "probem/numeric.py",
        "return 0.5 * (inner**2).sum()",
        "return 2.0 * (inner**2).sum()",
        "tests/test_numeric.py::test_the_promise_is_what_there_is_to_gain_near_the_maximum",
        None,
        "where the claims stop nothing is promised, and four times nothing is nothing",
    ),
    Fault(
        "the Hessian with its sign turned",
        "probem/numeric.py",
        "    return loss, size, gradient, product",
        "    return loss, size, gradient, -product",
        "tests/test_numeric.py::test_a_saddle_is_named",
        None,
        "steps are made of its absolute values; only the name of a saddle depends on the sign",
    ),
    Fault(
        "the numeric route goes down where it should climb",
        "probem/numeric.py",
        "return (-expected(linear, statistics) - log_prior)",
        "return (expected(linear, statistics) - log_prior)",
        "tests/test_numeric.py::test_one_step_reaches_the_maximum_in_every_unit",
        ("H1", "iris"),
    ),
    Fault(
        "the numeric route forgets the prior",
        "probem/numeric.py",
        "return (-expected(linear, statistics) - log_prior)",
        "return (-expected(linear, statistics) - 0.0 * log_prior)",
        "tests/test_missing_bayesian.py::test_numeric_updates_weigh_by_what_is_there",
        None,
        "the priors of the claims are conjugate, and have closed updates",
    ),
)

_GRADIENT_ROUTE = (
    Fault(
        "a candidate whose bound is infinite is taken",
        "probem/ascent.py",
        "gains = jnp.where(jnp.isfinite(gains), gains, -jnp.inf)",
        "gains = jnp.where(jnp.isnan(gains), -jnp.inf, gains)",
        "tests/test_gradient_steps.py::test_a_candidate_whose_bound_is_not_finite_is_never_taken",
        None,
        "the densities of the claims are finite",
    ),
    Fault(
        "where the bound is not concave a quadratic function is believed",
        "probem/ascent.py",
        "jnp.where(ascent.concave, allowed, rounding)",
        "jnp.where(ascent.concave, allowed, allowed)",
        "tests/experiments/verification/test_random_programs.py::test_what_once_said_so_and_was_none",
        None,
        "no gate of the claims closes for a component",
    ),
    Fault(
        "nothing is learned across a corner",
        "probem/ascent.py",
        "fails = (ascent.failures > 0)",
        "fails = (ascent.failures > 99)",
        "tests/test_gradient_corners.py::test_a_regression_with_laplace_errors_ends_where_a_linear_program_does",
        None,
        "no density of the claims has a corner",
    ),
    Fault(
        "a density without a closed form may collapse",
        "probem/loop.py",
        "steep = summary.generic > summary.highest",
        "steep = summary.generic > jnp.inf",
        "tests/test_gradient_corners.py::test_a_density_without_a_closed_form_that_collapses_is_singular",
        None,
        "no scale of the claims collapses",
    ),
    Fault(
        "what has the unit of the data moves by three at most",
        "probem/coordinates.py",
        "_has_unit), jnp.inf, _FARTHEST)",
        "_has_unit), 3.0, _FARTHEST)",
        "tests/test_gradient_corners.py::test_real_coordinates_of_other_constraints_know_no_unit",
        None,
        "the claims keep to the units of their data",
    ),
    Fault(
        "the gradient that reverse mode lost stays lost",
        "probem/ascent.py",
        "counts = jnp.where(is_finite(counts), counts, curvature.gradient)",
        "counts = jnp.where(is_finite(counts), counts, jnp.nan)",
        "tests/test_gradient_route.py::test_shares_are_climbed_where_reverse_mode_loses_the_gradient",
        None,
        "no density of the claims is zero",
    ),
    Fault(
        "components without statistics are never one",
        "probem/certificate.py",
        "(unequal <= 2 * math.sqrt(_NEARLY))",
        "(unequal < 0)",
        "tests/test_certificate.py::test_components_without_statistics_are_one_where_they_share_every_row",
        None,
        "no claim starts at a saddle",
    ),
    Fault(
        "a corner in one value holds the others",
        "probem/numeric.py",
        "lower = loss < after - rounding * curvature.size",
        "lower = loss < -jnp.inf",
        "tests/test_contradictions.py::test_a_point_at_a_clipped_location_is_maximised_numerically",
        None,
        "the densities of the claims have no corners",
    ),
    Fault(
        "the gradient route takes the worst candidate",
        "probem/ascent.py",
        "gains = values - values[0]",
        "gains = values[0] - values",
        "tests/test_gradient_route.py::test_a_gate_that_closes_to_rounding_is_climbed_to_its_maximum",
        ("H2", "iris"),
    ),
    Fault(
        "the growth transform shrinks what should grow",
        "probem/coordinates.py",
        "jnp.log(jnp.maximum(ratio, _LEAST_RATIO))",
        "-jnp.log(jnp.maximum(ratio, _LEAST_RATIO))",
        "tests/test_gradient_route.py::test_the_growth_transform_ends_at_the_shares_of_the_counts",
        None,
        "no claim has a simplex on the gradient route",
    ),
)

_CERTIFICATE = (
    Fault(
        "only the last rise is promised and not all that would follow",
        "probem/stopping.py",
        "left = size * size / jnp.where(slows, earlier - size, 1.0)",
        "left = size",
        "tests/test_certificate.py::test_the_rises_of_a_geometric_series_add_up_to_what_is_promised",
        None,
        "the fits of the claims are told to go on to the last digits",
    ),
    Fault(
        "a small rise is taken for a maximum",
        "probem/stopping.py",
        "return (self.tolerance > 0) & settled & (progress.promised <= least)",
        "return (self.tolerance > 0) & settled",
        "tests/test_certificate.py::test_what_is_promised_is_what_the_fit_would_have_risen",
        None,
        "the fits of the claims are told to go on to the last digits",
    ),
    Fault(
        "a fall of the bound in an E half-step is passed over",
        "probem/loop.py",
        "fell = (objective < state.last - allowance) & judged",
        "fell = (objective < state.last - 1e300) & judged",
        "tests/test_loop.py::test_so_is_one_that_falls_in_an_e_half_step",
        None,
        "without another fault no bound falls",
    ),
    Fault(
        "components that are one are not found",
        "probem/certificate.py",
        "np.abs(apart.sum(-1)) <= most",
        "np.abs(apart.sum(-1)) < 0 * most",
        "tests/test_certificate.py::test_components_that_are_one_are_a_saddle",
        None,
        "no claim starts at a saddle",
    ),
    Fault(
        "a probability of zero is not on the edge",
        "probem/certificate.py",
        "return (value <= _EDGE) |",
        "return (value < 0) |",
        "tests/test_certificate.py::test_probabilities_of_zero_and_one_are_on_the_edge",
        None,
        "no claim asks what lies on an edge",
    ),
)

_FAMILIES = (
    Fault(
        "the normal density forgets its scale",
        "probem/exponential/normal.py",
        "return 0.5 * (deviation / scale) ** 2 + jnp.log(scale)",
        "return 0.5 * (deviation / scale) ** 2 + 0.0 * jnp.log(scale)",
        "tests/exponential/test_conformance.py::test_table_equals_numpyro[()-normal]",
        ("H1", "iris"),
    ),
    Fault(
        "the determinant of a multivariate normal with its sign turned",
        "probem/exponential/multivariate_normal.py",
        "return quadratic - log_det",
        "return quadratic + log_det",
        "tests/exponential/test_conformance.py::test_table_equals_numpyro[()-multivariate_normal_covariance_matrix]",
        ("A2", "iris"),
    ),
    Fault(
        "the rate of a gamma density raised to the wrong sign",
        "probem/exponential/gamma.py",
        "return gammaln(concentration) - concentration * jnp.log(rate)",
        "return gammaln(concentration) + concentration * jnp.log(rate)",
        "tests/exponential/test_priors.py::test_density_is_that_of_numpyro_and_scipy[0-gamma]",
        ("E2", "iris"),
    ),
    Fault(
        "log x! of the Poisson density is log (x - 1)!",
        "probem/exponential/poisson.py",
        "return -gammaln(as_floating(x) + 1.0)",
        "return -gammaln(as_floating(x) + 0.0)",
        "tests/exponential/test_conformance.py::test_table_equals_numpyro[()-poisson]",
        None,
        "no claim fits counts",
    ),
    Fault(
        "the normaliser of the Bernoulli density with its sign turned",
        "probem/exponential/bernoulli.py",
        "else -jnp.log1p(-clamp_probs(value))",
        "else jnp.log1p(-clamp_probs(value))",
        "tests/exponential/test_conformance.py::test_table_equals_numpyro[()-bernoulli_probs]",
        None,
        "no claim fits bits",
    ),
    Fault(
        "a probability of zero is taken for one",
        "probem/exponential/categorical.py",
        "return jnp.where(probs > 0, jnp.log(jnp.where(probs > 0, probs, 1.0)), -jnp.inf)",
        "return jnp.where(probs > 0, jnp.log(jnp.where(probs > 0, probs, 1.0)), 0.0)",
        "tests/exponential/test_particular.py::test_zero_probability_is_numpyros[categorical]",
        None,
        "no weight of the claims is zero",
    ),
    Fault(
        "the expected logarithm of a Dirichlet weight without its total",
        "probem/exponential/dirichlet.py",
        "digamma(concentration) - digamma(concentration.sum(-1, keepdims=True))",
        "digamma(concentration) - digamma(concentration.max(-1, keepdims=True))",
        "tests/exponential/test_priors.py::test_expected_statistics_are_the_gradient_of_the_normaliser[0-dirichlet]",
        None,
        "all components share it, and it leaves q and F as they are: concentrations after an update sum to the same",
    ),
    Fault(
        "the normaliser of a Wishart density with twice its degrees of freedom",
        "probem/exponential/wishart.py",
        "multigammaln(0.5 * dof, self.dim)",
        "multigammaln(dof, self.dim)",
        "tests/exponential/test_priors.py::test_density_is_that_of_numpyro_and_scipy[0-wishart]",
        ("E2", "iris"),
    ),
)

_MEAN_FIELD = (
    Fault(
        "the entropy of a location with its determinant inverted",
        "probem/mean_field.py",
        "constant + 0.5 * log_det(own",
        "constant - 0.5 * log_det(own",
        "tests/test_posterior_bounds.py::test_point_assignments_have_the_joint_evidence[known variance]",
        ("E9", "iris"),
    ),
    Fault(
        "a Newton step of half the length to the best location",
        "probem/mean_field.py",
        "loc = own.mean + jnp.matmul(",
        "loc = own.mean + 0.5 * jnp.matmul(",
        "tests/test_posteriors.py::test_an_update_is_the_maximum_of_the_bound[full covariance]",
        ("E3", "old_faithful"),
    ),
    Fault(
        "a precision forgets the entropy of the location that is tied to it",
        "probem/mean_field.py",
        "return self.energy(statistics, params, given) + sum(entropies, jnp.zeros(()))",
        "return self.energy(statistics, params, given)",
        "tests/test_posteriors.py::test_an_update_is_the_maximum_of_the_bound[diagonal]",
        ("E2", "iris"),
    ),
)

_MISSING = (
    Fault(
        "what is filled in is taken for certain",
        "probem/completion.py",
        "found = found + term.view.spread(completed.covariance)",
        "found = found + 0.0 * term.view.spread(completed.covariance)",
        "tests/test_missing.py::test_full_covariances_are_those_of_em_that_conditions_row_by_row",
        ("H3", "old_faithful"),
    ),
    Fault(
        "values that are missing cost log 2 pi",
        "probem/completion.py",
        "log_volume = 0.5 * (num_missing * math.log(2 * math.pi) + log_volume)",
        "log_volume = 0.5 * log_volume",
        "tests/test_missing.py::test_full_covariances_are_those_of_em_that_conditions_row_by_row",
        ("H3", "old_faithful"),
    ),
)

_AROUND = (
    Fault(
        "a stream forgets faster than its schedule",
        "probem/stepwise.py",
        "count ** (1.0 - float(decay))",
        "count ** (2.0 - float(decay))",
        "tests/test_stepwise.py::test_batches_of_one_size_follow_the_schedule_of_cappe_and_moulines",
        ("H6", "old_faithful"),
    ),
    Fault(
        "the worst restart is returned",
        "probem/failures.py",
        "np.lexsort((objective, ~failed))[..., -1]",
        "np.lexsort((-objective, ~failed))[..., -1]",
        "tests/test_posterior_fits.py::test_of_several_restarts_the_best_is_returned",
        ("H7", "old_faithful"),
    ),
    Fault(
        "a restart that failed wins by its bound",
        "probem/failures.py",
        "np.lexsort((objective, ~failed))",
        "np.lexsort((~failed, objective))",
        "tests/test_results.py::test_a_restart_that_collapsed_does_not_win_by_its_bound",
        None,
        "no restart of the claims fails",
    ),
    Fault(
        "an empty component is given the best-fitted row",
        "probem/relocation.py",
        "jax.lax.top_k(-both.log_density, count)",
        "jax.lax.top_k(both.log_density, count)",
        "tests/test_stopping.py::test_several_empty_clusters_at_once_get_the_farthest_rows[False-1]",
        None,
        "starts in which a cluster loses all its rows are left out of B6",
    ),
    Fault(
        "the worst of all orders of the seeds is taken",
        "probem/seed_order.py",
        "_is_higher(plan, value, best.value)",
        "_is_higher(plan, best.value, value)",
        "tests/test_starts.py::test_a_component_of_a_fixed_density_gets_the_seed_that_is_its_own",
        None,
        "the components of the claims are exchangeable, or start at parameters",
    ),
    Fault(
        "starts are not softened",
        "probem/softening.py",
        "SOFTENING = 0.1",
        "SOFTENING = 0.0",
        "tests/test_starts.py::test_an_estimate_of_zero_is_mixed_with_all_rows_and_nothing_else_is",
        None,
        "no claim starts a discrete density from labels",
    ),
    Fault(
        "values outside a support of zeros and ones are let in",
        "probem/support.py",
        "found = (value != 0) & (value != 1)",
        "found = (value < 0) & (value != 1)",
        "tests/test_support.py::test_one_value_outside[answers]",
        None,
        "claims are about what is fitted, and not about what is refused",
    ),
    Fault(
        "a prior without a bound is let in",
        "probem/unbounded.py",
        "(after > _SLOPE) &",
        "(after > 1 / _SLOPE) &",
        "tests/test_unbounded.py::test_no_mode[Dirichlet]",
        None,
        "claims are about what is fitted, and not about what is refused",
    ),
    Fault(
        "a stream that was saved begins anew",
        "probem/storage.py",
        'num_batches=meta.get("num_batches", 1),',
        "num_batches=1,",
        "tests/test_stepwise.py::test_a_saved_stream_goes_on",
        None,
        "no claim keeps a fit on disk",
    ),
    Fault(
        "log K! is log (K - 1)!",
        "probem/symmetry.py",
        "math.lgamma(site.size + 1)",
        "math.lgamma(site.size)",
        "tests/test_log_evidence.py::test_components_alike_have_all_relabellings",
        None,
        "E9 shows that log K! belongs to F, and has its own",
    ),
    Fault(
        "the penalty of BIC does not grow with the rows",
        "probem/criteria.py",
        "count * math.log(fit.total_weight)",
        "count * math.log(count)",
        "tests/test_selection.py::test_what_is_fixed_is_not_counted_and_what_is_known_is",
        None,
        "no claim chooses by BIC",
    ),
    Fault(
        "a residual that is not a number is passed over",
        "experiments/claims/claim.py",
        "np.maximum.reduce(",
        "np.fmax.reduce(",
        "tests/experiments/claims/test_residuals.py::test_the_worst_residual_is_the_largest_and_nan_before_all",
        None,
        "without another fault every residual is a number",
    ),
)

#: All of them, by room.
FAULTS = (
    *_E_STEP,
    *_STATISTICS,
    *_BOUND,
    *_M_STEP,
    *_GRADIENT_ROUTE,
    *_CERTIFICATE,
    *_FAMILIES,
    *_MEAN_FIELD,
    *_MISSING,
    *_AROUND,
)
