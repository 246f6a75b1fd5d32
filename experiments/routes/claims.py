"""H1 to H7: the routes of the engine beyond closed forms, and what else a fit is asked for."""

from probem.experiments.claims.claim import Claim

from . import checks, figures

CLAIMS = (
    Claim(
        id="H1",
        title="Without a closed form, a numerical fit stops at a maximum",
        statement=(
            "One number m is the centre of two clusters, at −m and at m: no weighted mean finds it, and the M-step "
            "maximises numerically over statistics of the rows. Where the fit says that it has converged, SciPy goes "
            "on, with its own densities and its own optimiser, and finds nothing above. Measured in a thousandth or a "
            "thousand of the unit, F changes by N times the logarithm of the unit and by nothing else."
        ),
        formula=r"\max_{\theta}\; \log p(X \mid \theta) - \log p(X \mid \hat\theta) \le 10^{-6}",
        source="direct; Dempster, Laird & Rubin 1977",
        check=None,
        by_itself=checks.numeric_route,
        figure=figures.numeric_route,
        figure_caption=(
            "Left, the rows and the density that was fitted. Middle, each parameter moved from where the fit stops, "
            "the others fixed: SciPy’s $\\log p(X)$ falls on either side. Right, $F$ half-step by half-step in three "
            "units of measurement, less the logarithm of the unit: one curve, which ends at SciPy’s maximum."
        ),
        together="H",
    ),
    Claim(
        id="H2",
        title="Without sufficient statistics, a gradient fit stops at a maximum",
        statement=(
            "Student’s t is no exponential family: no sums over rows stand for the rows, and the M-step climbs a "
            "gradient over all of them. What was asked of H1 is asked again."
        ),
        formula=r"\max_{\theta}\; \log p(X \mid \theta) - \log p(X \mid \hat\theta) \le 10^{-6}",
        source="direct; Dempster, Laird & Rubin 1977",
        check=None,
        by_itself=checks.gradient_route,
        figure=figures.gradient_route,
        figure_caption=(
            "Left, the rows and the density that was fitted. Middle, each parameter moved from where the fit stops, "
            "the others fixed: SciPy’s $\\log p(X)$ falls on either side. Right, $F$ half-step by half-step in three "
            "units of measurement, less the logarithm of the unit: one curve, which ends at SciPy’s maximum."
        ),
        together="H",
    ),
    Claim(
        id="H3",
        title="Missing values are integrated out",
        statement=(
            "A quarter of all values is struck out, and of one row every value. F is then the likelihood of what is "
            "left, after every E-step, and the M-step is that of EM with the missing values as further latents: for "
            "each row and each cluster a normal distribution is conditioned on what is there, one by one. So is what "
            "is filled in."
        ),
        formula=r"F = \sum_i \log p(x_i^{\mathrm{there}} \mid \theta), \qquad "
        r"\hat{x}_i = \mathbb{E}\left[x_i \mid x_i^{\mathrm{there}}, \theta\right]",
        source="Dempster, Laird & Rubin 1977; Ghahramani & Jordan 1994",
        check=checks.missing_values,
        datasets=("old_faithful",),
        figure=figures.missing_values,
        figure_dataset="old_faithful",
        figure_caption=(
            "Left, $F$ of the engine and the log likelihood of a plain loop. Right, rows of which a value is missing,"
            " where the engine and where conditioning fill them in; grey lines lead to what was struck out. Ellipses "
            "are one standard deviation at the end, the engine’s in colour, the plain loop’s dotted."
        ),
        together="H",
    ),
    Claim(
        id="H4",
        title="A row of weight two is the row twice",
        statement=(
            "Rows with weights of 0 to 3 on one side, the same rows written down so often on the other: F and the "
            "parameters agree after every iteration."
        ),
        formula=r"\sum_i w_i \log p(x_i \mid \theta) = \sum_i \sum_{j=1}^{w_i} \log p(x_i \mid \theta)",
        source="direct",
        check=checks.weights,
        datasets=("old_faithful",),
        figure=figures.weights,
        figure_dataset="old_faithful",
        figure_caption=(
            "Left, $F$ of the engine with weights and the log likelihood of a plain loop on repeated rows. Right, "
            "rows as large as their weight (crosses: weight 0). Ellipses are one standard deviation at the end, the "
            "engine’s in colour, the plain loop’s dotted."
        ),
        together="H",
    ),
    Claim(
        id="H5",
        title="A known label counts as an observation",
        statement=(
            "Of some rows it is known to which cluster they belong; here the labels are drawn at random, against what "
            "the rows themselves say. There q is a point mass on the label, F bounds the probability of rows and known "
            "labels together, and a plain loop agrees in every iteration. This, and not the number of clusters, is "
            "what makes learning semi-supervised."
        ),
        formula=r"F = \sum_{i \in \mathrm{known}} \log p(x_i, t_i \mid \theta) "
        r"+ \sum_{i \notin \mathrm{known}} \log p(x_i \mid \theta)",
        source="direct; Neal & Hinton 1998",
        check=checks.known_labels,
        datasets=("old_faithful",),
        figure=figures.known_labels,
        figure_dataset="old_faithful",
        figure_caption=(
            "Left, $F$ of the engine and the log probability of rows and known labels by a plain loop. Right, rows "
            "whose label is known in its colour, drawn against what the rows say. Ellipses are one standard deviation"
            " at the end, the engine’s in colour, the plain loop’s dotted."
        ),
        together="H",
    ),
    Claim(
        id="H6",
        title="A stream is a running average of statistics",
        statement=(
            "Rows that arrive in batches are seen once: each batch enters an average of the statistics of all rows so "
            "far with its share, and the M-step is taken over that. A plain loop that keeps the same average finds the "
            "same parameters after every batch, with a decay that forgets and with one that does not."
        ),
        formula=r"\bar{s}_t = (1 - \rho_t)\, \bar{s}_{t-1} + \rho_t\, s_t, \qquad "
        r"\rho_t = \min\left(1, \frac{n_t}{N_t}\, t^{1 - \gamma}\right)",
        source="Cappé & Moulines 2009",
        check=checks.streams,
        datasets=("old_faithful",),
        figure=figures.streams,
        figure_dataset="old_faithful",
        figure_caption=(
            "Left, rows in three batches, and one standard deviation about the centres after the last: the engine’s "
            "with a decay that forgets and with one that does not in their colours, the plain running averages’ "
            "dotted. Right, the weight of a cluster after every batch, of the engine (filled) and of the running "
            "average (hollow), and the largest difference of any parameter."
        ),
        together="H",
    ),
    Claim(
        id="H7",
        title="Of several starts the best is returned",
        statement=(
            "Four starts, run side by side by the engine and one after the other by a plain loop: each ends at the "
            "same F, and what is returned is the one with the highest, with its own parameters."
        ),
        formula=r"\hat{r} = \arg\max_r\; F_r",
        source="direct",
        check=checks.best_restart,
        datasets=("old_faithful",),
        figure=figures.best_restart,
        figure_dataset="old_faithful",
        figure_caption=(
            "Lines are plain loops from four starts, markers F of the engine from each after as many iterations; the "
            "ring is the fit that is returned."
        ),
        together="H",
    ),
)
