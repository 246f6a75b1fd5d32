"""One program fitted to many data sets of one shape."""
