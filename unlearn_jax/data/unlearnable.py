"""Images that teach nothing: each class behind a filter of its own (CUDA)."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from unlearn_jax.types import Array, Batch

AnyArray = Array | np.ndarray


class Filtered(NamedTuple):
    """Value: a training set whose images hide behind the filter of their class.

    Attributes:
        data: What a learner sees; targets and weights are as they were.
        indices: (s,) sorted int64, the images that were filtered.
    """

    data: Batch
    indices: Int[np.ndarray, " s"]


class Levels(NamedTuple):
    """Value: the pixels that 0 and 1 stand for, (channels,), in units of the inputs."""

    black: Float[np.ndarray, " c"]
    white: Float[np.ndarray, " c"]


def levels_of(batch: Batch) -> Levels:
    """The least and the largest pixel of each channel, of images that have weight.

    Raises:
        ValueError: the inputs are no images, or a channel has one value only.
    """
    images = _images(batch)[np.asarray(batch.weights) > 0]
    if not len(images):
        raise ValueError(
            "no image has weight, so nothing says what black and white are"
        )
    black, white = (f(images, axis=(0, 1, 2)) for f in (np.min, np.max))
    if not (white > black).all():
        raise ValueError(
            f"channel {int(np.argmin(white > black))} has the value {black.min():g} in "
            "every pixel, expected dark and light ones: give Levels"
        )
    return Levels(black, white)


def class_filters(
    classes: int, *, size: int = 3, bound: float = 0.3, seed: int = 0
) -> Float[np.ndarray, "classes k k"]:
    """One random filter for each class: entries below ``bound``, and one that is 1.

    Args:
        classes: How many.
        size: Pixels along a side of a filter, odd.
        bound: Entries are uniform between 0 and this.
        seed: The secret of whoever releases the data.

    Raises:
        ValueError: an even size, or a bound that is not positive.

    Source: Sadasivan et al. 2023, arXiv 2303.04278. As its code has it, the entry 1
        lies anywhere, so that a class is also shifted by up to (size − 1) / 2 pixels.
    """
    if classes < 1 or size < 1 or size % 2 == 0 or not bound > 0:
        raise ValueError(
            f"class_filters got {classes} classes, size {size} and bound {bound}, "
            "expected at least 1, an odd size and a positive bound"
        )
    random = np.random.default_rng(seed)
    filters = random.uniform(0, bound, (classes, size * size))
    filters[np.arange(classes), random.integers(size * size, size=classes)] = 1.0
    return filters.reshape(classes, size, size)


def filter_images(
    batch: Batch,
    filters: Float[np.ndarray, "classes k k"],
    *,
    share: float = 1.0,
    levels: Levels | None = None,
    steps: int | None = 255,
    seed: int = 0,
) -> Filtered:
    """Each image x of class y becomes (x ∗ filters[y]) / max(x ∗ filters[y]).

    The same filter in every channel, zeros beyond the border, and the maximum over the
    image and its channels; all in pixels between black (0) and white (1).

    Args:
        batch: Images (n, height, width, channels) with class labels.
        filters: From :func:`class_filters`.
        share: Of the images; each is filtered with this probability.
        levels: What black and white are; None takes :func:`levels_of` the batch.
        steps: Grey levels that pixels are rounded to, as in files of 8 bits; None keeps
            what the filter gives.
        seed: Draws which images are filtered where ``share`` is below 1.

    Raises:
        ValueError: no images, labels without a filter, pixels below black, a share
            outside (0, 1].

    Cost: k² passes over the images, in numpy; memory of two copies.
    Source: Sadasivan et al. 2023, arXiv 2303.04278 (CUDA), with the rounding of its
        code.
    """
    images, labels = _images(batch), np.asarray(batch.targets)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"filter_images got {labels.dtype} targets of shape {labels.shape}, "
            "expected one class index for each image"
        )
    there = np.asarray(batch.weights) > 0
    wrong = labels[there & ((labels < 0) | (labels >= len(filters)))]
    if wrong.size:
        raise ValueError(
            f"there are {len(filters)} filters and an image of class {int(wrong[0])}: "
            "draw one filter for each class"
        )
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}, expected a number above 0, at most 1")
    levels = levels or levels_of(batch)
    drawn = np.random.default_rng(seed).uniform(size=len(labels)) < share
    chosen = np.flatnonzero(drawn & there)
    released = np.array(images)
    pixels = to_pixels(images[chosen], levels)
    for label in np.unique(labels[chosen]):
        own = labels[chosen] == label
        seen = brightest_is_one(convolved(pixels[own], filters[label]))
        seen = seen if steps is None else np.round(seen * steps) / steps
        released[chosen[own]] = from_pixels(seen, levels)
    return Filtered(batch._replace(inputs=released), chosen)


def convolved(
    images: Float[AnyArray, "n h w c"], kernel: Float[AnyArray, "k k"]
) -> Float[np.ndarray, "n h w c"]:
    """Σ_ab kernel[a, b] image[row + a − r, column + b − r], r = (k − 1) / 2.

    Zeros beyond the border; every channel alike.
    """
    reach = (len(kernel) - 1) // 2
    border = [(0, 0), (reach, reach), (reach, reach), (0, 0)]
    padded = np.pad(np.asarray(images, np.float64), border)
    _, height, width, _ = np.shape(images)
    shifted = [
        weight * padded[:, a : a + height, b : b + width]
        for (a, b), weight in np.ndenumerate(np.asarray(kernel))
    ]
    return np.sum(shifted, axis=0)


def to_pixels(
    images: Float[AnyArray, "n h w c"], levels: Levels
) -> Float[np.ndarray, "n h w c"]:
    """From units of the inputs to 0 for black and 1 for white, float64.

    Raises:
        ValueError: a pixel is darker than black: a filter would take light from it.
    """
    black, white = (np.asarray(level, np.float64) for level in levels)
    found = (np.asarray(images, np.float64) - black) / (white - black)
    # Inputs are float32 whatever the levels are.
    if found.size and found.min() < -1e-5:
        raise ValueError(
            f"a pixel is {found.min():.2g} where black is 0 and white 1; filters take "
            "pixels that are not negative: give the Levels of all images"
        )
    return np.maximum(found, 0.0)


def from_pixels(
    pixels: Float[np.ndarray, "n h w c"], levels: Levels
) -> Float[np.ndarray, "n h w c"]:
    """Back from :func:`to_pixels`."""
    return levels.black + pixels * (np.asarray(levels.white) - levels.black)


def brightest_is_one(
    pixels: Float[np.ndarray, "n h w c"],
) -> Float[np.ndarray, "n h w c"]:
    """Each image over its largest pixel; one that is black stays so."""
    most = pixels.max(axis=(1, 2, 3), keepdims=True)
    return pixels / np.where(most > 0, most, 1.0)


def _images(batch: Batch) -> Any:
    if batch.inputs.ndim != 4:
        raise ValueError(
            f"got inputs of shape {batch.inputs.shape}, expected images (n, height, "
            "width, channels): reshape them"
        )
    return np.asarray(batch.inputs)
