"""F: mixtures of other distributions, and the clustering algorithms that they contain."""
