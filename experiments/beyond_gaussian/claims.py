"""F1 to F3: mixtures of other distributions, and the clustering algorithms that they contain."""

from probem.experiments.claims.claim import Claim

from . import bregman, closed_forms, figures, relatives

CLAIMS = (
    Claim(
        id="F1",
        title="Every exponential family has a k-means",
        statement=(
            "Put counts, zeros and ones, or durations in the place of the normal distribution, keep the three "
            "restrictions, and hard EM is still “assign to the nearest, take the mean”: only what is near has changed."
            " The distance is the Bregman divergence of the family: the I-divergence for Poisson counts, the logistic "
            "loss for bits, the Itakura–Saito divergence for exponential durations. Labels and means are those of a "
            "plain loop with that distance in every iteration, and $F$ is minus the sum of the distances, plus a "
            "constant that no step can change. The columns of a data set serve as all three kinds."
        ),
        formula=r"\log p(x \mid \mu) = -d_\varphi(x, \mu) + \log b_\varphi(x), \qquad "
        r"F = \sum_i \log b_\varphi(x_i) - N \log K - \sum_i \min_k d_\varphi(x_i, \mu_k)",
        source="Banerjee et al. 2005",
        check=bregman.bregman_clustering,
        datasets=("iris", "old_faithful"),
        short_datasets=("iris",),
        figure=figures.distances,
        figure_dataset="iris",
        figure_caption="Left, how far a value is from a centre at 2, by three densities: counts and durations mind a "
        "value that is too small more than one that is too large. Right, $F$ of the engine (marks) and minus the sum "
        "of the distances of a plain loop (lines), in the same iterations.",
        together="F",
    ),
    Claim(
        id="F2",
        title="The closed forms are maxima",
        statement=(
            "The M-step is read off the program: which arguments are parameters, and how the statistics of the rows "
            "answer for them. One mixture observes every distribution that has a closed form, side by side, at random "
            "rows and a random posterior. At the engine’s parameters the slope of the expected log joint, by automatic "
            "differentiation of NumPyro’s densities, is zero in every direction; and SciPy, which climbs from where the"
            " engine began and knows no closed form, arrives at the same densities and no higher. In full, the other "
            "ways of writing the same distributions are observed as well."
        ),
        formula=r"\theta^{\mathrm{new}} = \arg\max_\theta \sum_i \sum_k q_{ik} \log p(x_i, t_i = k \mid \theta)",
        source="Dempster, Laird & Rubin 1977; Bishop 2006",
        check=None,
        by_itself=closed_forms.closed_forms,
        full_by_itself=closed_forms.every_way,
        figure=figures.profiles,
        figure_caption="What the M-step maximises, for each distribution, along a random line through the closed form: "
        "each curve has its top there.",
        together="F",
    ),
    Claim(
        id="F3",
        title="Spherical k-means, k-modes and k-medians are relatives",
        statement=(
            "Von Mises–Fisher densities of one concentration make hard EM spherical k-means: cosines, and the direction"
            " of the sum. Laplace densities of one width make it k-medians. And k-modes is hard EM of independent "
            "levels with a fourth restriction: probabilities may lie on one level only, but for a noise that all "
            "share. With free probabilities the centre is the vector of frequencies and the distance a log loss (F1). "
            "That restriction is a family of point masses, written beside the claim in a few lines. Labels are those "
            "of a nearest centre, $F$ is a constant less the distances, and the M-steps are those of plain loops, "
            "where the engine has statistics to work with: unit rows under normal densities about points of the sphere"
            " are von Mises–Fisher’s but for a constant. NumPyro has no such density of its own, and Laplace’s is no "
            "exponential family: by its log_prob alone, as for a density written beside the claim, the engine follows a"
            " gradient, which reaches the direction of the sum to rounding, and the medians only nearly, as the numbers"
            " of a full run say. On the way of k-medians its labels and $F$ are exact."
        ),
        formula=r"F = \mathrm{const} - \kappa \sum_i (1 - \mu_{c_i}^{\top} x_i), \quad "
        r"\mathrm{const} - \lambda \sum_i \#\{d: x_{id} \ne \mu_{c_i d}\}, \quad "
        r"\mathrm{const} - \tfrac{1}{b} \sum_i \lVert x_i - \mu_{c_i} \rVert_1",
        source="Banerjee et al. 2005, on the sphere; Dhillon & Modha 2001; Huang 1998; Celeux & Govaert 1991",
        check=relatives.relatives,
        datasets=("iris", "old_faithful"),
        short_datasets=("iris",),
        full_by_itself=relatives.by_gradient,
        figure=figures.three_relatives,
        figure_dataset="old_faithful",
        figure_caption="Old Faithful three times: as directions on the unit circle, as levels between quartiles "
        "(circles as large as the number of rows), and in standard deviations. Large marks are the direction of a sum, "
        "modes and medians.",
        together="F",
    ),
)
