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
    "D": (
        "“GMM does not have to converge”",
        "What there is in that sentence: a likelihood without an upper bound, and what takes it away.",
    ),
    "E": (
        "One square, four corners",
        "Points or full posteriors, for the assignments and for the parameters: k-means is one corner, EM, variational "
        "Bayes and Bayesian k-means the others.",
    ),
}

#: The sentence, whose it is, what became of it, and the claims that say so.
READINGS = (
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
        "It is one of three: with the covariance fixed but the weights free the labels already differ. And the "
        "identity itself is not needed: any variance that the clusters share will do.",
        ("B9", "B10"),
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
        "takes the trouble away.",
        ("A3", "D1", "D2", "E8"),
    ),
)
