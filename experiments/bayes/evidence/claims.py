"""E1 to E4 and E9: full posteriors of the parameters, and the evidence that their bound is below."""

from probem.experiments.claims.claim import Claim

from .figures import evidence_figure, limit_figure, modes_figure, one_component_figure, stepwise_figure
from .kinds import one_component
from .limit import meets
from .modes import one_of_many_modes
from .steps import stepwise
from .values import bounded

CLAIMS = (
    Claim(
        id="E1",
        together="E1",
        title="The bound climbs, and stays below the evidence",
        statement=(
            "With seven rows one can try every way of putting them into clusters, and add up what each is worth with "
            "all parameters integrated out: that is the evidence, log p(X), to the last digit. F of variational Bayes"
            " and of Bayesian k-means climbs towards it and never passes it; where Bayesian k-means stops, F is "
            "exactly what its labels are worth. A point in place of a posterior has a density, not a probability: its"
            " entropy is minus infinity and is left out. So in the two corners of point parameters F is bounded by "
            "log p(X, θ) at its own θ, not by log p(X): measure in smaller units and it grows past the evidence, as "
            "the numbers show, though nothing has been learned."
        ),
        formula=(
            r"F(q) \le \log p(X) = \log \sum_{T} p(T) \, p(X \mid T), "
            r"\qquad F(q, \theta) \le \log p(X, \theta)"
        ),
        source="Beal 2003; Kurihara & Welling 2009",
        check=bounded,
        datasets=("old_faithful", "overlapping"),
        figure=evidence_figure,
        figure_dataset="overlapping",
        figure_caption=(
            r"Left, the evidence of seven rows by enumeration, and the highest F of plain loops of the four corners: "
            r"with one component the full posteriors reach it. Right, $F - \log p(X)$ when the same rows are measured "
            r"in smaller and smaller units: that of full posteriors does not notice, that of points has no upper bound."
        ),
    ),
    Claim(
        id="E2",
        together="E2",
        title="With one component the bound is the evidence",
        statement=(
            "If there is but one cluster, nothing is uncertain except its parameters, and their posterior is known "
            "exactly. Then F has to be the log evidence, with every constant in place, whatever the observations are: "
            "Gaussian with any of four covariances, counts, zeros and ones, levels, durations. The columns of a data "
            "set serve as all of them. scikit-learn’s lower_bound_ leaves constants out: it is good for seeing a fit "
            "converge, and no good for comparing models."
        ),
        formula=r"K = 1: \quad F(q) = \log p(X) = \log \int p(X \mid \theta) \, p(\theta) \, d\theta",
        source="Bishop 2006",
        check=one_component,
        datasets=("iris", "old_faithful"),
        short_datasets=("old_faithful",),
        figure=one_component_figure,
        figure_dataset="old_faithful",
        figure_caption=(
            r"Nine kinds of observations, each in one component. Left, F of the engine (dots) and the log evidence in "
            r"closed form (rings); squares are scikit-learn’s lower_bound_ of the Gaussian with a full covariance. "
            r"Right, by how many nats they differ."
        ),
    ),
    Claim(
        id="E3",
        together="E1",
        title="Step by step, it is the variational Bayes of the textbooks",
        statement=(
            "From the same responsibilities, the posteriors that probem derives from a program are those of the "
            "textbook’s update equations after every iteration, and so is F: for full, tied, diagonal and spherical "
            "covariances, and for stick-breaking weights. scikit-learn’s BayesianGaussianMixture takes the same steps "
            "with full covariances and Dirichlet weights. Elsewhere it approximates: its last stick stays open, so "
            "that the weights need not add up to one; a tied covariance counts N / K rows where it has seen N; a "
            "diagonal or spherical one borrows the expected log determinant of a Wishart matrix. On few rows the "
            "difference is plain to see."
        ),
        formula=(
            r"q(t_i = k) \propto \exp \mathbb{E}_q\left[\log w_k + \log p(x_i \mid \theta_k)\right], "
            r"\qquad q(\theta) \propto p(\theta) \exp \mathbb{E}_q\left[\log p(X, T \mid \theta)\right]"
        ),
        source="Bishop 2006; Blei & Jordan 2006",
        check=stepwise,
        datasets=("old_faithful", "overlapping"),
        figure=stepwise_figure,
        figure_dataset="old_faithful",
        figure_caption=(
            r"Left, F of every iteration: the engine (filled) and a plain loop of the textbook’s updates (rings). "
            r"Right, how far their posteriors are apart, and (black crosses) the engine’s and scikit-learn’s with full "
            r"covariances, all far below the tolerance. Above it, at the left, what scikit-learn’s responsibilities of "
            r"seven rows are off by after one step with the four other structures."
        ),
    ),
    Claim(
        id="E4",
        together="E1",
        title="With many rows and flat priors, variational Bayes becomes EM",
        statement=(
            "A flat prior is worth about one row, and one row among N moves an estimate by about 1/N. So the means of "
            "the posteriors close in on EM’s estimates: four times the rows, a quarter of the distance. The rows are "
            "drawn from the mixture that EM finds in the data set, and then repeated: that leaves the estimate of EM, "
            "which is scikit-learn’s, where it is, so that nothing but the prior is left to be seen."
        ),
        formula=r"\left\| \mathbb{E}_q[\theta] - \hat\theta_{\mathrm{EM}} \right\| = O(1/N)",
        source="Attias 2000; Beal 2003",
        check=meets,
        datasets=("old_faithful",),
        figure=limit_figure,
        figure_dataset="old_faithful",
        figure_caption=(
            r"How far the posterior means of variational Bayes are from the estimates of EM, in four samples of a "
            r"hundred rows, each repeated 4, 16 and 64 times; the grey line falls like 1/N."
        ),
    ),
    Claim(
        id="E9",
        together="E5",
        title="F describes one of K! equal modes, and log K! completes it",
        statement=(
            "Number the clusters otherwise, and nothing has changed: the posterior of K clusters has K! modes, one for "
            "every numbering. A mean field sits in one of them. Where clusters are so far apart that no row may be of "
            "two, F is below the evidence by log K!, to the last digits. So F of different K may be compared, but not "
            "as it stands: it charges every cluster more for its names. With log K! added (the criterion log_evidence "
            "of probem.select) it is nearer to the exact evidence of 40 sets of seven rows, and finds the evidence’s K "
            "at least as often; the numbers below say how often. Where clusters overlap or are empty, modes run into "
            "each other and log K! is too much, and what a mean field leaves out is not in it: it is an estimate, and "
            "no bound."
        ),
        formula=r"\log p(X) - F \;\longrightarrow\; \log K! \quad \text{as clusters move apart}",
        source="Bishop 2006, section 10.2.4",
        check=None,
        by_itself=one_of_many_modes,
        figure=modes_figure,
        figure_caption=(
            r"Left, by how much F is below the exact evidence: dots are 40 sets of seven rows, squares clusters "
            r"far apart, bars $\log K!$. Right, in how many of the sets each criterion is highest at K; the legend "
            r"says in how many it is highest where the evidence is."
        ),
    ),
)
