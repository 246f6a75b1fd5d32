"""What the claims cite, in full."""

#: By the words with which a claim cites it.
SOURCES = {
    "article": "Nie, J. (2022). K-Means Clustering is a special version of Gaussian Mixture Models. An article of "
    "25 July 2022.",
    "lecture": "K-means from a probabilistic perspective. A lecture of the course Bayesian Methods for Machine "
    "Learning, HSE University, read as a transcript.",
    "Arthur & Vassilvitskii 2007": "Arthur, D. & Vassilvitskii, S. (2007). k-means++: the advantages of careful "
    "seeding. Proceedings of the Eighteenth Annual ACM-SIAM Symposium on Discrete Algorithms, 1027–1035.",
    "Attias 2000": "Attias, H. (2000). A variational Bayesian framework for graphical models. Advances in Neural "
    "Information Processing Systems 12, 209–215.",
    "Banerjee et al. 2005": "Banerjee, A., Merugu, S., Dhillon, I. S. & Ghosh, J. (2005). Clustering with Bregman "
    "divergences. Journal of Machine Learning Research 6, 1705–1749.",
    "Beal 2003": "Beal, M. J. (2003). Variational Algorithms for Approximate Bayesian Inference. PhD thesis, "
    "University College London.",
    "Bishop 2006": "Bishop, C. M. (2006). Pattern Recognition and Machine Learning. Springer, chapters 9 and 10.",
    "Blei & Jordan 2006": "Blei, D. M. & Jordan, M. I. (2006). Variational inference for Dirichlet process mixtures. "
    "Bayesian Analysis 1(1), 121–143.",
    "Bottou & Bengio 1995": "Bottou, L. & Bengio, Y. (1995). Convergence properties of the k-means algorithms. "
    "Advances in Neural Information Processing Systems 7, 585–592.",
    "Bryant & Williamson 1978": "Bryant, P. & Williamson, J. A. (1978). Asymptotic behaviour of classification maximum "
    "likelihood estimates. Biometrika 65(2), 273–281.",
    "Cappé & Moulines 2009": "Cappé, O. & Moulines, E. (2009). On-line expectation–maximization algorithm for latent "
    "data models. Journal of the Royal Statistical Society B 71(3), 593–613.",
    "Celeux & Govaert 1991": "Celeux, G. & Govaert, G. (1991). Clustering criteria for discrete data and latent class "
    "models. Journal of Classification 8(2), 157–176.",
    "Celeux & Govaert 1992": "Celeux, G. & Govaert, G. (1992). A classification EM algorithm for clustering and two "
    "stochastic versions. Computational Statistics & Data Analysis 14(3), 315–332.",
    "Celeux & Govaert 1995": "Celeux, G. & Govaert, G. (1995). Gaussian parsimonious clustering models. Pattern "
    "Recognition 28(5), 781–793.",
    "Ciuperca, Ridolfi & Idier 2003": "Ciuperca, G., Ridolfi, A. & Idier, J. (2003). Penalized maximum likelihood "
    "estimator for normal mixtures. Scandinavian Journal of Statistics 30(1), 45–59.",
    "Daskalakis, Tzamos & Zampetakis 2017": "Daskalakis, C., Tzamos, C. & Zampetakis, M. (2017). Ten steps of EM "
    "suffice for mixtures of two Gaussians. Proceedings of Machine Learning Research 65 (COLT), 704–710.",
    "Dempster, Laird & Rubin 1977": "Dempster, A. P., Laird, N. M. & Rubin, D. B. (1977). Maximum likelihood from "
    "incomplete data via the EM algorithm. Journal of the Royal Statistical Society B 39(1), 1–38.",
    "Dhillon & Modha 2001": "Dhillon, I. S. & Modha, D. S. (2001). Concept decompositions for large sparse text data "
    "using clustering. Machine Learning 42(1), 143–175.",
    "Dwivedi et al. 2020": "Dwivedi, R., Ho, N., Khamaru, K., Wainwright, M. J., Jordan, M. I. & Yu, B. (2020). "
    "Singularity, misspecification and the convergence rate of EM. The Annals of Statistics 48(6), 3161–3182.",
    "Fisher": "Fisher, R. A. (1925). Theory of statistical estimation. Mathematical Proceedings of the Cambridge "
    "Philosophical Society 22(5), 700–725.",
    "Fraley & Raftery 2007": "Fraley, C. & Raftery, A. E. (2007). Bayesian regularization for normal mixture "
    "estimation and model-based clustering. Journal of Classification 24(2), 155–181.",
    "Ghahramani & Jordan 1994": "Ghahramani, Z. & Jordan, M. I. (1994). Supervised learning from incomplete data via "
    "an EM approach. Advances in Neural Information Processing Systems 6, 120–127.",
    "Hathaway 1985": "Hathaway, R. J. (1985). A constrained formulation of maximum-likelihood estimation for normal "
    "mixture distributions. The Annals of Statistics 13(2), 795–800.",
    "Henderson & Varadhan 2019": "Henderson, N. C. & Varadhan, R. (2019). Damped Anderson acceleration with restarts "
    "and monotonicity control for accelerating EM and EM-like algorithms. Journal of Computational and Graphical "
    "Statistics 28(4), 834–846.",
    "Hoffman & Gelman 2014": "Hoffman, M. D. & Gelman, A. (2014). The No-U-Turn sampler: adaptively setting path "
    "lengths in Hamiltonian Monte Carlo. Journal of Machine Learning Research 15, 1593–1623.",
    "Huang 1998": "Huang, Z. (1998). Extensions to the k-means algorithm for clustering large data sets with "
    "categorical values. Data Mining and Knowledge Discovery 2(3), 283–304.",
    "Jin et al. 2016": "Jin, C., Zhang, Y., Balakrishnan, S., Wainwright, M. J. & Jordan, M. I. (2016). Local maxima "
    "in the likelihood of Gaussian mixture models: structural results and algorithmic consequences. Advances in Neural "
    "Information Processing Systems 29, 4116–4124.",
    "Kiefer & Wolfowitz 1956": "Kiefer, J. & Wolfowitz, J. (1956). Consistency of the maximum likelihood estimator in "
    "the presence of infinitely many incidental parameters. The Annals of Mathematical Statistics 27(4), 887–906.",
    "Kulis & Jordan 2012": "Kulis, B. & Jordan, M. I. (2012). Revisiting k-means: new algorithms via Bayesian "
    "nonparametrics. Proceedings of the 29th International Conference on Machine Learning.",
    "Kunstner, Kumar & Schmidt 2021": "Kunstner, F., Kumar, R. & Schmidt, M. (2021). Homeomorphic-invariance of EM: "
    "non-asymptotic convergence in KL divergence for exponential families via mirror descent. Proceedings of Machine "
    "Learning Research 130 (AISTATS), 3295–3303.",
    "Kurihara & Welling 2009": "Kurihara, K. & Welling, M. (2009). Bayesian k-means as a “maximization-expectation” "
    "algorithm. Neural Computation 21(4), 1145–1172.",
    "Lloyd 1982": "Lloyd, S. P. (1982). Least squares quantization in PCM. IEEE Transactions on Information Theory "
    "28(2), 129–137.",
    "Louis 1982": "Louis, T. A. (1982). Finding the observed information matrix when using the EM algorithm. Journal "
    "of the Royal Statistical Society B 44(2), 226–233.",
    "Lücke & Forster 2019": "Lücke, J. & Forster, D. (2019). k-means as a variational EM approximation of Gaussian "
    "mixture models. Pattern Recognition Letters 125, 349–356.",
    "Ma, Xu & Jordan 2000": "Ma, J., Xu, L. & Jordan, M. I. (2000). Asymptotic convergence rate of the EM algorithm "
    "for Gaussian mixtures. Neural Computation 12(12), 2881–2907.",
    "Meng & Rubin 1991": "Meng, X.-L. & Rubin, D. B. (1991). Using EM to obtain asymptotic variance-covariance "
    "matrices: the SEM algorithm. Journal of the American Statistical Association 86(416), 899–909.",
    "Neal & Hinton 1998": "Neal, R. M. & Hinton, G. E. (1998). A view of the EM algorithm that justifies incremental, "
    "sparse, and other variants. In M. I. Jordan (ed.), Learning in Graphical Models, 355–368. Kluwer.",
    "NumPyro": "Phan, D., Pradhan, N. & Jankowiak, M. (2019). Composable effects for flexible and accelerated "
    "probabilistic programming in NumPyro. arXiv:1912.11554.",
    "Pollard 1982": "Pollard, D. (1982). A central limit theorem for k-means clustering. The Annals of Probability "
    "10(4), 919–926.",
    "Rose 1998": "Rose, K. (1998). Deterministic annealing for clustering, compression, classification, regression, "
    "and related optimization problems. Proceedings of the IEEE 86(11), 2210–2239.",
    "Rose, Gurewitz & Fox 1990": "Rose, K., Gurewitz, E. & Fox, G. C. (1990). Statistical mechanics and phase "
    "transitions in clustering. Physical Review Letters 65(8), 945–948.",
    "Scrucca et al. 2016": "Scrucca, L., Fop, M., Murphy, T. B. & Raftery, A. E. (2016). mclust 5: clustering, "
    "classification and density estimation using Gaussian finite mixture models. The R Journal 8(1), 289–317.",
    "Selim & Ismail 1984": "Selim, S. Z. & Ismail, M. A. (1984). K-means-type algorithms: a generalized convergence "
    "theorem and characterization of local optimality. IEEE Transactions on Pattern Analysis and Machine Intelligence "
    "6(1), 81–87.",
    "Strehl & Ghosh 2002": "Strehl, A. & Ghosh, J. (2002). Cluster ensembles – a knowledge reuse framework for "
    "combining partitionings. Journal of Machine Learning Research 3(3), 583–617.",
    "Ueda & Nakano 1998": "Ueda, N. & Nakano, R. (1998). Deterministic annealing EM algorithm. Neural Networks 11(2), "
    "271–282.",
    "Varadhan & Roland 2008": "Varadhan, R. & Roland, C. (2008). Simple and globally convergent methods for "
    "accelerating the convergence of any EM algorithm. Scandinavian Journal of Statistics 35(2), 335–353.",
    "Walker & Ni 2011": "Walker, H. F. & Ni, P. (2011). Anderson acceleration for fixed-point iterations. SIAM Journal "
    "on Numerical Analysis 49(4), 1715–1735.",
    "Wang & Titterington 2005": "Wang, B. & Titterington, D. M. (2005). Inadequacy of interval estimates corresponding "
    "to variational Bayesian approximations. Proceedings of the Tenth International Workshop on Artificial "
    "Intelligence and Statistics, 373–380.",
    "Watanabe & Watanabe 2006": "Watanabe, K. & Watanabe, S. (2006). Stochastic complexities of Gaussian mixtures in "
    "variational Bayesian approximation. Journal of Machine Learning Research 7, 625–644.",
    "Watanabe 2013": "Watanabe, S. (2013). A widely applicable Bayesian information criterion. Journal of Machine "
    "Learning Research 14, 867–897.",
    "Wu 1983": "Wu, C. F. J. (1983). On the convergence properties of the EM algorithm. The Annals of Statistics "
    "11(1), 95–103.",
    "Xu & Jordan 1996": "Xu, L. & Jordan, M. I. (1996). On convergence properties of the EM algorithm for Gaussian "
    "mixtures. Neural Computation 8(1), 129–151.",
}

#: Where the two texts stand that the whole report answers.
LINKS = {
    "article": "https://medium.com/@niejiayang32/k-means-clustering-is-a-special-version-of-gaussian-mixture-models-"
    "2fa608a0a1b0",
    "lecture": "https://www.coursera.org/learn/bayesian-methods-in-machine-learning",
}


def cited(text: str) -> list[str]:
    """The full references of all that is cited in ``text``, and of the two texts that the whole report answers."""
    return [full for short, full in SOURCES.items() if short in text or short in ("article", "lecture")]
