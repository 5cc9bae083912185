"""Training sets with bad examples: wrong labels, confused classes, backdoors."""

from typing import Any, NamedTuple

import numpy as np

from unlearn_jax.data.indices import check_indices
from unlearn_jax.types import Batch


class Corrupted(NamedTuple):
    """Value: a training set in which some examples were manipulated.

    Attributes:
        data: What a learner sees; everything but the manipulated examples is as it was.
        indices: (s,) sorted int64, all manipulated examples.
        clean_targets: (n,) int32, the labels before.
    """

    data: Batch
    indices: np.ndarray
    clean_targets: np.ndarray


class Patch(NamedTuple):
    """Value: the square that triggers a backdoor.

    Attributes:
        value: (channels,) colour, in the units of the inputs.
        size: Pixels along a side.
        row: Of its upper left pixel.
        column: Of its upper left pixel.
    """

    value: np.ndarray
    size: int
    row: int
    column: int


def make_patch(
    batch: Batch, *, size: int = 3, row: int = -1, column: int = -1, value: Any = None
) -> Patch:
    """A patch that fits the images of a batch.

    Args:
        batch: Images (n, height, width, channels); make it from the training set and
            use the same one on the test set.
        size: Pixels along a side.
        row: Of the upper left pixel; −1 for the lowest that fits.
        column: Of the upper left pixel; −1 for the rightmost that fits.
        value: Colour, one number or one for each channel; None takes the largest value
            of each channel in the batch.

    Raises:
        ValueError: the inputs are no images, or the patch does not fit them.

    Source: the patch of Goel et al. 2024, arXiv 2402.14015: 3×3 pixels of the largest
        value, bottom right. As published by default.
    """
    shape = batch.inputs.shape
    if len(shape) != 4:
        raise ValueError(
            f"a patch got inputs of shape {shape}, expected images (n, height, width, "
            "channels): reshape them, or take 'confuse_classes'"
        )
    _, height, width, channels = shape
    row = height - size if row == -1 else row
    column = width - size if column == -1 else column
    fits = 0 <= row <= height - size and 0 <= column <= width - size
    if size < 1 or not fits:
        raise ValueError(
            f"a patch of side {size} at row {row}, column {column} does not fit images "
            f"of {height} by {width} pixels: make it smaller or move it"
        )
    present = np.asarray(batch.inputs)[np.asarray(batch.weights) > 0]
    if value is None:
        value = present.max(axis=(0, 1, 2))
    colour = np.broadcast_to(np.asarray(value, present.dtype), (channels,))
    return Patch(np.array(colour), size, row, column)


def with_patch(batch: Batch, patch: Patch, indices: Any = None) -> Batch:
    """The batch with the patch on the images at ``indices`` (None: on all).

    With all of a test set and its true labels this is where a backdoor shows.
    """
    inputs = np.array(batch.inputs)
    rows = slice(patch.row, patch.row + patch.size)
    columns = slice(patch.column, patch.column + patch.size)
    chosen = np.arange(len(inputs)) if indices is None else np.asarray(indices)
    inputs[chosen, rows, columns] = patch.value
    return batch._replace(inputs=inputs)


def poison(
    batch: Batch,
    size: int,
    patch: Patch,
    *,
    target: int = 0,
    spare_target: bool = True,
    seed: int = 0,
) -> Corrupted:
    """Backdoor: put the patch on random examples and call them ``target``.

    Args:
        batch: Images with class labels.
        size: Examples to manipulate.
        patch: From :func:`make_patch`.
        target: The label that the patch stands for.
        spare_target: Leave out examples that have this label anyway, so that every
            manipulated example is wrong.
        seed: Of the draw.

    Raises:
        ValueError: not so many examples to choose from.

    Source: Goel et al. 2024, arXiv 2402.14015. Differs: their code may choose examples
        of the target class too (``spare_target=False``).
    """
    labels = _labels(batch)
    able = _present(batch)
    if spare_target:
        able = able[labels[able] != target]
    chosen = _draw(able, size, seed, len(labels), "poison")
    wrong = labels.copy()
    wrong[chosen] = target
    data = with_patch(batch, patch, chosen)._replace(targets=wrong)
    return Corrupted(data, chosen, labels)


