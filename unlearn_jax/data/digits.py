"""Handwritten digits that ship inside scikit-learn: real images without a network.

1,797 images of 8×8 pixels (UCI, test part of "Optical Recognition of Handwritten
Digits"). The split is fixed: the images are shuffled by a fixed seed, ordered by digit,
and every fifth is a test image, so each digit keeps its share: 1,437 train, 360 test.
Pixels (0 to 16) are divided by 16, then standardised by the mean and the standard
deviation of all training pixels.
"""

import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np

from unlearn_jax.data.batch import Dataset, Splits, from_arrays

_SPLIT_SEED = 0
GROUPS = ((0, 6), (1, 7), (2, 3), (4, 9), (5, 8))
"""Digits that look alike: the coarse class is the place in this list."""


def digits() -> Dataset:
    """Ten digits; inputs float32 (n, 8, 8, 1), targets int32.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    splits = _load()
    return Dataset("digits", "Digits (scikit-learn)", "classification", 10, splits)


def digits_coarse() -> Dataset:
    """The same images in five classes of two look-alike digits (``GROUPS``).

    The digit itself is the sub-class: forgetting one leaves its class alive.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    splits = _load()
    coarse = np.zeros(10, np.int32)
    for group, members in enumerate(GROUPS):
        coarse[list(members)] = group
    fine = [np.asarray(split.targets) for split in splits]
    batches = (
        from_arrays(split.inputs, coarse[labels])
        for split, labels in zip(splits, fine, strict=True)
    )
    return Dataset(
        name="digits_coarse",
        title="Digits in five look-alike pairs (scikit-learn)",
        task="classification",
        classes=len(GROUPS),
        splits=Splits(*batches),
        subclasses=fine[0],
        test_subclasses=fine[1],
    )


def sklearn_missing() -> str | None:
    """One sentence when scikit-learn is not installed, else None."""
    if find_spec("sklearn") is not None:
        return None
    return (
        "this data set ships inside scikit-learn, which is not installed: install it "
        "with pip install 'unlearn_jax[experiments]'"
    )


def sklearn_table(function: str) -> Any:
    """What ``sklearn.datasets.<function>()`` returns, from inside the package.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    reason = sklearn_missing()
    if reason is not None:
        raise ImportError(reason)
    return getattr(importlib.import_module("sklearn.datasets"), function)()


def _load() -> Splits:
    table = sklearn_table("load_digits")
    images = np.asarray(table.images, np.float32)[..., None] / np.float32(16)
    labels = np.asarray(table.target, np.int32)
    shuffled = np.random.Generator(np.random.PCG64(_SPLIT_SEED)).permutation(
        len(labels)
    )
    by_digit = shuffled[np.argsort(labels[shuffled], kind="stable")]
    test = np.sort(by_digit[::5])
    train = np.setdiff1d(by_digit, test)
    mean = images[train].mean(dtype=np.float64)
    std = images[train].std(dtype=np.float64)
    images = ((images - mean) / std).astype(np.float32)
    return Splits(
        from_arrays(images[train], labels[train]),
        from_arrays(images[test], labels[test]),
    )
