"""Kinds of bad data: what is manipulated, and what of the test set shows it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.data import corrupt
from unlearn_jax.data.batch import Dataset, take
from unlearn_jax.types import Batch

KINDS = ("backdoor", "confusion")


def corrupted(config: Any, dataset: Dataset, kind: str, seed: int) -> corrupt.Corrupted:
    """The training set with its bad examples; another seed, other ones.

    Raises:
        ValueError: the data have no such examples, or too few.
    """
    train, size = dataset.splits.train, config.confusion
    if kind == "confusion":
        return corrupt.confuse_classes(train, size, *config.classes, seed=seed)
    patch = corrupt.make_patch(train, size=config.patch)
    size, target = config.backdoor, config.target
    return corrupt.poison(train, size, patch, target=target, seed=seed)


def judges(config: Any, dataset: Dataset, kind: str) -> dict[str, Batch]:
    """Test examples with true labels, on the device.

    Returns:
        "corrected": does the manipulation still show? "retained": is the rest as good
        as before?
    """
    train, test = dataset.splits
    shows = np.isin(np.asarray(test.targets), config.classes)
    places = {"corrected": shows, "retained": ~shows}
    found = {name: take(test, np.flatnonzero(at)) for name, at in places.items()}
    if kind == "backdoor":
        patch = corrupt.make_patch(train, size=config.patch)
        found = {"corrected": corrupt.with_patch(test, patch), "retained": test}
    return jax.tree.map(jnp.asarray, found)
