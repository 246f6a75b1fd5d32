"""H1 to H7: the routes of the engine beyond closed forms, and what else a fit is asked for."""

from probem.experiments.claims.claim import Claim

from . import checks

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
        together="H",
    ),
)
