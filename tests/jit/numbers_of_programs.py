"""Fits of programs with numbers in them, and of the same programs with the numbers written into their code."""

import jax
import numpy as np

import probem

RANDOM = np.random.default_rng(0)
LINE = np.concatenate([RANDOM.normal(centre, 1.0, 20) for centre in (-4.0, 0.0, 5.0)])
PLANE = np.stack([LINE, RANDOM.normal(size=60)], 1)
LABELS = probem.Labels(np.repeat(np.arange(3), 20))


def fit(arguments) -> probem.Fit:
    program, x, options = arguments
    return probem.fit(program, x, throw=False, **options)


def written(make, value):
    """The same with every number of the program in its code."""
    program, x, options = make(value)
    names = {"program": program}
    wrapped = eval("lambda x: program(x)", names)
    # What is opaque to the walk is part of the structure.
    names["program"] = Opaque(program)
    return wrapped, x, options


class Opaque:
    """Something that is called, of which every number is part of the structure."""

    def __init__(self, program):
        self.program = program

    def __call__(self, x):
        return self.program(x)


def assert_same(first: probem.Fit, second: probem.Fit, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(first.elbo, second.elbo, rtol=rtol)
    assert first.num_steps == second.num_steps
    for name, value in first.variational.items():
        for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(second.variational[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e3 * rtol, atol=rtol * (1 + np.abs(a).max()))