def confuse_classes(
    batch: Batch, size: int, first: int, second: int, *, seed: int | None = None
) -> Corrupted:
    """Interclass confusion: size/2 examples of each of two classes swap their labels.

    Args:
        batch: Examples with class labels.
        size: Examples to manipulate; even.
        first: One class.
        second: The other.
        seed: Draws them; None takes the first ones of each class.

    Raises:
        ValueError: an odd size, the same class twice, or too few examples of one.

    Source: Goel et al. 2022, arXiv 2201.06640; the benchmark of Goel et al. 2024,
        arXiv 2402.14015, takes the first ones. As published with ``seed=None``.
    """
    if size < 2 or size % 2 or first == second:
        raise ValueError(
            f"confuse_classes got size {size} and the classes {first} and {second}, "
            "expected an even size of at least 2 and two classes: change them"
        )
    labels, able = _labels(batch), _present(batch)
    parts = []
    for number, label in enumerate((first, second)):
        own = able[labels[able] == label]
        if len(own) < size // 2:
            raise ValueError(
                f"confuse_classes got size {size}, but class {label} has {len(own)} "
                f"examples only: take at most {2 * len(own)}"
            )
        if seed is not None:
            own = np.random.default_rng([seed, number]).permutation(own)
        parts.append(own[: size // 2])
    wrong = labels.copy()
    wrong[parts[0]], wrong[parts[1]] = second, first
    chosen = check_indices(np.concatenate(parts), len(labels))
    return Corrupted(batch._replace(targets=wrong), chosen, labels)


def mislabel(batch: Batch, size: int, *, classes: int, seed: int = 0) -> Corrupted:
    """Random examples get a wrong label, each wrong one equally likely.

    Args:
        batch: Examples with class labels.
        size: Examples to manipulate.
        classes: How many labels there are.
        seed: Of the draw.

    Raises:
        ValueError: not so many examples, or fewer than two classes.
    """
    if classes < 2:
        raise ValueError(
            f"mislabel got {classes} classes, expected at least 2: with fewer there is "
            "no wrong label"
        )
    labels = _labels(batch)
    chosen = _draw(_present(batch), size, seed, len(labels), "mislabel")
    shift = np.random.default_rng([seed, 1]).integers(1, classes, len(chosen))
    wrong = labels.copy()
    wrong[chosen] = (labels[chosen] + shift) % classes
    return Corrupted(batch._replace(targets=wrong), chosen, labels)


def known_part(indices: Any, fraction: float, *, seed: int = 0) -> np.ndarray:
    """The part of the manipulated examples that was found: sorted, at least one.

    Of two fractions with one seed the smaller part lies within the larger, so that a
    curve over fractions adds examples and exchanges none.

    Raises:
        ValueError: nothing to choose from, or a fraction outside (0, 1].
    """
    indices = np.asarray(indices)
    if not indices.size or not 0 < fraction <= 1:
        raise ValueError(
            f"known_part got {indices.size} indices and the fraction {fraction}, "
            "expected at least one index and 0 < fraction <= 1: change them"
        )
    drawn = np.random.default_rng(seed).permutation(np.sort(indices))
    return np.sort(drawn[: max(1, round(fraction * len(drawn)))])


def _labels(batch: Batch) -> np.ndarray:
    labels = np.array(batch.targets)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"got {labels.dtype} targets of shape {labels.shape}, expected one class "
            "index for each example: labels can be wrong in classification only"
        )
    return labels.astype(np.int32)


def _present(batch: Batch) -> np.ndarray:
    return np.flatnonzero(np.asarray(batch.weights) > 0)


def _draw(able: np.ndarray, size: int, seed: int, n: int, name: str) -> np.ndarray:
    if not 1 <= size <= len(able):
        raise ValueError(
            f"{name} got size {size}, expected 1 to {len(able)}, the examples that it "
            "may choose from: change the size"
        )
    return check_indices(np.random.default_rng(seed).permutation(able)[:size], n)
