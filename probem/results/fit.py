"""What a fit returns: parameters, the bound that belongs to them, its history, and answers about rows."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped
from numpyro.distributions import Distribution

from probem.analysis.problem import observe
from probem.analysis.routes import make_plan
from probem.data.checks import check_data
from probem.data.compressed import CompressedRows, is_sparse
from probem.data.observations import Observations
from probem.e_step.bound import Bound
from probem.e_step.passes import about_rows
from probem.errors import InputError
from probem.families.assignments import AssignmentFamily
from probem.families.choice import choose_families
from probem.families.parameters import ParameterFamily
from probem.form.statistics import DataTotals, about_zero
from probem.jit.precision import in_jax
from probem.jit.tracing import kept
from probem.mean_field import distributions as posterior
from probem.program.as_fitted import as_fitted
from probem.program.reading import read
from probem.program.support import check_support
from probem.results import answers, closed_form, interop, plot, storage, terms
from probem.results.datatree import Wanted, to_datatree
from probem.results.history import History
from probem.results.imputation import impute
from probem.results.quadrature_error import QuadratureError, quadrature_error
from probem.results.record import FitRecord
from probem.results.standard_errors import check_points, standard_errors
from probem.results.summary import Summary, summarised


@dataclasses.dataclass(frozen=True, eq=False)
class Fit(FitRecord):
    """A fitted program: parameters, the bound that belongs to them, its history, and answers about rows.

    N rows were fitted, with K components and S statistics.

    Attributes
    ----------
    params : constrained values by site name; of a site with a full posterior, the mean (of a variance or covariance,
        the inverse of the mean precision; of a Gaussian q, the image of the mean in unconstrained space: the median
        of a number)
    variational : the arguments of q of the sites with a full posterior, and the values of the others, by site name
    bound : F at exactly these and its terms, nats, totals over the rows
    result : how the fit ended, a ``Result``; None while it runs, and of a stream
    num_steps : the number of E half-steps
    history : F after every half-step, a ``History``
    restart_elbos : the final F of every restart, of which this is the best, nats, totals over the rows
    counts : the expected number of rows of each component
    sums : the sums of their statistics
    total_weight : the number of rows, or the sum of their weights
    component : the component that a bad result is about, or -1
    family : the family of the assignments
    num_batches : the number of batches seen; see ``probem.absorb``
    batch_elbo : F of the last batch at the parameters before it, nats per row; NaN after the first
    settled : whether a rule of ``probem.stopping`` was met by the iteration that made ``params``
    promised : how much the objective is expected to rise if the fit goes on from ``params``, nats, total over the rows;
        infinite while its rises still grow
    at_boundary : for every site with entries on an edge of its constraint (a weight of 0), a mask of these, where a
        slope of zero says nothing
    twins : pairs of components that have become equal, or nearly so at a SADDLE
    moves : the moves that ``probem.refine`` tried, a sequence of ``Move`` that prints as a table
    """

    @classmethod
    def at(
        cls,
        program: Callable[..., Any],
        data: tuple[Any, ...],
        families: Any,
        variational: Mapping[str, Any],
        shifts: Mapping[str, Any],
    ) -> "Fit":
        """A fit of a program at given arguments of q and points, without data: it answers about rows, and has no bound.

        Parameters
        ----------
        program : a NumPyro program of its data
        data : rows of the kind it is to answer about
        families : as in ``probem.fit``
        variational : the arguments of q of the sites with a full posterior, and the values of the others, by site name
        shifts : an origin ``[copies, *event]`` for every observed site, near the rows

        Returns
        -------
        Fit : its ``result`` is None and its ``elbo`` NaN

        Raises
        ------
        InputError
            For a program or families that cannot be used.
        """
        reading = read(program, data)
        plan = make_plan(reading, choose_families(reading, families))
        # In NumPy: each operation of JAX takes some tenths of what an answer about few rows does.
        values = jax.tree.map(lambda value: np.asarray(value, plan.dtype), dict(variational))
        unknown, count = float("nan"), plan.num_components
        shapes = {term.site: (term.copies, *term.event_shape) for term in plan.form.data_terms}
        origins: Any = {name: np.asarray(shifts[name], plan.dtype).reshape(shape) for name, shape in shapes.items()}
        zeros: Callable[..., Any] = np.zeros
        totals = DataTotals(
            origins, zeros(plan.form.num_columns, plan.dtype), zeros(len(shapes), plan.dtype), zeros((), plan.dtype)
        )
        return cls.of(
            plan,
            totals,
            program,
            values,
            bound=Bound(*[unknown] * len(Bound._fields)),
            result=None,
            num_steps=0,
            history=History.of([], float(plan.family.entropy_weight)),
            restart_elbos=np.zeros(0),
            counts=np.zeros(count),
            sums=np.zeros((count, plan.form.num_columns)),
            component=-1,
        )

    @property
    def elbo_terms(self) -> dict[str, float]:
        """The terms of F by name, nats, totals over the rows; their sum is F.

        ``E log p(x)`` of a site given its parents, ``log p(z)`` of a point, ``H(z)`` of a q that is not a point mass.
        """
        plan, totals = self._ready()
        return terms.elbo_terms(self, plan, totals)

    def quadrature_error(self, num_randomisations: int = 16) -> QuadratureError:
        """How far F is off because a Gaussian q is averaged over nodes, nats.

        Parameters
        ----------
        num_randomisations : how often quasi-random nodes are drawn anew, at least 2

        Returns
        -------
        QuadratureError : ``grid``, by how much F changes with twice as many Gauss-Hermite nodes; ``standard_error`` of
            F over quasi-random nodes that are drawn anew; and ``optimism``, F less its mean over them

        Raises
        ------
        InputError
            For fewer than two randomisations, and a fit without a Gaussian q.
        """
        return quadrature_error(self, *self._ready(), num_randomisations)

    @property
    def filled_entropy(self) -> float:
        """The entropy of q of the missing values, nats, total over the rows: it is in the terms of their sites.

        NaN beside a site that is known by its ``log_prob`` alone: the fit holds the sum of both.
        """
        plan, totals = self._ready()
        if not plan.form.completing:
            return 0.0
        if plan.form.generic:
            return math.nan
        return float(self.bound.expected_log_joint) - sum(terms.expected(self, plan, totals).values())

    @property
    def families(self) -> dict[str, AssignmentFamily | ParameterFamily]:
        """The family of every assignment, and of every site outside the data plate with a prior, by name."""
        plan, _ = self._ready()
        families: dict[str, AssignmentFamily | ParameterFamily] = {
            site.name: self.family for site in plan.program.assignments
        }
        return families | {site.name: plan.families.of(site.name) for site in plan.program.globals if site.has_prior}

    @property
    def posterior(self) -> dict[str, Distribution]:
        """q of every site with a full posterior, by name, as a NumPyro distribution whose event is the site.

        These are marginals, of every entry or vector of a location separately: a location whose precision is uncertain
        in the same q is a Student t, a Gaussian q the ``TransformedDistribution`` of a normal. ``guide`` has the joint
        q.
        """
        plan, _ = self._ready()
        return posterior.marginals(plan.mean_field, self.variational)

    def responsibilities(self, *data: Any) -> Float[np.ndarray | Array, "N K"]:
        """q(t_n = k) in the family of the fit, for any rows.

        Parameters
        ----------
        data : the data arguments, arrays with the same number N of rows, which need not be those fitted

        Returns
        -------
        np.ndarray : ``[N, K]``, rows summing to 1; several assignment sites are indexed jointly, in row-major order

        Raises
        ------
        InputError
            For rows of another kind than those fitted, or outside the support of their distribution.
        """
        return self._rows(answers.responsibilities.whole, self.variational, data)

    def predict(self, *data: Any) -> Int[np.ndarray | Array, " N"]:
        """The most probable assignment of every row under q, argmax_k q(t_n = k), ties to the lowest index.

        Parameters
        ----------
        data : the data arguments, arrays with the same number N of rows, which need not be those fitted

        Returns
        -------
        np.ndarray : ``[N]``, components from 0 to K - 1

        Raises
        ------
        InputError
            For rows of another kind than those fitted, or outside the support of their distribution.

        Examples
        --------
        >>> from functools import partial
        >>> import numpy as np
        >>> import numpyro
        >>> import probem
        >>> from probem.models import gmm
        >>> numpyro.enable_x64()
        >>> program = partial(gmm, num_components=2)
        >>> x = np.r_[0.0:6, 100:106][:, None]
        >>> fit = probem.fit(program, x, init=probem.Labels(np.repeat([0, 1], 6)))
        >>> fit.predict(x).tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
        """
        return self._rows(answers.predictions.whole, self.variational, data)

    def log_density(self, *data: Any, plug_in: bool = False) -> Float[np.ndarray | Array, " N"]:
        """log p(x_n), assignments summed out.

        Where the fit has full posteriors, this is the posterior predictive log E_q[p(x_n | theta)], such as a mixture
        of Student t; over a Gaussian q it is averaged at nodes, of which each costs a pass over the rows. Source:
        Bishop (2006), Pattern Recognition and Machine Learning, eq. 10.81.

        Parameters
        ----------
        data : the data arguments, arrays with the same number N of rows, which need not be those fitted
        plug_in : log p(x_n | ``params``) in place of the posterior predictive

        Returns
        -------
        np.ndarray : ``[N]``, nats per row; minus infinity for a row with a value outside the support of its
            distribution. Such a row has no posterior, and every other answer about it is an error

        Raises
        ------
        InputError
            For rows of another kind than those fitted, and if the posterior predictive has no closed form.

        Examples
        --------
        >>> from functools import partial
        >>> import numpy as np
        >>> import numpyro
        >>> import probem
        >>> from probem.models import gmm
        >>> numpyro.enable_x64()
        >>> program = partial(gmm, num_components=2)
        >>> x = np.r_[0.0:6, 100:106][:, None]
        >>> fit = probem.fit(program, x)
        >>> fit.log_density(x).shape
        (12,)
        >>> bool(np.isclose(fit.log_density(x).sum(), fit.elbo, rtol=1e-4))
        True
        """
        answer, params = self._density(plug_in)
        sparse = any(isinstance(leaf, CompressedRows) or is_sparse(leaf) for leaf in jax.tree.leaves(data))
        if sparse and answer is answers.log_predictive:
            raise InputError(
                "sparse rows for the posterior predictive density, which is no sum over non-zeros",
                "an array, or plug_in=True",
                "pass plug_in=True, or some rows at a time as x[start:stop].toarray()",
            )
        return self._rows(answer.whole, params, data, where_outside=-math.inf)

    def impute(self, *data: Any) -> Any:
        """The data with E[x_m | x_o] in place of NaN: what is missing given the rest of its row.

        That is sum_k p(t_n = k | x_o) E[x_m | x_o, t_n = k] at ``params``; of full posteriors, at their expected
        natural parameters, as in the E half-step. Of a ``Bernoulli`` it is the probability of a one; a number that has
        no mean, a category of a ``Categorical``, is the most probable given the rest (ties: the lowest). Source:
        Ghahramani & Jordan (1994), Supervised learning from incomplete data via an EM approach.

        Parameters
        ----------
        data : the data arguments, arrays with the same number N of rows, NaN where a value is missing

        Returns
        -------
        Any : an array of the shape of the data for one data argument, a tuple of arrays for several; sparse rows, in
            which nothing is missing, as SciPy's CSR

        Raises
        ------
        InputError
            For rows of another kind than those fitted; and if an observed value is not an entry of the data as it
            stands, or its distribution has no finite mean.
        """
        plan, totals = self._ready()
        plan, rows, _ = observe(plan, data)
        if rows.are_sparse:
            return rows.data[0].matrix
        if rows.missing is None or not any(np.any(leaf) for leaf in jax.tree.leaves(rows.missing)):
            arrays = rows.data
        else:
            arrays = impute(plan, rows, jax.tree.map(jnp.asarray, self.variational), totals)
        return arrays[0] if len(arrays) == 1 else arrays

    def standard_errors(
        self, *data: Any, row_weights: Any = None, labels: Any = None
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """Standard errors of the parameters, by site name, at a maximum of the likelihood or of the posterior (MAP).

        They are the roots of the diagonal of J I_o^-1 J', where I_o = -d2 log p(X | theta) is the observed information
        in coordinates without constraints (for MAP, of log p(X | theta) + log p(theta)), and J the derivative of the
        parameters in them. Rows are taken as drawn from the program, and as many that the likelihood is nearly
        Gaussian about its maximum. Components keep their numbers: what is said is of this maximum, of the K! there are.
        Source: Louis (1982), Finding the observed information matrix when using the EM algorithm.

        Parameters
        ----------
        data : the data arguments as they were fitted, ``[N, ...]``; NaN is a missing value, which is integrated out
        row_weights : ``[N]``, as in ``probem.fit``: a row of weight 2 says as much as two rows
        labels : ``[N]``, as in ``probem.fit``

        Returns
        -------
        dict[str, np.ndarray] : in the shapes and units of the sites; 0 for entries that were held fixed

        Raises
        ------
        InputError
            For full posteriors, point-mass assignments and sparse rows; on an edge of a constraint; where the
            information is singular; and if log p(X | theta) has no maximum here, as where other rows are passed than
            those fitted.

        Examples
        --------
        >>> from functools import partial
        >>> import numpy as np
        >>> import numpyro
        >>> import probem
        >>> from probem.models import gmm
        >>> numpyro.enable_x64()
        >>> x = np.r_[0.0:6, 100:106][:, None]
        >>> fit = probem.fit(partial(gmm, num_components=2), x, tolerance=1e-12)
        >>> bool(np.allclose(fit.standard_errors(x)["loc"], np.std(np.arange(6)) / np.sqrt(6)))
        True
        """
        plan, totals = self._ready()
        check_points(plan, totals, self.at_boundary)
        plan, rows, _ = observe(plan, data, row_weights, labels)
        return standard_errors(plan, self.params, totals, rows)

    def summary(self, *data: Any, level: float = 0.95, row_weights: Any = None, labels: Any = None) -> Summary:
        """How the fit ended, F, and a line for every entry of its parameters; ``str`` of it is a table.

        Of a full posterior it has the standard deviation of q and an interval with equal tails: q is narrower than the
        posterior where its sites depend on each other. Of points alone it has standard errors, if the data is passed.

        Parameters
        ----------
        data : the data arguments as they were fitted, for ``standard_errors``; without them none are computed, and
            beside full posteriors there are none
        level : the probability of the intervals, between 0 and 1
        row_weights, labels : ``[N]``, as in ``standard_errors``

        Returns
        -------
        Summary : its ``entries`` are the lines; ``head`` has F in nats, total over the rows

        Raises
        ------
        InputError
            For a level that is no probability, and for data where ``standard_errors`` has none.

        Examples
        --------
        >>> from functools import partial
        >>> import numpy as np
        >>> import numpyro
        >>> import probem
        >>> from probem.models import gmm, spherical
        >>> numpyro.enable_x64()
        >>> x = np.r_[0.0:6, 100:106][:, None]
        >>> fit = probem.fit(partial(gmm, num_components=2, covariance=spherical), x, init=probem.Labels(x[:, 0] > 50))
        >>> print(fit.summary(x))
        CONVERGED after 2 steps; F = -31.767677 nats, total over rows of weight 12
        expected rows by component: 6.0, 6.0
        <BLANKLINE>
        site     index  estimate  std. error
        -------  -----  --------  ----------
        loc      0, 0        2.5     0.69722
        loc      1, 0      102.5     0.69722
        scale    0        1.7078     0.49301
        scale    1        1.7078     0.49301
        weights  0           0.5     0.14434
        weights  1           0.5     0.14434
        """
        posteriors, errors = (self.posterior if self.plan else {}), {}
        if data and posteriors:
            observe(self._ready()[0], data, row_weights, labels)
        elif data:
            errors = self.standard_errors(*data, row_weights=row_weights, labels=labels)
        return summarised(self, level, posteriors, errors)

    def gap(self, *data: Any) -> float:
        """sum_n KL(q_n || p(t_n | x_n, params)) of the rows given.

        Parameters
        ----------
        data : the data arguments, arrays with the same number N of rows, which need not be those fitted

        Returns
        -------
        float : nats, total over the rows given; zero for a q that is the posterior
        """
        return float(self._rows(answers.row_gap.whole, self.variational, data).sum())

    def sample(self, key: PRNGKeyArray | int, num_rows: int, *covariates: Any) -> dict[str, Array]:
        """Draw rows from the fitted program.

        Where the fit has full posteriors, the rows are from the posterior predictive: each with new parameters from q.

        Parameters
        ----------
        key : a JAX key or a seed
        num_rows : how many rows to draw
        covariates : the data arguments, ``num_rows`` rows each, for programs in which the density of a row depends on
            part of it (their observed part is ignored)

        Returns
        -------
        dict[str, Array] : every assignment and observed site by name, ``[num_rows, ...]``

        Raises
        ------
        InputError
            For a program that needs covariates, without them, for covariates with another number of rows, and for
            ``num_rows`` that is no whole number of at least 1.
        """
        plan, _ = self._ready()
        return interop.sample(plan, self.variational, key, num_rows, covariates)

    def to_datatree(
        self,
        *data: Any,
        num_draws: int = 1000,
        num_chains: int = 1,
        key: PRNGKeyArray | int = 0,
        posterior_predictive: bool = False,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Sequence[Any]] | None = None,
    ) -> Any:
        """The fit as ArviZ takes it, an ``xarray.DataTree`` (needs ``probem[arviz]``).

        Its groups: ``posterior`` with draws from q of every site outside the data plate (a point is the same in every
        draw); ``assignments`` with draws of t_n for every row, which summaries and figures of the posterior so leave
        out; ``log_likelihood`` with log p(x_n | draw), assignments summed out, nats per row; and ``observed_data``.
        All draws are independent, whatever the number of chains: an R-hat of them says nothing. Before ArviZ 1.0, which
        needs Python 3.12, pass it through ``arviz.InferenceData.from_datatree``.

        Parameters
        ----------
        data : the rows to assign and to evaluate
        num_draws : the number of draws of each chain
        num_chains : how many chains the draws count as; some of ArviZ's figures want at least two
        key : a JAX key or a seed
        posterior_predictive : True adds a group of this name: as many new rows as ``data`` has for each draw, with
            assignments of their own, and the covariates of ``data`` (all of them are in memory)
        dims : by site, names of its axes after chain, draw and row; by default its plates, or ``"<site>_dim_0"``, ...
        coords : by name of an axis, what stands along it; by default 0, 1, ...

        Returns
        -------
        xarray.DataTree : its variables have the axes chain and draw first, and row next where they have rows

        Raises
        ------
        InputError
            For rows of another kind than those fitted, or outside the support of their distribution; and for names
            that are not those of sites and axes.
        """
        plan, _ = self._ready()
        data = as_fitted(check_data(data), plan.program.spec)
        check_support(plan.program, data)
        wanted = Wanted(num_chains, num_draws, posterior_predictive, dims or {}, coords or {})
        return to_datatree(self, plan, data, self.responsibilities(*data), wanted, key)

    def plot(self, *data: Any, columns: Sequence[str] | None = None, axes: Any = None) -> np.ndarray:
        """Draw the rows by component beside the trace of F (needs matplotlib, ``probem[cli]``).

        One column is a histogram, two are a scatter plot, more are seen along their first two principal components.
        Gaussian components are drawn at their mean, with the ellipse of two standard deviations. A row with a missing
        value is a ring where it is expected.

        Parameters
        ----------
        data : the data arguments, arrays with the same number N of rows, which need not be those fitted; several
            arguments are drawn side by side
        columns : names of the columns
        axes : two Axes of matplotlib to draw into; by default those of a new figure of pyplot

        Returns
        -------
        np.ndarray : both Axes, ``[2]``: the rows, and F in nats, total, over the half-steps

        Raises
        ------
        InputError
            For rows of another kind than those fitted, sparse rows, and without matplotlib.
        """
        rows = plot.checked_rows(self, data)
        names = plot.column_names(self, columns, rows.shape[1])
        responsibilities = np.asarray(self.responsibilities(*data))
        return plot.draw(self, rows, self._filled(rows, data), responsibilities, names, axes)

    def _filled(self, rows: Float[np.ndarray, "N D"], data: tuple[Any, ...]) -> Float[np.ndarray, "N D"]:
        """The rows with what is expected in their gaps, or the mean of the column where the program cannot say."""
        missing = np.isnan(rows)
        if not missing.any():
            return rows
        try:
            imputed = self.impute(*data)
            return plot.checked_rows(self, imputed if isinstance(imputed, tuple) else (imputed,))
        except InputError:
            means = np.where(missing, 0.0, rows).sum(0) / np.maximum(1, (~missing).sum(0))
            return np.where(missing, means, rows)

    def guide(self, *, assignments: bool = True) -> Callable[..., None]:
        """q as a NumPyro guide of the same data, for ``Trace_ELBO``, ``TraceEnum_ELBO``, ``Predictive`` and SVI.

        The arguments of full posteriors are ``param`` sites ``"<site>_<argument>"`` that start at this fit.

        Parameters
        ----------
        assignments : False leaves them out: a guide of ``probem.marginalize(program)``

        Returns
        -------
        Callable : a NumPyro program of the data

        Raises
        ------
        InputError
            For an assignment site whose values are not 0, 1, ..., unless assignments are left out.
        """
        plan, _ = self._ready()
        return interop.guide(plan, self.variational, self.params, self.responsibilities if assignments else None)

    def __reduce__(self) -> tuple[Any, ...]:
        # A plan is found again from the program, which has to be a function that pickle can name; so have the families.
        parameters = self.plan.families.parameters if self.plan else ()
        arrays = storage.arrays_of(self, with_families=False)
        return unpickled, (arrays, self.program if self.plan else None, self.family, parameters)

    def save(self, path: str | Path) -> None:
        """Write the fit to one NPZ file, whole or not at all; ``probem.load`` reads it.

        Parameters
        ----------
        path : the file, in a folder that exists

        Raises
        ------
        InputError
            If its folder cannot be written to, the data is in containers that plain arrays cannot describe, or a family
            of your own has fields that JSON cannot.
        """
        storage.save(self, Path(path))

    def _density(self, plug_in: bool = False) -> tuple[answers.Answer, Mapping[str, Any]]:
        """The answer that is ``log_density``, and at which values."""
        plan, _ = self._ready()
        if plan.mean_field.is_bayesian and not plug_in and self._has_closed_form:
            return answers.log_predictive, self.variational
        return answers.log_density, self.params

    @kept
    def _has_closed_form(self) -> bool:
        """That there is a posterior predictive density, found out once."""
        plan, _ = self._ready()
        closed_form.check_closed_form(plan.mean_field)
        return True

    def about_checked(self, method: str) -> Callable[[Float[np.ndarray, "N D"]], Shaped[np.ndarray, "N ..."]]:
        """A function that says what ``responsibilities``, ``predict`` or ``log_density`` does about rows that need no
        check any more: those of a fit that knows of no gaps, in its precision, and inside the support of their
        distributions. What does not depend on the rows is computed now.
        """
        if method == "log_density":
            answer, values = self._density()
        else:
            answer = {"predict": answers.predictions, "responsibilities": answers.responsibilities}[method]
            values = self.variational
        plan, totals = self._ready()
        params = jax.tree.map(in_jax, dict(values))
        form = answer.form(plan, params, totals)
        return lambda rows: about_rows(plan, Observations((rows,)), answer.about, form, params, totals)

    def _rows(
        self,
        function: Callable[..., Any],
        params: Mapping[str, Any],
        data: tuple[Any, ...],
        where_outside: float | None = None,
        labels: Any = None,
    ) -> Any:
        """The answer about every row; ``where_outside`` is that about a row of density zero, None where there is none.

        Raises
        ------
        InputError
            For a row outside the support, unless there is an answer.
        """
        plan, totals = self._ready()
        plan, rows, outside = observe(plan, data, labels=labels, outside=where_outside is not None)
        totals = about_zero(totals) if plan.form.sparse_rows else totals
        answers = about_rows(plan, rows, function, jax.tree.map(in_jax, dict(params)), totals)
        return answers if outside is None else np.where(outside, np.asarray(where_outside, answers.dtype), answers)

    def __repr__(self) -> str:
        result = self.result.name if self.result else "RUNNING"
        return f"Fit({result}, elbo={self.elbo:.6g}, num_steps={self.num_steps}, sites={sorted(self.params)})"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def load(path: str | Path, program: Callable[..., Any] | None = None, family: AssignmentFamily | None = None) -> Fit:
    """Read a fit that ``Fit.save`` wrote.

    Parameters
    ----------
    path : the NPZ file
    program : the program it was fitted with (a program is code, and is not stored); without it the fit holds its
        numbers but does not answer about rows
    family : the family of its assignments, where probem has none of that name

    Returns
    -------
    Fit : the fit as it was saved

    Raises
    ------
    InputError
        If the file is missing, or not a saved fit, or was fitted with another program.

    Examples
    --------
    >>> import tempfile
    >>> from functools import partial
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import gmm
    >>> numpyro.enable_x64()
    >>> program = partial(gmm, num_components=2)
    >>> x = np.r_[0.0:6, 100:106][:, None]
    >>> fit = probem.fit(program, x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fit.save(f"{folder}/fit.npz")
    ...     again = probem.load(f"{folder}/fit.npz", program)
    >>> bool((again.predict(x) == fit.predict(x)).all()), again.elbo == fit.elbo
    (True, True)
    """
    return Fit(**vars(storage.read_record(path, program, family)))


def unpickled(
    arrays: dict[str, np.ndarray],
    program: Callable[..., Any] | None,
    family: AssignmentFamily,
    parameters: storage.ParameterFamilies | None = None,
) -> Fit:
    """A fit from what ``storage.arrays_of`` made of it."""
    return Fit(**vars(storage.unpickled(arrays, program, family, parameters)))
