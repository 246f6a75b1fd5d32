"""Checks of probem against programs and faults that nobody wrote by hand."""
