"""Forget sets that are hard to forget: clusters of features, extremes of a score."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.indices import UNREADABLE, check_indices

HARD_KINDS: Mapping[str, str] = {
    "clustered": "examples furthest along the principal direction of the inputs, of "
    "all or of one class; give a size, and a label if you like",
    "highest": "examples of the highest score in a file; give a size and the file",
    "lowest": "examples of the lowest score in a file; give a size and the file",
}
"""Kind of hard forget set -> what it is and what it asks for."""

_EXACT_FEATURES = 2048
_OVERSAMPLE, _POWERS = 10, 6


def clustered_set(
    features: Any,
    size: int | float,
    *,
    labels: Any = None,
    label: int | None = None,
    direction: int = 0,
    side: Literal["high", "low"] = "high",
) -> np.ndarray:
    """The examples furthest along a principal direction of their centred features.

    Args:
        features: (n, f): raw inputs, embeddings, or sketched gradients from
            ``attribution.gradient_clusters``; further axes are joined.
        size: A count, or a fraction in (0, 1) of the examples that may be chosen.
        labels: (n,) class indices; needed with ``label``.
        label: Choose within this class only; the direction is then that class's own.
        direction: 0 for the direction of the largest variance, 1 for the next.
        side: "high" or "low" end. The direction's own sign is that of its largest
            entry, made positive.

    Returns:
        Sorted int64 indices into the n examples.

    Raises:
        ValueError: not finite, no such class or direction, or a size that leaves
            nothing.

    Cost: n f² operations up to 2,048 features, some 30 passes over them beyond.
    Source: after the non-random forget sets within one class of Georgiev et al. 2024,
        arXiv 2410.23232. Differs: any features, of one class or of all.
    """
    if side not in ("high", "low"):
        raise ValueError(f"side is {side!r}, expected 'high' or 'low': choose one")
    features = np.asarray(features)
    n = len(features)
    features = features.reshape(n, -1).astype(np.float64)
    able = np.arange(n)
    if label is not None:
        if labels is None or np.asarray(labels).shape != (n,):
            raise ValueError(
                f"clustered_set got label {label} without a label for each of {n} "
                "examples: give labels of shape (n,)"
            )
        able = np.flatnonzero(np.asarray(labels) == label)
        if not able.size:
            there = ", ".join(str(value) for value in np.unique(np.asarray(labels)))
            raise ValueError(
                f"clustered_set got label {label}, which no example has: choose one of "
                f"{there}"
            )
    chosen = features[able]
    if not np.isfinite(chosen).all():
        raise ValueError(
            "clustered_set got NaN or infinite features, expected finite numbers: "
            "fill in or drop these examples"
        )
    along = principal_scores(chosen, direction)
    most = len(able) if label is not None else len(able) - 1
    count = _count(size, len(able), most)
    return check_indices(able[_last(along if side == "high" else -along, count)], n)


def principal_scores(features: np.ndarray, direction: int = 0) -> np.ndarray:
    """Coordinates of centred features (n, f) along one principal direction.

    Args:
        features: float64.
        direction: 0 for the largest variance.

    Raises:
        ValueError: there are no so many directions.

    Source: beyond 2,048 features the randomised subspace iteration of Halko,
        Martinsson & Tropp 2011, with a fixed seed. As published.
    """
    n, f = features.shape
    if not 0 <= direction < min(n, f):
        raise ValueError(
            f"direction {direction} was asked of {n} examples with {f} features, "
            f"expected 0 to {min(n, f) - 1}: choose a smaller one"
        )
    centred = features - features.mean(axis=0, keepdims=True)
    if min(n, f) <= _EXACT_FEATURES:
        axes = _exact_axes(centred)
    else:
        axes = _sketched_axes(centred, direction + 1 + _OVERSAMPLE)
    axis = axes[:, direction]
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
    return centred @ axis


def highest_set(scores: Any, size: int | float) -> np.ndarray:
    """The examples of the highest score; of equal ones those that come first.

    Args:
        scores: (n,) finite numbers: losses, memorisation, influence.
        size: A count, or a fraction in (0, 1).

    Returns:
        Sorted int64 indices.

    Raises:
        ValueError: scores are no finite numbers, or a size that leaves nothing.
    """
    scores = np.asarray(scores)
    number = np.issubdtype(scores.dtype, np.floating) or np.issubdtype(
        scores.dtype, np.integer
    )
    if scores.ndim != 1 or not number or not np.isfinite(scores).all():
        raise ValueError(
            f"got scores of dtype {scores.dtype} and shape {scores.shape}, expected "
            "one finite number for each example: check where they come from"
        )
    n = len(scores)
    return check_indices(_last(scores.astype(np.float64), _count(size, n, n - 1)), n)


def lowest_set(scores: Any, size: int | float) -> np.ndarray:
    """The examples of the lowest score; see :func:`highest_set`."""
    return highest_set(-np.asarray(scores, np.float64), size)


def draw_hard(
    dataset: Dataset,
    *,
    kind: str,
    size: int | float,
    label: int | None = None,
    file: str | Path | None = None,
) -> np.ndarray:
    """The forget set of one kind of ``HARD_KINDS`` in a data set.

    Args:
        dataset: Where the indices point to: its training examples.
        kind: "clustered" (of raw inputs), "highest" or "lowest".
        size: A count, or a fraction in (0, 1).
        label: For "clustered": within this class only.
        file: For "highest" and "lowest": an .npy of n scores, or an .npz that holds
            one array or one called "scores".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown kind, an argument that is missing or of another kind,
            or what the kind's own function refuses.
    """
    if kind not in HARD_KINDS:
        raise ValueError(
            f"got forget set {kind!r}, expected one of {', '.join(HARD_KINDS)}: choose "
            "one of these kinds"
        )
    train = dataset.splits.train
    if kind == "clustered":
        if file is not None:
            raise ValueError("forget set 'clustered' got 'file': leave it out")
        if label is not None and dataset.task != "classification":
            raise ValueError(
                f"forget set 'clustered' got label {label} in the {dataset.task} data "
                f"set {dataset.name!r}, which has no classes: leave the label out"
            )
        return clustered_set(train.inputs, size, labels=train.targets, label=label)
    if file is None or label is not None:
        raise ValueError(
            f"forget set {kind!r} needs 'size' and 'file' and takes no label: "
            f"{HARD_KINDS[kind]}"
        )
    scores = read_scores(file)
    if scores.shape != train.weights.shape:
        raise ValueError(
            f"score file {file} holds an array of shape {scores.shape}, expected one "
            f"score for each of {len(train.weights)} training examples: was it made "
            "for another data set?"
        )
    return (highest_set if kind == "highest" else lowest_set)(scores, size)


def read_scores(path: str | Path) -> np.ndarray:
    """Scores from an .npy, or from an .npz of one array or one called "scores".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix, or no such array inside.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"score file {path} does not exist, expected .npy or .npz: check the path"
        )
    if path.suffix.lower() not in (".npy", ".npz"):
        raise ValueError(f"score file {path} is no .npy or .npz: save it as one")
    try:
        # Opened here: NumPy leaves a broken archive open.
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            with found:
                names = list(found)
                return found[names[0] if len(names) == 1 else "scores"]
    except UNREADABLE as error:
        raise ValueError(
            f"score file {path} could not be read ({error}): write it with numpy.save"
        ) from error


