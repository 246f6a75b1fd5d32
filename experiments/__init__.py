"""One claim group of the theory a file: what is checked on real data, and the figures that show it."""
