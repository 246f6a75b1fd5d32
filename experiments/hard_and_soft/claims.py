"""C1 to C3 and C6: from the posterior to the point mass."""

from probem.experiments.claims.claim import Claim

from . import checks, figures

CLAIMS = (
    Claim(
        id="C1",
        title="As the variance vanishes, the posterior becomes a point mass",
        statement=(
            "The usual derivation of k-means lets $\\sigma^2$ go to 0. Then what the posterior of a row leaves to other"
            " clusters than the nearest is at most $(K - 1) \\exp(-\\Delta / 2 \\sigma^2)$, with $\\Delta$ the gap "
            "between the two smallest squared distances: its logarithm falls on a straight line. One soft update of "
            "the centres is then Lloyd’s, to the last digits, and $\\sigma^2 \\log p(X)$ tends to $-J/2$. So the limit "
            "is true, but only at the limit are the two the same; with a point mass for $q$ they are the same at every "
            "variance (B9). The engine runs on a ladder of variances, the bounds come from distances alone."
        ),
        formula=r"1 - \max_k r_{ik} \le (K - 1)\, e^{-\Delta_i / 2 \sigma^2}, "
        r"\qquad \sigma^2 \log p(X) \longrightarrow -\tfrac{1}{2} J",
        source="Kulis & Jordan 2012",
        check=checks.small_variance,
        datasets=("old_faithful", "overlapping", "iris"),
        short_datasets=("old_faithful",),
        figure=figures.towards_a_point_mass,
        figure_dataset="old_faithful",
        figure_caption="Left, what the posterior of four rows leaves to clusters that are not the nearest (marks), "
        "and the bound (lines), as the variance falls to the right. Right, the log likelihood times $\\sigma^2$: at "
        "the left end it is minus half of the inertia of k-means.",
        together="C",
    ),
    Claim(
        id="C2",
        title="Temperature and variance are one knob",
        statement=(
            "Raise the joint probabilities of a row to a power $\\beta$ before they are normalised. The $q$ that comes "
            "of it maximises the expected log joint plus $1 / \\beta$ of the entropy; that sum, and not $F$, is what "
            "climbs in every half-step. $\\beta = 1$ is EM, and a huge $\\beta$ is Lloyd’s algorithm, iteration by "
            "iteration. With equal weights and one variance for all, $\\beta$ and $1 / \\sigma^2$ do the same: EM at a "
            "third of the variance has the centres of $\\beta = 3$."
        ),
        formula=r"q_{ik} = \frac{p(x_i, t_i = k)^\beta}{\sum_c p(x_i, t_i = c)^\beta} = "
        r"\arg\max_q\; \mathbb{E}_q\left[\log p(X, T)\right] + \tfrac{1}{\beta} H(q)",
        source="Ueda & Nakano 1998; Rose 1998",
        check=checks.temperature,
        datasets=("old_faithful", "overlapping", "iris"),
        short_datasets=("old_faithful",),
        figure=figures.powers,
        figure_dataset="old_faithful",
        figure_caption="Left, $q$ of a row on the line between two centres, for several powers: from undecided to a "
        "step. Right, what each power climbs, half-step by half-step.",
        together="C",
    ),
    Claim(
        id="C3",
        title="What a point mass costs",
        statement=(
            "At the same parameters, $F$ of EM is above that of hard EM by $-\\sum_i \\log \\max_k r_{ik}$: nothing "
            "where every row is certain of its cluster, and $N \\log K$ where none prefers any. Both ends are reached: "
            "the upper one when all centres lie at one place, the lower one, to the last digit, as clusters move "
            "apart. There k-means and EM bound the same likelihood equally well."
        ),
        formula=r"0 \le F_{\mathrm{soft}}(\theta) - F_{\mathrm{hard}}(\theta) = -\sum_i \log \max_k r_{ik} "
        r"\le N \log K",
        source="direct; Neal & Hinton 1998",
        check=checks.softness,
        datasets=("old_faithful", "overlapping", "iris"),
        short_datasets=("old_faithful",),
        by_itself=checks.separating,
        figure=figures.moving_apart,
        figure_caption="Four clusters in the corners of a square that grows: what point masses cost falls from "
        "$N \\log K$ to nothing, below a bound that is made of distances alone.",
        together="C",
    ),
    Claim(
        id="C6",
        title="With a few of the largest terms one is in between",
        statement=(
            "Keep of every row the $C$ most probable clusters and spread $q$ over these. $F$ is then the log of the "
            "sum of the $C$ largest joint probabilities: with $C = 1$ it is that of hard EM, with $C = K$ the log "
            "likelihood, and each term more raises it. Every one of these algorithms climbs in both half-steps. So "
            "between k-means and EM there is a ladder with $K$ rungs, and the lower ones are nearly as good as the "
            "top."
        ),
        formula=r"F_C(\theta) = \sum_i \log \sum_{k \in \mathrm{top}_C(i)} p(x_i, t_i = k), \qquad "
        r"F_1 \le F_2 \le \dots \le F_K = \log p(X)",
        source="Lücke & Forster 2019",
        check=checks.largest_terms,
        datasets=("old_faithful", "overlapping", "iris"),
        short_datasets=("old_faithful",),
        figure=figures.terms_kept,
        figure_dataset="overlapping",
        figure_caption="$F$ with the $C$ most probable clusters of every row, from hard EM on the left to EM on the "
        "right, at three points of the same runs.",
        together="C",
    ),
)
