"""The rows of a data set, checked, with their gaps split off, and blocks of them."""
