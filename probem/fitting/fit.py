"""``fit``, ``iterate`` and ``solve``: from a program and data to a fitted state."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from probem.analysis.options import FitOptions, check_options
from probem.analysis.problem import parse
from probem.data.checks import check_not_sparse
from probem.e_step.passes import Pass
from probem.fitting.certify import certified
from probem.fitting.options import beginning
from probem.fitting.reporting import check_verbose
from probem.fitting.run import Records, advance, begin, drive, fit_of, is_running, started
from probem.fitting.unresolved import is_unresolved
from probem.program.sites import Params
from probem.results import failures
from probem.results.fit import Fit
from probem.solver.beginning import Drawing, compiled_first_state
from probem.solver.initialisers import Initializer
from probem.solver.loop import blank_memory, compiled_run_to_end
from probem.solver.state import Acceleration
from probem.stopping import Stopping


class Solution(NamedTuple):
    """The pure result of ``solve``, a pytree of arrays.

    Attributes
    ----------
    params : values of the parameters by site name; of a site with a full posterior, the mean
    elbo : F at ``params``, nats, total over the rows
    result : the place of a ``Result`` in its enumeration, ``tuple(probem.Result)[result]``
    num_steps : the number of E half-steps
    promised : how much the objective is expected to rise if the iterations go on, nats, total over the rows
    """

    params: Params
    elbo: Array
    result: Array
    num_steps: Array
    promised: Array


def fit(
    program: Callable[..., Any],
    *data: Any,
    families: Any = None,
    init: Initializer | None = None,
    key: Array | int = 0,
    restarts: int = 1,
    max_steps: int = 1000,
    tolerance: int | float | Stopping = 1e-10,
    row_weights: Any = None,
    labels: Any = None,
    fixed: Mapping[str, Any] | None = None,
    added_variance: Any = 0.0,
    acceleration: Acceleration | None = None,
    record_gap: bool = False,
    throw: bool = True,
    verbose: int | None = None,
) -> Fit:
    """Fit a mixture written as a NumPyro program by coordinate ascent on the bound F.

    Each iteration maximises F = E_q[log p(X, T, theta)] + H(q(T)) + H(q(theta)) over q(T) in its family (the E
    half-step), then over theta (the M half-step): over points, whose entropy is left out, or over full posteriors. F
    never falls; under ``Tempered``, what never falls is F with H(q(T)) divided by beta. Without points under a prior,
    F <= log p(X). Source: Neal & Hinton (1998), A view of the EM algorithm that justifies incremental, sparse, and
    other variants, eq. 7.

    Threads may fit side by side. NumPyro's handlers are shared by all of them: do not run models of your own under
    handlers in one thread while another fits.

    Parameters
    ----------
    program : a NumPyro program of its data, everything else bound beforehand (``functools.partial``)
    data : arrays (or pytrees of arrays) with the same number N of rows; NaN is a missing value. Or one sparse matrix of
        SciPy, if statistics are sums over its non-zeros (Poisson, Bernoulli and independent normal entries)
    families : a corner, which is ``probem.EM`` (default), ``HARD_EM``, ``VARIATIONAL_BAYES`` or
        ``MAXIMIZATION_EXPECTATION``; a corner with other families on some sites (``corner | {"loc": probem.Delta()}``);
        or a mapping from site to family
    init : a ``Seeding`` (by default ``KMeansPlusPlus()``), ``Parameters``, ``Labels``, ``Responsibilities``, or a
        callable ``(key, rows [N, F])`` that returns parameters, labels or responsibilities
    key : a JAX key or a seed; the same key gives the same fit
    restarts : the number of starts, run side by side; the fit with the highest F is returned
    max_steps : the largest number of iterations
    tolerance : nats per row. A fit has converged when F rises by at most so much in an iteration, and is expected to
        rise by no more in all that would follow; at 0 it never has. Point-mass assignments converge exactly, when no
        row moves. Or a rule of ``probem.stopping``; where assignments are drawn (``probem.Sampled``), ``Averages()`` is
        the default
    row_weights : ``[N]``, how often each row counts: 2 is the row twice, 0 is no row
    labels : ``[N]``, the assignment of each row where it is known, -1 where it is not: t_n is then observed, q(t_n) a
        point mass, and F a bound on log p(X, known T). The mean of the rows known to be of a component is its seed
    fixed : values of parameters by site name that stay where they are; NaN marks the entries that are free. What is
        left of a simplex is shared by its free entries
    added_variance : the M half-step sees the rows with noise of this variance (a number, or a covariance matrix
        ``[F, F]``) added, in squared units of the data, which keeps every spread of a location family above it
        (``reg_covar`` of scikit-learn). It does not maximise F then: F may fall by a little, and a fall is no failure
    acceleration : ``probem.SQUAREM()`` or ``probem.Anderson()``, which moves the parameters on between two iterations
        (``help(probem.SQUAREM)``); None moves nothing. A move that lowers F is taken back, so that F still never falls
        but in the iterations that ``history.accelerated`` marks as given up. For slow fits: another local maximum may
        be reached. Not with point-mass assignments, families that draw, ``added_variance``, and parameters that are
        climbed to along a gradient
    record_gap : also record sum_n KL(q_n || posterior), nats, in every E half-step (an exponential more for each entry
        of the table)
    throw : raise ``FitError`` for every result but CONVERGED and INTERRUPTED; False returns the fit with its ``result``
    verbose : 1 prints a line with the number, F and its rise in iterations 1, 2, 5, 10, 20, 50, ... and the last, 2 in
        each (of several restarts the highest F, nats, total over the rows), 0 nothing; None shows a bar on a terminal
        once a fit takes long

    Returns
    -------
    Fit : the parameters, F at exactly these (nats, total over the rows), its history, and answers about rows

    Raises
    ------
    InputError
        Before anything runs, for a program or data that cannot be used.
    FitError
        For a fit that ended badly; its ``fit`` holds the last good state.

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
    >>> fit.result.name, fit.responsibilities(x).shape
    ('CONVERGED', (12, 2))
    >>> sorted(np.round(fit.params["loc"].ravel(), 1).tolist())
    [2.5, 102.5]
    """
    options = FitOptions(
        families, init, key, max_steps, tolerance, row_weights, labels, fixed, added_variance, restarts, record_gap
    )._replace(acceleration=acceleration)
    chosen = fitted(program, data, options, verbose)
    if throw:
        failures.throw(chosen)
    return chosen


def fitted(program: Callable[..., Any], data: tuple[Any, ...], options: FitOptions, verbose: int | None) -> Fit:
    """The ``Fit`` that is asked for, however it ended.

    Raises
    ------
    InputError
        Before anything runs, for a program, data or options that cannot be used.
    """
    check_verbose(verbose)
    run, state, options = started(program, data, options)
    chosen = failures.judged(drive(run, state, verbose))
    if is_unresolved(chosen, data):
        options = options._replace(predictors=False)
        chosen = failures.judged(drive(*begin(program, data, options), verbose))
    if failures.needs_no_prior(chosen):
        options = options._replace(modes=False)
        chosen = drive(*begin(program, data, options), verbose)
    return certified(chosen, data, options)


def iterate(
    program: Callable[..., Any],
    *data: Any,
    families: Any = None,
    init: Initializer | None = None,
    key: Array | int = 0,
    max_steps: int = 1000,
    tolerance: int | float | Stopping = 1e-10,
    row_weights: Any = None,
    labels: Any = None,
    fixed: Mapping[str, Any] | None = None,
    added_variance: Any = 0.0,
    acceleration: Acceleration | None = None,
    record_gap: bool = False,
    throw: bool = True,
) -> Iterator[Fit]:
    """Fit iteration by iteration: yields a ``Fit`` after every E half-step of what ``fit`` does.

    Where points under a prior turn out not to be conjugate in the end, it begins again, as ``fit`` does, with their
    numerical maximisation.

    Parameters
    ----------
    program, data, families, init, key, max_steps, tolerance, row_weights, labels, fixed, added_variance, acceleration,
        record_gap : as in ``fit``
    throw : raise ``FitError`` after the last iteration unless the fit converged

    Yields
    ------
    Fit : the parameters before the M half-step of the iteration, and F at exactly these (nats, total over the rows);
        those of the first iteration are the initial ones. Where an acceleration gives up a move, they are once more
        those of the iteration before

    Raises
    ------
    InputError
        Before the first iteration, for a program or data that cannot be used.
    FitError
        After the last iteration, for a fit that ended badly.

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
    >>> bounds = [step.elbo for step in probem.iterate(program, x)]
    >>> len(bounds) > 1, bool(np.isclose(bounds[-1], probem.fit(program, x).elbo, rtol=1e-4))
    (True, True)
    """
    options = FitOptions(
        families, init, key, max_steps, tolerance, row_weights, labels, fixed, added_variance, record_gap=record_gap
    )._replace(acceleration=acceleration)
    made = None
    for modes in (True, False):
        options = options._replace(modes=modes)
        run, state, options = started(program, data, options)
        records: list[Records] = []
        memory = blank_memory(run.data_pass, state, run.limits)
        made = fit_of(run, state, records, interrupted=False)
        while is_running(state):
            state, memory, record = advance(run, state, memory, 1)
            records.append(record)
            made = certified(failures.judged(fit_of(run, state, records, interrupted=False)), data, options)
            if not failures.needs_no_prior(made):
                yield made
        if not failures.needs_no_prior(made):
            break
    assert made is not None
    if throw:
        failures.throw(made)


def solve(
    program: Callable[..., Any],
    *data: Any,
    families: Any = None,
    init: Initializer | None = None,
    key: Array | int = 0,
    max_steps: Array | int = 1000,
    tolerance: Array | int | float | Stopping = 1e-10,
    row_weights: Any = None,
    labels: Any = None,
    fixed: Mapping[str, Any] | None = None,
    added_variance: Any = 0.0,
    acceleration: Acceleration | None = None,
) -> Solution:
    """The pure part of ``fit``: a function of arrays that can be jitted, vmapped and nested, initialisation included.

    Mapped over keys it runs restarts; mapped over ``x`` it fits many data sets in one call. Failure is data: where
    ``fit`` would begin again numerically, with points that turned out not to be conjugate, ``result`` is that of
    NOT_CONJUGATE. What ``fit`` proves once it has ended (NOT_STATIONARY, SADDLE) is not examined here.

    Parameters
    ----------
    program, data, families, init, key, max_steps, tolerance, row_weights, labels, fixed, added_variance, acceleration :
        as in ``fit``; ``key``, ``max_steps``, ``tolerance``, ``row_weights``, ``labels`` and ``added_variance`` may be
        traced, as may the data

    Returns
    -------
    Solution : ``params`` by site name, ``elbo`` (nats, total over the rows), ``result`` (the place of a ``Result`` in
        its enumeration), ``num_steps`` and ``promised`` (nats, total over the rows)

    Raises
    ------
    InputError
        While it is traced, for a program or data that cannot be used.

    Examples
    --------
    >>> import jax
    >>> from functools import partial
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import gmm
    >>> numpyro.enable_x64()
    >>> program = partial(gmm, num_components=2)
    >>> x = np.r_[0.0:6, 100:106][:, None]
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> solutions = jax.vmap(lambda key: probem.solve(program, x, key=key))(keys)
    >>> solutions.params["loc"].shape
    (3, 2, 1)
    >>> [tuple(probem.Result)[code].name for code in solutions.result]
    ['CONVERGED', 'CONVERGED', 'CONVERGED']
    """
    check_not_sparse(data)
    options = FitOptions(families, init, key, max_steps, tolerance, row_weights, labels, fixed, added_variance)
    options = options._replace(acceleration=acceleration)
    check_options(options, traced=True)
    problem = parse(program, data, options)
    plan = problem.plan
    observed = problem.rows._replace(data=jax.tree.map(jnp.asarray, problem.rows.data))
    seeding, start, limits, variance = beginning(problem, options)
    (block,) = Pass.traced(plan, observed).blocks
    totals, block, state = compiled_first_state(plan, Drawing(seeding), start, block, variance)
    state = compiled_run_to_end(plan, state, totals, (block,), limits)
    code = failures.judged_code(plan, state, totals)
    return Solution(plan.mean_field.points(state.best), state.bound.elbo, code, state.step, state.promised)
