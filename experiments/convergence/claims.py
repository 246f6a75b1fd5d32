"""D3, D4, G2, G3, G13, G14: how fast EM converges, what a step is, and what makes it faster."""

from probem.experiments.claims.claim import Claim

from . import figures
from .acceleration import same_end_sooner
from .incremental import never_lower
from .limits import limit_points
from .rates import linear_rate, missing_information
from .steps import preconditioned

CLAIMS = (
    Claim(
        id="D3",
        title="EM converges linearly, at the rate of its map",
        statement=(
            "Near its fixed point each iteration of EM brings the error down by the same factor. That factor is the "
            "largest eigenvalue of the Jacobian of the map from one iteration’s parameters to the next: seen in the "
            "engine’s steps on one side, computed by differentiating a plain iteration on the other. Where clusters "
            "overlap it is near one, and the last digits take hundreds of iterations."
        ),
        formula=r"\frac{\|\theta_{s+1} - \theta^*\|}{\|\theta_s - \theta^*\|} \to \lambda_{\max}(J), "
        r"\qquad J = \frac{\partial M(\theta)}{\partial \theta}\Big|_{\theta^*}",
        source="Dempster, Laird & Rubin 1977",
        check=linear_rate,
        datasets=("overlapping", "old_faithful"),
        short_datasets=("overlapping",),
        figure=figures.errors,
        figure_dataset="overlapping",
        figure_caption=(
            "How far two normal distributions on the set of three overlapping clusters are from the fixed point after "
            "every iteration, on a logarithmic scale. The dashed line has the slope that the Jacobian predicts; only "
            "where it begins was read off the steps."
        ),
        together="D3",
    ),
    Claim(
        id="D4",
        title="An acceleration keeps the fixed point and takes fewer iterations",
        statement=(
            "What a few iterations show of the map says where its fixed point lies. SQUAREM moves along two steps, "
            "Anderson’s method along the last few; a move that lowers F is taken back, so that F still never falls in "
            "what is kept. All three end at the fixed point of a plain loop, to eight digits, the accelerated ones in "
            "fewer than half of EM’s iterations, those included that were given up."
        ),
        formula=r"\theta_0 + 2 a r + a^2 v, \quad a = \|r\| / \|v\|, \quad r = M(\theta_0) - \theta_0, \quad "
        r"v = M(M(\theta_0)) - M(\theta_0) - r",
        source="Varadhan & Roland 2008; Walker & Ni 2011; Henderson & Varadhan 2019",
        check=same_end_sooner,
        datasets=("overlapping",),
        figure=figures.accelerated,
        figure_dataset="overlapping",
        figure_caption=(
            "How many nats F is below its end, iteration by iteration, from the same start. A straight line is linear "
            "convergence. Crosses are iterations that were given up because F was lower than after the plain step."
        ),
        together="D3",
    ),
    Claim(
        id="G2",
        title="An iteration of EM is a step along the gradient of log p(X)",
        statement=(
            "How EM moves the weights, the locations and the covariances is the gradient of log p(X), multiplied by a "
            "positive semidefinite matrix that depends on the parameters alone: no step length is chosen, and the way "
            "is always up. The covariances have to be taken about the means before the iteration; EM takes them about "
            "those after it, which makes them smaller by the square of the move. The gradient is that of NumPyro’s "
            "density by automatic differentiation, the moves are the engine’s."
        ),
        formula=r"\theta_{s+1} - \theta_s = P(\theta_s)\, \nabla \log p(X \mid \theta_s), \qquad "
        r"P_\pi = \tfrac{1}{N}\left(\mathrm{diag}(\pi) - \pi \pi^\top\right), \quad "
        r"P_{\mu_k} = \tfrac{1}{N_k} \Sigma_k, \quad P_{\Sigma_k} = \tfrac{2}{N_k} \Sigma_k \otimes \Sigma_k",
        source="Xu & Jordan 1996",
        check=preconditioned,
        datasets=("overlapping", "old_faithful"),
        short_datasets=("overlapping",),
        figure=figures.moves,
        figure_dataset="overlapping",
        figure_caption=(
            "Every entry of every move in ten iterations, against what the gradient predicts: all on the diagonal. "
            "Covariances are taken about the means before each iteration."
        ),
        together="D3",
    ),
    Claim(
        id="G3",
        title="The rate of convergence is the fraction of information that is missing",
        statement=(
            "With the labels known the rows would carry the complete information; without them they carry the "
            "observed one. What is missing in the direction where most is missing is the rate of EM: the more the "
            "clusters overlap, the less the rows say of which is which, and the slower EM is. The Jacobian of the "
            "engine’s own iteration therefore gives the observed information, and with it standard errors; they are "
            "those that fit.standard_errors finds by second derivatives."
        ),
        formula=r"I_o = I_c\, (I - J), \qquad \lambda_{\max}(J) = 1 - \lambda_{\min}\left(I_c^{-1} I_o\right)",
        source="Dempster, Laird & Rubin 1977; Louis 1982; Meng & Rubin 1991",
        check=missing_information,
        datasets=("overlapping", "old_faithful"),
        short_datasets=("overlapping",),
        figure=figures.information,
        figure_dataset="overlapping",
        figure_caption=(
            "Left: the eigenvalues of the map of EM, and the fractions of missing information, by size; the dashed "
            "line is the rate seen in the steps. Right: standard errors of all parameters by the Jacobian of the "
            "engine’s iteration, and by its second derivatives."
        ),
        together="D3",
    ),
    Claim(
        id="G13",
        title="EM block by block never lowers F",
        statement=(
            "Rows need not be looked at all at once: q of one block is renewed, its statistics take the place of those "
            "it had, and the M-step is taken over the sum. F of all rows never falls, though the log likelihood may. A "
            "plain loop visits blocks; after every half-step the engine says what F is at its q and its parameters. "
            "Where the loop comes to stand still, a whole iteration of EM does not move it either. The numbers below "
            "say where it and EM are after as many passes over the rows."
        ),
        formula=r"\bar{s} \leftarrow \bar{s} - s_b^{\mathrm{old}} + s_b^{\mathrm{new}}, \qquad "
        r"F(q_{\mathrm{new}}, \theta_{\mathrm{new}}) \ge F(q_{\mathrm{old}}, \theta_{\mathrm{old}})",
        source="Neal & Hinton 1998",
        check=never_lower,
        datasets=("overlapping", "old_faithful"),
        short_datasets=("overlapping",),
        figure=figures.blocks,
        figure_dataset="overlapping",
        figure_caption=(
            "F after every half-step of incremental EM over six blocks, and after every iteration of EM, against how "
            "often the rows were passed over."
        ),
        together="D3",
    ),
    Claim(
        id="G14",
        title="What EM tends to is stationary, unless it leaves every bounded region",
        statement=(
            "With a covariance that the clusters share, all parameters at which log p(X) is above that of one normal "
            "distribution lie in a bounded region; a run that begins there stays there, and the gradient of log p(X) "
            "vanishes along it. With free covariances there is no such region: a component that begins on a single row "
            "closes in on it, log p(X) rises without an end, and the gradient does not vanish. The engine stops and "
            "says SINGULAR. Gradients are those of NumPyro’s density, in coordinates without constraints."
        ),
        formula=r"\{\theta : \log p(X \mid \theta) \ge \log p(X \mid \theta_0)\} \text{ compact} "
        r"\;\Longrightarrow\; \nabla \log p(X \mid \theta_s) \to 0",
        source="Wu 1983",
        check=limit_points,
        datasets=("overlapping", "old_faithful"),
        short_datasets=("overlapping",),
        figure=figures.slopes,
        figure_dataset="overlapping",
        figure_caption=(
            "The length of the gradient of log p(X). Left: from two starts above one normal distribution, with a "
            "shared covariance: it falls to rounding. Right: from a component on one row, with free covariances: the "
            "variance of that component falls, and the gradient does not."
        ),
        together="D3",
    ),
)
