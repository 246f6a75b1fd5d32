"""A: the bound, of which k-means climbs one special case and EM another."""

from probem.experiments.claims.claim import Claim

from .figures import ascent_figure, gap_figure, guides_figure, likelihood_figure, posterior_figure, slopes_figure
from .steps import likelihood_follows, never_falls
from .values import bound_and_gap, fisher_identity, numpyros_own, posterior_is_best

CLAIMS = (
    Claim(
        id="A1",
        title="The bound and its gap add up to the likelihood",
        statement=(
            "Guess, for every row, how likely it is to come from each cluster; any guess q will do. What the guess is"
            " worth is F. What it falls short of log p(X) is its divergence from the posterior, to the last digit: "
            "whatever is won on one side is lost on the other. That is why raising F by way of q is the same as "
            "bringing q closer to the posterior, the lecture’s E-step."
        ),
        formula=(
            r"\log p(X \mid \theta) = F(q, \theta) "
            r"+ \sum_{i=1}^{N} \mathrm{KL}\left(q_i \,\|\, p(t_i \mid x_i, \theta)\right)"
        ),
        source="Neal & Hinton 1998",
        check=bound_and_gap,
        short_datasets=("old_faithful", "overlapping"),
        figure=gap_figure,
        figure_dataset="old_faithful",
        figure_caption=(
            r"While q moves from a random one to the posterior, F grows by exactly what the gap loses: together they "
            r"always reach $\log p(X)$, the horizontal line, which NumPyro computed without any q."
        ),
    ),
    Claim(
        id="A2",
        title="With no restriction on q, the best q is the posterior",
        statement=(
            "If nothing is asked of q, the E-step lands on Bayes’ rule, the gap closes to nothing, and F touches the "
            "log likelihood. Nudge q in any direction, by a hair or by a mile, and F is lower. k-means asks for a q "
            "that is certain: it gives up this touch, and nothing else."
        ),
        formula=(
            r"\arg\max_{q} F(q, \theta) = p(t \mid x, \theta), "
            r"\qquad \max_{q} F(q, \theta) = \log p(X \mid \theta)"
        ),
        source="the lecture; Neal & Hinton 1998",
        check=posterior_is_best,
        short_datasets=("old_faithful", "overlapping"),
        figure=posterior_figure,
        figure_dataset="overlapping",
        figure_caption=(
            r"Twenty-four q, four ways of leaving the posterior, by little and by much: each has a lower F, by more "
            r"than the square of its distance asks for (the grey line, Pinsker’s inequality). A q that was better "
            r"would stand in the grey band."
        ),
    ),
    Claim(
        id="A3",
        title="No half-step lowers what its family maximises",
        statement=(
            "Not only every iteration but each of its two halves raises F or leaves it where it is: the E half-step "
            "because it picks the best q of its family, the M half-step because it picks the best parameters for that"
            " q. The argument never asks which family it was. So it holds for EM (any q), for k-means’ point masses "
            "and for q that keeps only its two largest values. Tempered q maximises another objective, in which the "
            "entropy is weighted by 1/β: that never falls, while F itself may."
        ),
        formula=r"F(q^{s}, \theta^{s}) \le F(q^{s}, \theta^{s+1}) \le F(q^{s+1}, \theta^{s+1})",
        source="Dempster, Laird & Rubin 1977; Neal & Hinton 1998",
        check=never_falls,
        short_datasets=("old_faithful", "overlapping"),
        figure=ascent_figure,
        figure_dataset="overlapping",
        figure_caption="The same data and start, four families: every E and every M half-step climbs, or stands still.",
    ),
    Claim(
        id="A4",
        title="The likelihood follows the bound under EM, but not under k-means",
        statement=(
            "Under EM the gap is closed after every E-step, so F is the log likelihood there and the two rise "
            "together. Under hard assignments the gap stays open, and may widen faster than F climbs. Then the "
            "likelihood of the mixture falls while k-means does everything right. The article’s “thus maximizes the "
            "likelihood function of X” is true of F, not of p(X): here are starts from which it can be watched "
            "failing."
        ),
        formula=(
            r"F(q^{s}, \theta^{s}) = \log p(X \mid \theta^{s}) \; \text{for EM}, "
            r"\qquad F(q^{s}, \theta^{s}) < \log p(X \mid \theta^{s}) \; \text{for point masses}"
        ),
        source="Celeux & Govaert 1992; the article",
        check=likelihood_follows,
        short_datasets=("overlapping", "one_dimensional"),
        figure=likelihood_figure,
        figure_dataset="one_dimensional",
        figure_caption=(
            r"Both curves from their own start. Left, EM: at every E half-step F is $\log p(X)$. Right, k-means in the"
            r" article’s own setting, one dimension and $\sigma = 1$: F climbs all the way while $\log p(X)$ falls."
        ),
    ),
    Claim(
        id="A5",
        title="The slope of the likelihood is the posterior’s average slope",
        statement=(
            "To know in which direction the likelihood rises one need not differentiate a logarithm of a sum: average"
            " the easy slopes of the complete data, weighted by the posterior. Hence where EM stands still the "
            "likelihood is flat, and what EM stops at inside the constraints is a stationary point of what it set out "
            "to maximise; on their edge, at a weight of 0 say, the constraint takes the rest of the slope."
        ),
        formula=(
            r"\nabla_{\theta} \log p(X \mid \theta) "
            r"= \mathbb{E}_{p(T \mid X, \theta)}\left[\nabla_{\theta} \log p(X, T \mid \theta)\right]"
        ),
        source="Fisher; Louis 1982",
        check=fisher_identity,
        short_datasets=("old_faithful", "overlapping"),
        figure=slopes_figure,
        figure_dataset="old_faithful",
        figure_caption=(
            r"Left, at the start: the slope of $\log p(X)$ in every free parameter (dots) and the posterior’s average "
            r"slope of the complete data (rings). Right, the largest slope of $\log p(X)$ while EM runs: it falls to "
            r"nothing, so that EM stops at a stationary point."
        ),
    ),
    Claim(
        id="A6",
        title="F is the ELBO that NumPyro computes",
        statement=(
            "The bound that k-means climbs is the very one of variational inference. Hand NumPyro the same program "
            "and our q as its guide, and its ELBO is our F: without a guide, the clusters summed out, the log "
            "likelihood; with EM’s q, soft F; with point masses, hard F. Where q is not the posterior, drawing "
            "assignments at random gives F on average."
        ),
        formula=r"F(q, \theta) = \mathbb{E}_{q(T)}\left[\log p(X, T \mid \theta) - \log q(T)\right]",
        source="NumPyro",
        check=numpyros_own,
        short_datasets=("old_faithful", "overlapping"),
        figure=guides_figure,
        figure_dataset="overlapping",
        figure_caption=(
            r"Left, F of the engine (dots) and NumPyro’s ELBO (rings) of the same program under four guides; the "
            r"last is the posterior of other parameters. Right, what single draws of the labels from that guide "
            r"estimate: their mean is F, within four standard errors."
        ),
    ),
)