def _exact_axes(centred: np.ndarray) -> np.ndarray:
    """Principal axes in columns, by falling variance, from the smaller Gram matrix."""
    n, f = centred.shape
    if f <= n:
        return np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    return np.linalg.svd(centred, full_matrices=False)[2].T


def _sketched_axes(centred: np.ndarray, rank: int) -> np.ndarray:
    """The first ``rank`` axes, by power iterations from random ones."""
    rank = min(rank, *centred.shape)
    axes = np.random.default_rng(0).normal(size=(centred.shape[1], rank))
    for _ in range(_POWERS):
        axes = np.linalg.qr(centred.T @ np.linalg.qr(centred @ axes)[0])[0]
    turn = np.linalg.svd(centred @ axes, full_matrices=False)[2].T
    return axes @ turn


def _last(scores: np.ndarray, count: int) -> np.ndarray:
    """Positions of the ``count`` largest; of equal ones the first."""
    return np.argsort(-scores, kind="stable")[:count]


def _count(size: int | float, able: int, most: int) -> int:
    """A size as a number of examples."""
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    part = not whole and 0 < size < 1
    count = max(1, round(float(size) * able)) if part else int(size) if whole else 0
    if not 1 <= count <= most:
        raise ValueError(
            f"got size {size} for {able} examples to choose from, expected a count "
            f"from 1 to {most} or a fraction between 0 and 1: change the size"
        )
    return count
