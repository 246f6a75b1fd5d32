"""Runs the claims; and checks of probem against programs, faults and rows that no claim is about."""
