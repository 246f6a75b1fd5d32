"""B: k-means is EM with a point-mass q, identity covariance and equal weights."""
