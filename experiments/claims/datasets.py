"""The data sets on which the claims are checked: four real ones and three drawn at random.

Every loader returns rows in float64, [N, D]. The synthetic sets have seeds of their own, so that they are the same rows
in every run.
"""

import csv
import importlib.resources
from collections.abc import Callable

import numpy as np

from probem.errors import InputError, nearest

from .claim import Dataset


def iris() -> Dataset:
    """Fisher's iris flowers, 150 x 4, centimetres. Source: Fisher (1936), Annals of Eugenics 7, 179-188."""
    from sklearn.datasets import load_iris

    columns = ("sepal length", "sepal width", "petal length", "petal width")
    rows, _ = load_iris(return_X_y=True)
    return Dataset("iris", np.asarray(rows), "150 iris flowers of three species, four lengths in centimetres", columns)


def wine() -> Dataset:
    """Wines of three cultivars, 178 x 13, standardised. Source: Forina et al. (1986), UCI Repository."""
    from sklearn.datasets import load_wine

    columns = (
        "alcohol",
        "malic acid",
        "ash",
        "alcalinity of ash",
        "magnesium",
        "total phenols",
        "flavanoids",
        "nonflavanoid phenols",
        "proanthocyanins",
        "color intensity",
        "hue",
        "od280/od315 of diluted wines",
        "proline",
    )
    rows, _ = load_wine(return_X_y=True)
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    description = "178 wines of three cultivars, thirteen chemical measurements, each standardised"
    return Dataset("wine", np.asarray(rows), description, columns)


def digits() -> Dataset:
    """Handwritten digits, 1797 x 64, grey levels 0 to 16. Source: Alpaydin & Kaynak (1998), UCI Repository."""
    from sklearn.datasets import load_digits

    rows, _ = load_digits(return_X_y=True)
    columns = tuple(f"row {place // 8} column {place % 8}" for place in range(64))
    return Dataset("digits", np.asarray(rows), "1797 handwritten digits, 8 x 8 grey levels from 0 to 16", columns)


def old_faithful() -> Dataset:
    """Eruptions of the geyser, 272 x 2, minutes. Source: R's table ``faithful``; see ``experiments/data/README.md``."""
    folder = importlib.resources.files("probem.experiments")
    with folder.joinpath("data/old_faithful.csv").open(encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    description = "272 eruptions of Old Faithful: how long each lasted and how long until the next, in minutes"
    return Dataset("old_faithful", np.array(lines, dtype=np.float64), description, tuple(header))


def blobs() -> Dataset:
    """Four well-separated clusters of unit variance, 400 x 2: here hard and soft assignments nearly agree."""
    centres = np.array([[-6.0, -6.0], [-6.0, 6.0], [6.0, -6.0], [6.0, 6.0]])
    rows = np.repeat(centres, 100, axis=0) + np.random.default_rng(1).standard_normal((400, 2))
    return Dataset("blobs", rows, "four well-separated clusters of 100 rows, unit variance", ("x", "y"))


def overlapping() -> Dataset:
    """Three clusters of unequal size and shape that overlap, 600 x 2: here every restriction of k-means matters."""
    generator = np.random.default_rng(2)
    shapes = ([[1.0, 0.0], [0.0, 1.0]], [[2.5, 1.2], [1.2, 1.0]], [[0.3, -0.2], [-0.2, 0.6]])
    sizes, centres = (350, 200, 50), ([0.0, 0.0], [2.5, 1.0], [0.5, 2.5])
    parts = [generator.multivariate_normal(*part) for part in zip(centres, shapes, sizes, strict=True)]
    description = "three overlapping clusters of 350, 200 and 50 rows with different covariances"
    return Dataset("overlapping", np.concatenate(parts), description, ("x", "y"))


def one_dimensional() -> Dataset:
    """Two normal distributions of standard deviation 1 on a line, 300 x 1: the article's own setting, sigma = 1."""
    generator = np.random.default_rng(3)
    values = np.concatenate([generator.normal(-1.5, 1.0, 200), generator.normal(1.5, 1.0, 100)])
    description = "two normal distributions on a line, standard deviation 1, centres 3 apart"
    return Dataset("one_dimensional", values[:, None], description, ("x",))


DATASETS: dict[str, Callable[[], Dataset]] = {
    loader.__name__: loader for loader in (iris, wine, digits, old_faithful, blobs, overlapping, one_dimensional)
}


def load(name: str) -> Dataset:
    """The data set of this name."""
    if name not in DATASETS:
        raise InputError(f"the data set {name!r}", f"one of {', '.join(DATASETS)}", nearest(name, DATASETS))
    return DATASETS[name]()
