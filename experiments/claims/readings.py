"""What the article and the lecture say, sentence by sentence, and which claim answers it."""

#: Group of claims -> heading and what it is about.
GROUPS = {
    "B": (
        "k-means inside EM",
        "The equality, one half-step after the other, and the places where it ends.",
    ),
    "A": (
        "The bound underneath",
        "What k-means inherits by being EM: a bound that no half-step lowers, whatever family q is chosen from.",
    ),
    "C": (
        "Between hard and soft",
        "Assignments may be certain, tempered, cut off after the largest terms, or posterior: how far apart they are, "
        "and what is lost on the way to k-means.",
    ),
    "D": (
        "“GMM does not have to converge”",
        "What there is in that sentence: a likelihood without an upper bound, and what takes it away.",
    ),
    "E": (
        "One square, four corners",
        "Points or full posteriors, for the assignments and for the parameters: k-means is one corner, EM, variational "
        "Bayes and Bayesian k-means the others.",
    ),
    "F": (
        "Beyond Gaussians",
        "Every exponential family has a k-means of its own; which it is follows from the program.",
    ),
    "G": (
        "Theorems that belong here",
        "What others have proved about EM, k-means and variational Bayes, measured: the two sides of each theorem are "
        "computed by different code.",
    ),
    "H": (
        "What else a fit is asked for",
        "M-steps without a closed form, values that are missing, rows that count more than once, labels that are "
        "known, data that arrives in batches, several starts: each beside a plain loop, or SciPy, that knows nothing "
        "of the engine.",
    ),
}

#: What the equality of k-means and restricted EM rests on: the E-step, the M-step, the bound, and the whole trajectory.
EQUALITY = ("B3", "B4", "B5", "B6")
#: That none of its restrictions can be left out.
NECESSITY = "B10"

#: The square: what the assignments are -> its corners, and the claims about each.
SQUARE = (
    (
        "a full distribution",
        (
            ("EM, MAP-EM", ("A1", "A2", "A3", "A4", "A5", "A6", "D1", "D2", "E8")),
            ("variational Bayes", ("E1", "E2", "E3", "E4", "E5", "E7", "E9")),
        ),
    ),
    (
        "a point mass",
        (
            ("k-means, classification EM", ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10")),
            ("Bayesian k-means", ("E1", "E5", "E6")),
        ),
    ),
)

#: The sentence, whose it is, what became of it, and the claims that say so.
READINGS = (
    (
        "Well, it can be argued to be seen as semi-supervised learning because there exists a latent variable or a "
        "hyperparameter: n, the number of clusters.",
        "the article",
        "A number that is chosen beforehand tells no row where it belongs, and is not latent: the latent variables are "
        "the labels. Learning is semi-supervised when some labels are known; then $q$ of those rows is a point mass, "
        "and $F$ bounds the probability of rows and known labels together. And $n$ can be asked of the data.",
        ("H5", "E5", "E9"),
    ),
    (
        "… we will find the corresponding parameters for the clusters; i.e. mean vector and covariance matrix.",
        "the article",
        "And the weights, how common each cluster is. Left out, they are equal, which is a restriction of its own: "
        "free them, and the boundary between a common and a rare cluster moves.",
        ("B10",),
    ),
    (
        "… in each iteration i, find the expectation based on the parameters found in iteration i-1, and then maximize "
        "it.",
        "the article",
        "True, and with more to it: the expectation is of $\\log p(X, T \\mid \\theta)$ under $q$, and neither half "
        "lowers $F$.",
        ("A3", "A5"),
    ),
    (
        "Let X be a set of the data points and assume they are i.i.d normal.",
        "the article",
        "Rows that are independently drawn from one normal distribution have no clusters. They are i.i.d. from the "
        "mixture, which is not normal; given their labels they are normal and independent, but each about the centre "
        "of its own cluster, and so not identically distributed.",
        ("A1", "B3"),
    ),
    (
        "So let’s look at the q among all delta functions.",
        "the lecture",
        "The closest one sits on the mode, also where two probabilities tie; with 0.6 against 0.4 the divergences are "
        "0.511 and 0.916 nats.",
        ("B1",),
    ),
    (
        "So normalization doesn’t change anything.",
        "the lecture",
        "True: the labels read off the joint and off the posterior are the same.",
        ("B2",),
    ),
    (
        "So, this is exactly like we have in K-means …",
        "the lecture, of the first sub-step",
        "True, row for row, ties included when both sides give them to the lowest index.",
        ("B3", "B6"),
    ),
    (
        "So now, let’s derive the formula for the M-step on the blackboard …",
        "the lecture, whose transcript ends there",
        "The derivation is in step iii above; the mean is where the gradient vanishes, and the only maximum.",
        ("B4",),
    ),
    (
        "… and thus maximizes the likelihood function of X.",
        "the article, of assigning rows to the nearest centre",
        "Not quite: it raises the bound F. The likelihood of the mixture itself may fall while k-means runs.",
        ("A4", "B5"),
    ),
    (
        "Note that we set the covariance matrix to be identity matrix … This is the main difference between k-means "
        "and GMM …",
        "the article",
        "It is one of three: with the covariance fixed but the weights free, or with any $q$ in place of a point mass, "
        "the labels already differ. And the identity itself is not needed: any variance that the clusters share will "
        "do, as long as it is one sphere; a full covariance that they share will not.",
        ("B9", "B10"),
    ),
    (
        "… in GMM, each cluster can have arbitrary spherical shapes as long as they are spheres from normal "
        "distributions.",
        "the article",
        "A covariance matrix makes an ellipsoid, with axes of any lengths in any directions; spheres of several sizes "
        "are a restriction, and already not k-means. Nor are the cells of k-means spheres: they are cut by the planes "
        "half-way between two centres, and the outer ones have no end.",
        ("B3", "B10"),
    ),
    (
        "… it is easy to prove that k-means is guaranteed to converge to a local minimum.",
        "the article",
        "It stops, after finitely many steps, at a fixed point of both half-steps. When distances tie, that need not "
        "be a local minimum; and it need not be the global one.",
        ("B7", "B8"),
    ),
    (
        "However, GMM does not have to converge.",
        "the article",
        "With a covariance of its own for each cluster the likelihood has no upper bound, so there is something in it; "
        "but that is not what sets k-means apart from EM, whose bound never falls either. A prior on the covariances "
        "takes the trouble away, if its density outweighs the collapse: not every proper prior does.",
        ("A3", "D1", "D2", "E8"),
    ),
)
