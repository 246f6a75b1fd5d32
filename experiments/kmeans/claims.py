"""Claims B1 to B10: k-means is EM with a point-mass q, identity covariance and equal weights."""

from probem.experiments.claims.claim import Claim

from . import figures, step_figures
from .limits import each_restriction, four_rows, where_it_stops
from .paths import any_shared_variance, bound_is_inertia, finitely_many_steps, lloyd_step_by_step
from .scene import scene
from .steps import lecture_and_random, mean_is_the_maximum, nearest_centre, normaliser, point_masses

CLAIMS = (
    Claim(
        "B1",
        "The closest point mass sits on the mode",
        "The lecture asks which delta function lies closest to the posterior, and answers: the one on the most "
        "probable cluster. Put all of $q$ on cluster $c$ and the divergence is $-\\log p_c$, nothing else; so the "
        "largest probability is the cheapest, and where two are equal either will do (here the lower index). For the "
        "lecture's 40 and 60 per cent the prices are 0.916 and 0.511 nats.",
        r"\mathrm{KL}(\delta_c \,\|\, p) = \sum_{k} \delta_c(k) \log \frac{\delta_c(k)}{p_k} = -\log p_c",
        "lecture",
        point_masses,
        by_itself=lecture_and_random,
        figure=figures.price_of_a_point_mass,
        figure_caption="What it costs to be certain. The lecture's posterior gives cluster 1 the probability 0.4 and "
        "cluster 2 the probability 0.6: the point mass on cluster 2 is the closer one.",
    ),
    Claim(
        "B2",
        "The normaliser does not matter",
        "“We have some normalisation constant, but we don't care about it”: dividing a row of joint probabilities by "
        "their sum moves all of them together, so the largest stays where it is. Checked on a mixture with weights "
        "and shapes of its own for every cluster, where the posterior is computed by Bayes' rule from SciPy's "
        "densities and the joint by running the program.",
        r"\arg\max_c\; p(t = c \mid x) = \arg\max_c\; \frac{p(x, t = c)}{p(x)} = \arg\max_c\; p(x, t = c)",
        "lecture",
        normaliser,
        figure=step_figures.with_and_without_normaliser,
        figure_dataset="overlapping",
        figure_caption="Twelve rows and three clusters with weights and widths of their own. Above, the joint by the "
        "program; below, the posterior by Bayes’ rule: the three entries of a row are moved together, so that the "
        "largest of them (filled) stays the largest.",
    ),
    Claim(
        "B3",
        "The most probable cluster is the nearest centre",
        "Fix every covariance to the identity and every weight to $1/K$. Then clusters differ in nothing but the "
        "distance to their centre, and the most probable one is the nearest: the E-step with a point mass is the "
        "first half of k-means. In one dimension this is the article's $\\sigma = 1$. Where two centres are equally "
        "near, both sides take the lower index; rows at which two distances agree to the last digits are counted.",
        r"\arg\max_c\; p(t_i = c \mid x_i, \mu) = \arg\min_c\; \lVert x_i - \mu_c \rVert^2",
        "article; lecture",
        nearest_centre,
        short_datasets=("iris", "digits", "old_faithful", "overlapping"),
        figure=step_figures.most_probable_and_nearest,
        figure_dataset="overlapping",
        figure_caption="Left, rows by the label of EM’s E-step with a point mass; black lines bound what is nearest to "
        "each of three centres drawn at random (crosses). Right, by how much the label is more probable than the next "
        "best, against by how much its centre is nearer: the line of equality, and no row in the grey band.",
    ),
    Claim(
        "B4",
        "The M-step is the mean",
        "The lecture's recording ends before the blackboard. With labels $c_i$ fixed, $F$ is a downward parabola in "
        "every centre: its slope vanishes at the mean of the rows assigned and nowhere else, and its curvature is "
        "minus their number. Slope and curvature come from differentiating the program automatically, the mean from a "
        "plain loop.",
        r"\frac{\partial F}{\partial \mu_c} = N_c\,(\bar{x}_c - \mu_c), \qquad "
        r"\frac{\partial^2 F}{\partial \mu_c\, \partial \mu_c^{\top}} = -N_c\, I",
        "article, step 3; lecture, the derivation that it announces",
        mean_is_the_maximum,
        figure=step_figures.mean_and_maximum,
        figure_dataset="overlapping",
        figure_caption="Each centre is moved past the mean of its rows along the first axis, the labels fixed. Markers "
        "are $F$ (left) and its slope (right) as the program and automatic differentiation have them, lines are "
        "$-N_c \\delta^2 / 2$ and $-N_c \\delta$: the top is at the mean.",
    ),
    Claim(
        "B5",
        "F of k-means is a constant less half the inertia",
        "k-means lowers $J$, the sum of squared distances to the nearest centre; EM raises $F$. They are the same "
        "number: $F$ is minus half of $J$, less a constant that no step can change. So “k-means goes down” and “EM "
        "goes up” say one thing, at every iteration and not only at the end.",
        r"F = -\tfrac{1}{2} J - N \log K - \tfrac{N D}{2} \log 2\pi, \qquad "
        r"J = \sum_{i} \min_c\, \lVert x_i - \mu_c \rVert^2",
        "article; direct",
        bound_is_inertia,
        short_datasets=("iris", "digits", "old_faithful", "overlapping"),
        figure=figures.bound_and_inertia,
        figure_dataset="old_faithful",
        figure_caption="k-means on Old Faithful, half-step by half-step: dots are EM's bound F, rings what the "
        "inertia J alone says it should be. One staircase, read on two scales.",
    ),
    Claim(
        "B6",
        "Iteration by iteration it is Lloyd’s algorithm",
        "From the same start, EM with the three restrictions and k-means (once in a few lines of NumPy, once as "
        "scikit-learn's KMeans) give every row the same label at every iteration, have the same centres to the last "
        "digits, and stop at the same iteration. Rows at which two centres are equally far to rounding may go either "
        "way in any implementation: they are named, and where two runs part there the comparison is taken up again "
        "from the next iteration. So are starts in which a cluster loses all its rows, because scikit-learn then "
        "moves its centre elsewhere.",
        r"c_i^{(s)} = \arg\min_c\; \lVert x_i - \mu_c^{(s)} \rVert^2, \qquad "
        r"\mu_c^{(s+1)} = \frac{1}{N_c^{(s)}} \sum_{i:\, c_i^{(s)} = c} x_i",
        "article, steps 1 to 4; Lloyd 1982",
        lloyd_step_by_step,
        scene=scene,
        figure=figures.side_by_side,
        figure_dataset="overlapping",
        figure_caption="Above, k-means: each row belongs to its nearest centre, grey lines are the boundaries. Below, "
        "EM for the Gaussian mixture with unit covariances (circles: one standard deviation), equal weights and a "
        "point-mass q. Two programs that share no line of code, row for row the same.",
    ),
    Claim(
        "B7",
        "k-means stops after finitely many steps",
        "There are only so many ways to cut $N$ rows into $K$ parts. As long as labels move $J$ falls strictly, so no "
        "partition can come twice, and the run ends on labels that repeat. This is what is behind the article's “easy "
        "to prove that k-means is guaranteed to converge”.",
        r"c^{(s+1)} \neq c^{(s)} \;\Longrightarrow\; J^{(s+1)} < J^{(s)}",
        "article, side note; Selim & Ismail 1984",
        finitely_many_steps,
        figure=step_figures.until_labels_repeat,
        figure_dataset="overlapping",
        figure_caption="Eight starts, three and ten clusters. Left, $J$ falls in every iteration in which labels "
        "change; right, the rows that change them become fewer, not always steadily, and every run ends on none.",
    ),
    Claim(
        "B8",
        "k-means stops at a fixed point, which need not be a minimum",
        "The article says: a local minimum. Precisely: a fixed point of both half-steps. When no row is at a tie it "
        "is a local minimum of $J$ over the centres, but seldom the best one; trying every partition of a few rows "
        "shows how seldom. And when a row is at a tie it need not even be that: with rows at 0, 2, 3, 3 and centres "
        "at 1 and 3 both half-steps stand still, and yet $J$ is lower arbitrarily near.",
        r"\mu_c = \frac{1}{N_c} \sum_{i:\, c_i = c} x_i \;\text{ and }\; "
        r"c_i = \arg\min_c\; \lVert x_i - \mu_c \rVert^2 \quad \nRightarrow \quad J \text{ minimal}",
        "article, side note, made precise; Selim & Ismail 1984",
        where_it_stops,
        by_itself=four_rows,
        figure=figures.where_it_stops,
        figure_caption="J over the positions of two centres, for four rows on a line. Left: k-means stops where the "
        "second row is equally far from both centres, on a crease from which J falls off. Right: without the tie it "
        "stops in a valley, but not in the deepest.",
    ),
    Claim(
        "B9",
        "Any spherical variance will do if all clusters share it",
        "Neither unit variance nor the limit of vanishing variance is needed: the identity is one choice among many. "
        "Give all clusters the same $\\sigma^2$, "
        "small, large, or learned along with the centres, and the labels are those of k-means at every iteration. If "
        "it is learned, it is $J/(ND)$ after every M-step, and $F$ depends on $J$ through its logarithm.",
        r"\sigma^2 = \frac{J}{N D}, \qquad F = -N \log K - \frac{N D}{2} \log \frac{2 \pi e J}{N D}",
        "Lücke & Forster 2019",
        any_shared_variance,
        short_datasets=("iris", "digits", "old_faithful", "overlapping"),
        figure=figures.any_shared_variance,
        figure_dataset="overlapping",
        figure_caption="The same iteration under four variances (circles: one standard deviation; in the first panel "
        "hidden by the crosses, in the third outside the picture). The labels do not notice.",
    ),
    Claim(
        "B10",
        "Each of the three restrictions is needed",
        "The three are: one spherical covariance for all clusters (the identity, or any other of B9), equal weights, "
        "and a point mass for $q$. The article names the first. Free the weights alone, and the boundary between two "
        "clusters moves towards the rarer one, by $\\log(\\pi_a/\\pi_b)$ over the distance of their centres. Give "
        "each cluster its own variance, or its own full covariance, and boundaries bend. To share is not enough: one "
        "full covariance for all leaves boundaries straight, but measures distances in its own metric. And with any "
        "$q$ allowed every row pulls at every centre. Each time labels (of $q$, its mode) part from Lloyd's, here on "
        "standardised rows, as soon as what was freed has been learned once.",
        r"c_i = \arg\min_c\; \bigl( \lVert x_i - \mu_c \rVert^2 - 2 \log \pi_c \bigr)",
        "corrects the article; lecture, which restricts weights and covariances",
        each_restriction,
        datasets=("old_faithful", "overlapping"),
        figure=figures.each_restriction,
        figure_dataset="overlapping",
        figure_caption="EM with one restriction dropped, at the first iteration that is not Lloyd's: crosses are its "
        "centres, curves one standard deviation, rings the rows that k-means labels otherwise.",
    ),
)
