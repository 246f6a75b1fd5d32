"""Figures of fits and of selections."""
