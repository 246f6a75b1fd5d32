"""The record of a fit, and what it answers."""
