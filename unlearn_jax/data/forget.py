"""How forget sets are drawn: sorted, unique indices into the training set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.indices import check_indices as check_indices
from unlearn_jax.data.indices import read_indices
from unlearn_jax.data.indices import save_indices as save_indices
from unlearn_jax.keys import seed_words

FORGET_KINDS: Mapping[str, str] = {
    "random": "examples drawn uniformly without replacement; give a size",
    "class": "every example of one class; give a label",
    "sub_class": "every example of one finer class inside a class; give a label",
    "file": "the examples listed in a file; give its path",
}
"""Kind of forget set -> what it is and what it asks for."""

_ASKS = {"random": "size", "class": "label", "sub_class": "label", "file": "file"}


def random_set(key_or_seed: Any, n: int, size: int | float) -> np.ndarray:
    """Examples drawn uniformly without replacement; the same on every platform.

    Args:
        key_or_seed: A non-negative integer or a jax random key, typed or raw.
        n: Number of training examples.
        size: A count (int) or a fraction of n in (0, 1) (float), rounded, at least 1.

    Returns:
        Sorted int64 indices.

    Raises:
        ValueError: the size is no count from 1 to n - 1 and no fraction in (0, 1), or
            the first argument is neither key nor seed.
    """
    words = seed_words(key_or_seed)
    drawn = np.random.Generator(np.random.PCG64(words)).permutation(n)
    return check_indices(drawn[: _count(size, n)], n)


def class_set(targets: Any, label: int) -> np.ndarray:
    """Sorted int64 indices of the examples whose target is ``label``.

    Raises:
        ValueError: targets are not class indices, no example has this label (the
            sentence lists the labels there are), or every example has it.
    """
    return _labelled(targets, label, "class")


def partial_set(seed: Any, targets: Any, first: int, share: float) -> np.ndarray:
    """A share of every class from one on, drawn at random: a set that is not uniform.

    Args:
        seed: As for :func:`random_set`.
        targets: Class of each training example.
        first: The first class that loses examples.
        share: Of each class's examples, in (0, 1), rounded, at least 1.

    Returns:
        Sorted int64 indices.

    Raises:
        ValueError: a share outside of (0, 1), targets that are no class indices, or no
            example of such a class.

    Source: "random data" of Shen et al. 2024, arXiv 2404.00506, whose code forgets 0.4
        of each class from the fifth of ten on.
    """
    labels = np.asarray(targets)
    if not 0 < share < 1:
        raise ValueError(
            f"forget set 'partial' got the share {share}, expected a fraction between "
            "0 and 1: write the share of each class to forget"
        )
    highest = int(labels.max()) if labels.dtype.kind in "iu" else first
    if labels.dtype.kind in "iu" and first > highest:
        raise ValueError(
            f"forget set 'partial' got classes from {first} on, and the last is "
            f"{highest}: begin earlier"
        )
    random = np.random.Generator(np.random.PCG64(seed_words(seed)))
    drawn = []
    for label in range(first, highest + 1):
        own = random.permutation(_labelled(labels, label, "partial"))
        drawn.append(own[: max(1, round(share * len(own)))])
    return check_indices(np.sort(np.concatenate(drawn)), len(labels))


def sub_class_set(subclasses: Any, label: int) -> np.ndarray:
    """Sorted int64 indices of the examples whose finer label is ``label``.

    Raises:
        ValueError: there are no finer labels (None), no example has this one, or
            every example has it.
    """
    if subclasses is None:
        raise ValueError(
            "forget set 'sub_class' got a data set without finer labels: choose a set "
            "whose name ends in _coarse, or the kind 'class'"
        )
    return _labelled(subclasses, label, "sub_class")


def file_set(path: str | Path, n: int) -> np.ndarray:
    """Sorted int64 indices read from an .npy, .npz, .txt or .json file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no list of integers, or one ``check_indices`` refuses.
    """
    return check_indices(read_indices(Path(path)), n)


def draw(
    dataset: Dataset,
    *,
    kind: str,
    size: int | float | None = None,
    label: int | None = None,
    file: str | Path | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The forget set of one kind (see ``FORGET_KINDS``) in a data set.

    Args:
        dataset: Where the indices point to: its training examples.
        kind: "random", "class", "sub_class" or "file".
        size: For "random": a count, or a fraction in (0, 1).
        label: For "class" and "sub_class": the label to forget.
        file: For "file": an .npy, .npz, .txt or .json list of indices.
        seed: For "random": what the draw depends on.

    Returns:
        Sorted unique int64 indices, at least one and not all.

    Raises:
        ValueError: an unknown kind, an argument that is missing or of another kind,
            or what the kind's own function refuses.
    """
    if kind not in FORGET_KINDS:
        raise ValueError(
            f"got forget set {kind!r}, expected one of {', '.join(FORGET_KINDS)}: "
            "choose one of these kinds"
        )
    given = {"size": size, "label": label, "file": file}
    asked = _ASKS[kind]
    if given[asked] is None:
        raise ValueError(f"forget set {kind!r} needs {asked!r}: {FORGET_KINDS[kind]}")
    other = [
        name for name, value in given.items() if name != asked and value is not None
    ]
    if other:
        raise ValueError(
            f"forget set {kind!r} got {other[0]!r}, expected {asked!r} only: leave "
            f"{other[0]!r} out, or choose another kind"
        )
    n = len(dataset.splits.train.targets)
    if size is not None:
        return random_set(seed, n, size)
    if file is not None:
        return file_set(file, n)
    assert label is not None
    if kind == "class":
        if dataset.task != "classification":
            raise ValueError(
                f"forget set 'class' got the {dataset.task} data set {dataset.name!r}, "
                "which has no classes: choose the kind 'random' or 'file'"
            )
        return class_set(dataset.splits.train.targets, label)
    return sub_class_set(dataset.subclasses, label)


def _count(size: int | float, n: int) -> int:
    """A size as a number of examples."""
    if isinstance(size, float | np.floating):
        if not 0 < size < 1:
            raise ValueError(
                f"forget set 'random' got size {size}, expected a fraction between 0 "
                f"and 1 or a whole count from 1 to {n - 1}: write a count without a dot"
            )
        return max(1, round(float(size) * n))
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if not whole or not 1 <= size < n:
        raise ValueError(
            f"forget set 'random' got size {size}, expected a count from 1 to {n - 1} "
            "or a fraction between 0 and 1: change the size"
        )
    return int(size)


def _labelled(labels: Any, label: int, kind: str) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"forget set {kind!r} got {labels.dtype} labels of shape {labels.shape}, "
            "expected one integer per example: choose the kind 'random' or 'file'"
        )
    indices = np.flatnonzero(labels == label)
    if not indices.size:
        there = ", ".join(str(value) for value in np.unique(labels))
        raise ValueError(
            f"forget set {kind!r} got label {label}, which no training example has: "
            f"choose one of {there}"
        )
    return check_indices(indices, len(labels))
