"""Claims D1, D2 and E5 to E8: where the likelihood has no upper bound, and what priors do about that and about K."""

from probem.experiments.claims.claim import Claim

from . import figures
from .bounded_likelihood import bounded_by_priors, with_a_prior
from .degeneracy import without_limit
from .dp_limit import small_variance
from .nuts import beside_nuts
from .pruning import surplus_components

CLAIMS = (
    Claim(
        "D1",
        "With free covariances the likelihood has no upper bound",
        "The article says that a Gaussian mixture “does not have to converge”, and there is something in it. Put the "
        "centre of one cluster on a row and let its covariance shrink: that row becomes ever more probable, the "
        "others are taken care of by the other cluster, and with every decade of $\\sigma$ the log likelihood gains "
        "$D \\log 10$ nats, for ever. So there is no maximum to converge to, only sensible local ones. EM started "
        "near such a point raises $F$, as it must, until the covariance is singular to rounding. The fit then says "
        "so, names the component, and keeps the last parameters that are finite.",
        r"\mu_1 = x_i, \; \Sigma_1 = \sigma^2 I: \qquad \log p(X \mid \theta) = - D \log \sigma + O(1) "
        r"\; \longrightarrow \; \infty \quad (\sigma \to 0)",
        "the article’s side note, made precise; Kiefer & Wolfowitz 1956",
        without_limit,
        datasets=("old_faithful",),
        figure=figures.no_upper_bound,
        figure_dataset="old_faithful",
        figure_caption="One cluster sits on an eruption of Old Faithful, and its standard deviation shrinks from left "
        "to right. Left: the log likelihood rises without end, in the long run above any sensible fit. Right: the same "
        "parameters with the prior of E8 on the covariances. Far from growing, it falls.",
        together="D1",
    ),
    Claim(
        "D2",
        "Fix the covariances, or give them a prior that outweighs the collapse, and F is bounded",
        "k-means cannot collapse: with $\\Sigma = I$ no row is denser than on a centre, which bounds $F$ by a number "
        "that can be written down, and a centre on every row attains it. With a Wishart prior on the inverse "
        "covariances (an inverse Wishart on the covariances, an inverse gamma on variances) there is such a number as "
        "well, since a determinant that grows without limit costs more under the prior than it gains from the rows. "
        "That a prior is proper is not enough: half-normal and half-Cauchy densities of a scale are finite at 0, and "
        "under them the likelihood grows by $D \\log 10$ nats for every decade of $\\sigma$, as without a prior. The "
        "supremum itself can be computed: for point masses by trying every partition that a line can make, otherwise "
        "by SciPy. From D1’s start $F$ reaches it and exceeds it in no half-step, under soft EM, under point masses, "
        "and under EM with the Wishart prior.",
        r"\Sigma = I,\ \text{point masses}: \quad F \le -N \left(\log K + \tfrac{D}{2} \log 2\pi\right), \qquad "
        r"\sup_{\Lambda} \left( \tfrac{a}{2} \log |\Lambda| - \tfrac{1}{2} \mathrm{tr}\, S \Lambda \right) "
        r"= \tfrac{a}{2} \left( D \log a - \log |S| - D \right)",
        "direct; Hathaway 1985; Ciuperca, Ridolfi & Idier 2003",
        bounded_by_priors,
        datasets=("old_faithful",),
        figure=figures.bounded,
        figure_dataset="old_faithful",
        figure_caption="Left, $F$ from D1’s start, less its supremum as SciPy or all partitions have it: it climbs to "
        "0 and into the grey band in no half-step. Right, from left to right a cluster shrinks on a row: under the two "
        "priors whose density is finite at $\\sigma = 0$ the likelihood grows without end, under the third "
        "it falls out of the picture.",
        together="D2",
    ),
    Claim(
        "E5",
        "Surplus components empty themselves",
        "Offer ten components to four clusters. Maximum likelihood makes use of all ten. With a Dirichlet prior of "
        "small concentration $\\alpha$ on the weights, or a stick-breaking one, and full posteriors in place of "
        "points, $F$ is highest where four are left. For a Dirichlet prior the change comes at "
        "$\\alpha = (D + 1)/2$, here 1.5, and not at 1: below it $F$ gains by emptying a component, above by sharing "
        "rows with it. Coordinate ascent need not get there: at $\\alpha = 1$, from a start with rows in all ten, it "
        "stops in a local optimum with more than four, so that each value is tried from several $q$, and the highest "
        "$F$ decides. Bayesian k-means (point masses for rows, full posteriors for centres and "
        "weights) chooses in another way: its $F$ is the log probability of rows and labels together with all "
        "parameters integrated out, which falls when a component is not worth having, and so is highest at four. The "
        "inertia of k-means cannot tell: it falls with every component more.",
        r"N_{\mathrm{eff}} = \exp\Big( -\sum_k \bar{\pi}_k \log \bar{\pi}_k \Big), \qquad "
        r"\max_{q(\theta)} F(\delta_T, q) = \log \int p(X, T, \theta) \, d\theta",
        "Attias 2000; Blei & Jordan 2006; Kurihara & Welling 2009; Watanabe & Watanabe 2006",
        surplus_components,
        datasets=("blobs",),
        figure=figures.pruning,
        figure_dataset="blobs",
        figure_caption="Left: ten components for four clusters. Filled, how many equal components the shares of the "
        "rows amount to, exp(entropy); hollow, components with more than one row; dashed, exp(entropy) for maximum "
        "likelihood, which has no concentration and rows in all ten. Middle: by how much F of Bayesian k-means falls "
        "short of the highest, which is at four. Right: the inertia of k-means, which falls with every component more.",
        together="E5",
    ),
    Claim(
        "E6",
        "At vanishing variance the Dirichlet process charges DP-means’ penalty",
        "Let the variance of a Dirichlet-process mixture go to zero, and let its concentration go with it, so that "
        "another cluster costs as much as a squared distance $\\lambda$. Three things are shown. For given centres "
        "the most probable of the clusters and a new one is what DP-means chooses: the nearest centre, or a new "
        "cluster where $\\lambda$ is nearer. From the pass on in which DP-means has opened its last cluster, Bayesian "
        "k-means with as many components gives every row DP-means’ label in every pass. And $-2\\sigma^2 F$ is, but "
        "for constants, DP-means’ objective, with an error in proportion to $\\sigma^2$. What is not shown, because "
        "it is not so: that the engine opens clusters. Its number of components is fixed and its rows move together, "
        "and in a mean field the expected logarithm of an unused weight is far below that of its expectation. At any "
        "positive variance the rules agree up to a margin of squared distances in proportion to $\\sigma^2$; rows "
        "within it are counted.",
        r"\alpha = \Big(1 + \frac{\rho^2}{\sigma^2}\Big)^{D/2} e^{-\lambda / 2 \sigma^2}: \qquad "
        r"-2 \sigma^2 \left( F + C_\sigma \right) \; \longrightarrow \; "
        r"\sum_n \lVert x_n - \mu_{t_n} \rVert^2 + \lambda (K - 1)",
        "Kulis & Jordan 2012, made precise",
        small_variance,
        datasets=("overlapping",),
        figure=figures.dp_means_and_bound,
        figure_dataset="overlapping",
        figure_caption="Left, rows by the engine’s label in the last pass, its centres (crosses) and those of DP-means "
        "(rings). Right, DP-means’ objective pass by pass (line), and $-2\\sigma^2 F$ without its constants (filled) "
        "beside the objective of the same labels (hollow), after the pass in which the last cluster was opened: "
        "what is between them is in proportion to $\\sigma^2$.",
        together="E6",
    ),
    Claim(
        "E7",
        "Variational Bayes beside NUTS: right when clusters are apart, too sure when they overlap",
        "The same program with its assignments summed out can be sampled by NUTS, which makes no assumption about "
        "the posterior. When clusters are far apart both find the same means and standard deviations of the centres. "
        "When they overlap, which row belongs where depends on where the centres are, and a mean field, in which rows "
        "and centres are independent, cannot say so: the means still agree, but its standard deviations are too "
        "small.",
        r"q(T)\, q(\theta) \ne p(T, \theta \mid X): \qquad \mathrm{sd}_{q}(\mu_k) < \mathrm{sd}(\mu_k \mid X)",
        "NumPyro; Hoffman & Gelman 2014; Wang & Titterington 2005",
        beside_nuts,
        datasets=("one_dimensional",),
        figure=figures.marginals,
        figure_dataset="one_dimensional",
        figure_caption="The posterior of the centres of two normal distributions on a line: histograms are 1000 draws "
        "of NUTS, curves q of variational Bayes. Above, clusters set apart; below, the same rows as they are, "
        "overlapping.",
        together="E7",
    ),
    Claim(
        "E8",
        "With a prior on the covariances EM converges from D1’s start",
        "Points for the parameters, but with a prior: MAP-EM climbs $F + \\log p(\\theta)$, and no half-step lowers "
        "it, as recorded and as computed again from SciPy’s densities. The M-step for a covariance is then an average "
        "of the rows’ scatter and the prior’s, and no direction of it can fall below what the prior alone contributes "
        "if all $N$ rows were in the cluster. From the very start at which D1 ends in a singular covariance it "
        "converges. Not every proper prior does this (D2). And a mode depends on what the density is of: these are "
        "modes over precisions, as the program has them. Fraley & Raftery’s are over covariances and divide by "
        "$N_k + \\nu + D + 2$: ours are larger, by 6 % for the smaller of the two components here.",
        r"\Sigma_k = \frac{S + \text{scatter of the rows and the location}}{N_k + \nu - D} \; \succeq \; "
        r"\frac{\lambda_{\min}(S)}{N + \nu - D}\, I",
        "Fraley & Raftery 2007; Dempster, Laird & Rubin 1977",
        with_a_prior,
        datasets=("old_faithful",),
        figure=figures.kept_from_collapse,
        figure_dataset="old_faithful",
        figure_caption="From D1’s start. Left, $F + \\log p(\\theta)$ of every half-step, as recorded (markers) and "
        "from SciPy’s densities (line). Right, the least standard deviation of a cluster in any direction: maximum "
        "likelihood ends in a singular covariance (cross), with the prior it stays above the dashed floor.",
        together="D2",
    ),
)
