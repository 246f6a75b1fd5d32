"""Numerical maximisation over statistics of a size that does not depend on the number of rows."""
