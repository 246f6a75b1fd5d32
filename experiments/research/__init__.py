"""Experiments that a YAML file describes: a program, data, families, grids, and what is measured."""
