"""C1 to C6 and G9: from the posterior to the point mass."""

from probem.experiments.claims.claim import Claim

from . import annealing, bias, checks, figures, schedules

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
        title="Temperature and variance have the same effect",
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
        title="A point mass lowers F by at most N log K",
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
        id="C4",
        title="Where clusters overlap, k-means is biased",
        statement=(
            "Give k-means rows of one cluster, N(0, 1), and ask it for two: the centres go to plus and minus "
            "$\\sqrt{2/\\pi} = 0.798$, for it cuts the rows at 0 and takes the mean of each half. More rows do not "
            "help: they only make it surer of the wrong numbers. With two clusters of unit variance at $\\pm 1$ the "
            "centres go to $\\pm 1.167$, which is $\\mathbb{E}|x|$, while those of EM go to $\\pm 1$. Both errors, "
            "about their own limits, fall like $1/\\sqrt{N}$, and the factors have closed forms that the fits have to "
            "meet: of k-means by a central limit theorem, of EM by the Fisher information. On N(0, 1), where the "
            "second cluster is one too many, the centres of EM go to 0 as well, but slowly, like $N^{-1/4}$ (G8)."
        ),
        formula=r"\hat\mu_{\mathrm{hard}} \to \pm \mathbb{E}|x| = "
        r"\pm \left( \sqrt{2/\pi}\; e^{-a^2/2} + a\,(1 - 2 \Phi(-a)) \right), "
        r"\qquad \hat\mu_{\mathrm{soft}} \to \pm a",
        source="Bryant & Williamson 1978; Pollard 1982",
        check=None,
        by_itself=bias.biased,
        full_by_itself=bias.to_a_million,
        figure=figures.pushed_apart,
        figure_caption="Left, the distance of fitted centres from 0, for one cluster and for two at $\\pm 1$: k-means "
        "lies on the dashed curve and EM near the truth. Right, errors against the number of rows, with their limits "
        "in closed form (lines): what k-means errs about the truth does not fall.",
        together="C4",
    ),
    Claim(
        id="C5",
        title="Annealing ends at least as high as most random starts",
        statement=(
            "EM ends where its start lets it. Eight clusters, and random rows as centres: few of 40 starts have one in "
            "each cluster, and the others end at lower bounds. Annealed EM begins with all centres at the mean and a "
            "power $\\beta$ just below that at which they leave it (G9), and lets it grow to 1 by a twentieth in every "
            "step: centres part one after the other, along the largest spread. Its median is at least that of the "
            "random starts, and a larger share ends at the highest $F$ of all. That is what is seen, and no theorem: on"
            " some sets a part of the annealed fits ends lower, too. The numbers below are the distributions; a plain "
            "loop repeats some fits of each kind."
        ),
        formula=r"\beta_{s+1} = \min(1, 1.05\, \beta_s), \qquad "
        r"\operatorname{median} F_{\mathrm{annealed}} \ge \operatorname{median} F_{\mathrm{random}}",
        source="Ueda & Nakano 1998",
        check=None,
        by_itself=schedules.annealed_and_random,
        full_by_itself=schedules.several_sets,
        figure=figures.where_starts_end,
        figure_caption="Eight clusters: $F$ where EM from random rows and annealed EM end, as the share of starts that "
        "end no higher. The further to the right, the better; dotted lines are the medians.",
        together="C5",
    ),
    Claim(
        id="C6",
        title="Keeping the C largest terms lies between k-means and EM",
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
    Claim(
        id="G9",
        title="Annealed EM leaves the common mean at a temperature of its own",
        statement=(
            "At a small power $\\beta$ all centres lie at the mean of the data, and stay there. In which direction "
            "they leave it, and when, is a matter of the sample covariance: at "
            "$\\beta_c = \\sigma^2 / \\lambda_{\\max}$ the distance from the mean neither grows nor shrinks along the "
            "first principal axis, and in general it grows by the factor $\\beta / \\beta_c$ in a step. The growth is "
            "measured on steps of the engine, from centres a tiny distance apart; the eigenvalue is NumPy’s, and no "
            "step knows of it."
        ),
        formula=r"\mu_k - \bar{x} \;\longmapsto\; \frac{\beta}{\sigma^2}\, S\, (\mu_k - \bar{x}), "
        r"\qquad \beta_c = \frac{\sigma^2}{\lambda_{\max}(S)}",
        source="Rose, Gurewitz & Fox 1990; Ueda & Nakano 1998",
        check=annealing.phase_transition,
        datasets=("old_faithful", "iris", "one_dimensional"),
        short_datasets=("old_faithful",),
        figure=figures.leaving_the_mean,
        figure_dataset="old_faithful",
        figure_caption="Left, the growth of the distance from the common mean in one step of the engine (marks), and "
        "$\\beta / \\beta_c$ (line). Right, the distance step by step, for powers below and above the critical one.",
        together="C",
    ),
)
