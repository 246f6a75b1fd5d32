"""What all claims share: what a claim is, the data sets, the sources, and how figures are drawn."""
