"""The colours of figures: apart for everybody, and visible on the page, which may be light or dark."""

import importlib.resources
import itertools
import re

import numpy as np
import pytest

from probem.plotting.fit import SERIES

# How the dichromats see linear RGB. Source: Machado, Oliveira & Fernandes (2009), A physiologically-based model for
# simulation of color vision deficiency, severity 1.
SEEN_BY = {
    "trichromats": np.eye(3),
    "protanopes": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopes": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
# Linear RGB to Oklab. Source: Ottosson (2020), A perceptual color space for image processing.
CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
OKLAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]
#: Of the length of the grey axis; two hundredths are just noticeable side by side.
LEAST = 0.1


def linear(colour):
    values = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def palettes():
    css = importlib.resources.files("probem.experiments.report").joinpath("report.css").read_text(encoding="utf-8")
    papers = re.findall(r"--paper: (#[0-9a-f]{6})", css)
    colours = re.findall(r"--series-\d: (#[0-9a-f]{6})", css)
    return [(papers[0], tuple(colours[:6])), (papers[1], tuple(colours[6:12])), ("#ffffff", tuple(colours[12:]))]


def test_the_page_has_the_colours_of_the_figures():
    (_, light), (_, dark), (_, printed) = palettes()
    assert light == printed == SERIES
    assert len(dark) == len(SERIES)


@pytest.mark.parametrize("seen_by", SEEN_BY)
@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark", "print"])
def test_any_two_colours_are_apart(palette, seen_by):
    _, colours = palette
    seen = [
        np.array(OKLAB) @ np.cbrt(np.clip(CONES @ np.clip(SEEN_BY[seen_by] @ linear(c), 0, 1), 0, 1)) for c in colours
    ]
    distances = [np.linalg.norm(first - second) for first, second in itertools.combinations(seen, 2)]
    assert min(distances) > LEAST


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark", "print"])
def test_every_colour_stands_out_from_the_page(palette):
    """By the contrast of 3 that WCAG 2 asks of graphical objects (1.4.11)."""
    paper, colours = palette
    for colour in colours:
        low, high = sorted([luminance(colour), luminance(paper)])
        assert (high + 0.05) / (low + 0.05) >= 3
