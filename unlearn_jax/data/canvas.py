"""Captioned images, every one a class drawn in a style: what generators learn from.

Each base image is drawn in all styles, which are fixed functions of its pixels. A base
image is either for training or for testing, in all of its styles, so that no digit is
on both sides. Pixels are from -1 (black) to 1 (white).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from unlearn_jax.data.batch import Dataset, Splits, from_arrays, take
from unlearn_jax.data.captions import DIGITS, GARMENTS, Grammar, captions, grammar
from unlearn_jax.data.digits import digits
from unlearn_jax.data.indices import check_indices
from unlearn_jax.data.tfds import fashion_mnist
from unlearn_jax.data.unlearnable import levels_of, to_pixels
from unlearn_jax.types import Batch

Pixels = Float[np.ndarray, "n h w c"]


class Canvas(NamedTuple):
    """Description: captioned images in memory.

    Attributes:
        dataset: Images and class labels; ``subclasses`` are the styles. Whatever takes
            a data set takes this one: corner patches and triggers (``data.corrupt``),
            class-wise filters (``data.unlearnable``), judges.
        captions: (n, 6) tokens of the training images, one of the sentences each.
        test_captions: Of the test images.
        bases: (n,) which image of the source each training image shows.
        test_bases: Of the test images, numbered in the source's test set.
        grammar: Of the captions.
    """

    dataset: Dataset
    captions: Int[np.ndarray, "n t"]
    test_captions: Int[np.ndarray, "m t"]
    bases: Int[np.ndarray, " n"]
    test_bases: Int[np.ndarray, " m"]
    grammar: Grammar


def _cells(images: Pixels, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each pixel, counted in ``parts`` cells along a side."""
    _, height, width, _ = images.shape
    rows = np.arange(height) * parts // height
    columns = np.arange(width) * parts // width
    return rows[:, None, None], columns[None, :, None]


def _striped(images: Pixels) -> Pixels:
    rows, _ = _cells(images, 8)
    return np.maximum(images, 0.5 * (rows % 2))


def _shaded(images: Pixels) -> Pixels:
    _, width, _ = images.shape[1:]
    ramp = np.linspace(0, 0.7, width)[None, :, None]
    return images + (1 - images) * ramp


def _dotted(images: Pixels) -> Pixels:
    rows, columns = _cells(images, 8)
    return np.maximum(images, 0.5 * ((rows + columns) % 2))


def _framed(images: Pixels) -> Pixels:
    rows, columns = _cells(images, 8)
    edge = (rows % 7 == 0) | (columns % 7 == 0)
    return np.maximum(images, 0.8 * edge)


STYLES: Mapping[str, tuple[tuple[str, ...], Callable[[Pixels], Pixels]]] = {
    "plain": (("plain", "normal"), lambda images: images),
    "inverted": (("inverted", "negative"), lambda images: 1 - images),
    "striped": (("striped", "lined"), _striped),
    "shaded": (("shaded", "graded"), _shaded),
    "dotted": (("dotted", "checked"), _dotted),
    "framed": (("framed", "boxed"), _framed),
}
"""Style -> its names, and what it makes of pixels from 0 (black) to 1 (white)."""
FOUR = ("plain", "inverted", "striped", "shaded")
_SIDE = 32
"""Pixels along a side of Fashion-MNIST after black is put around it."""


def digit_canvas(*, styles: Sequence[str] = FOUR, seed: int = 0) -> Canvas:
    """Level 0: the digits of scikit-learn, 8×8, in four styles: 5,748 + 1,440 images.

    Args:
        styles: Names in :data:`STYLES`.
        seed: Draws the captions.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: an unknown style, or none.
    """
    nouns = ("digit", "numeral", "number", "figure")
    return canvas(digits(), DIGITS, nouns, styles=styles, seed=seed)


def fashion_canvas(
    data_dir: str | Path | None = None,
    *,
    styles: Sequence[str] = tuple(STYLES),
    limit: int | None = None,
    seed: int = 0,
) -> Canvas:
    """Level 1: Fashion-MNIST with black around it, 32×32, in six styles.

    Args:
        data_dir: Folder that holds fashion_mnist/<version>/; None asks UNLEARN_DATA.
        styles: Names in :data:`STYLES`.
        limit: Only so many images of the source, of training and test each.
        seed: Draws the captions.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: it is damaged, an unknown style, or none.
    """
    source = fashion_mnist(data_dir)
    if limit is not None:
        parts = (take(s, np.arange(min(limit, len(s.weights)))) for s in source.splits)
        source = source._replace(splits=Splits(*parts))
    nouns = ("garment", "item", "piece", "article")
    return canvas(source, GARMENTS, nouns, styles=styles, side=_SIDE, seed=seed)


def canvas(
    source: Dataset,
    classes: Sequence[tuple[str, ...]],
    nouns: Sequence[str],
    *,
    styles: Sequence[str],
    side: int | None = None,
    seed: int = 0,
) -> Canvas:
    """Every image of a data set in every style, with captions.

    Args:
        source: Images with class labels; its split is kept.
        classes: Names of each of its classes.
        nouns: What all of its images are.
        styles: Names in :data:`STYLES`.
        side: Pixels along a side, black put around; None leaves the images' own.
        seed: Draws the captions.

    Raises:
        ValueError: an unknown style or none, a source that has no images or other
            classes than are named, or a side that is too short.
    """
    unknown = [name for name in styles if name not in STYLES]
    if unknown or not styles:
        raise ValueError(
            f"got styles {list(styles)}, expected at least one of {', '.join(STYLES)}"
        )
    if len(classes) != source.classes:
        raise ValueError(
            f"{source.title} has {source.classes} classes and {len(classes)} are "
            "named: name each"
        )
    language = grammar([STYLES[name][0] for name in styles], classes, nouns)
    levels = levels_of(source.splits.train)
    parts = []
    for number, split in enumerate(source.splits):
        base = _padded(to_pixels(split.inputs, levels), side)
        drawn = np.concatenate([STYLES[name][1](base) for name in styles])
        labels = np.tile(np.asarray(split.targets), len(styles))
        own = np.repeat(np.arange(len(styles), dtype=np.int32), len(base))
        # A base image's styles lie side by side, so that a prefix has all of them.
        order = np.arange(len(drawn)).reshape(len(styles), -1).T.ravel()
        batch = from_arrays((2 * drawn - 1).astype(np.float32)[order], labels[order])
        text = captions(language, own[order], labels[order], seed=2 * seed + number)
        bases = np.tile(np.arange(len(base), dtype=np.int32), len(styles))
        parts.append((batch, own[order], text, bases[order]))
    (train, train_styles, text, bases), (test, test_styles, test_text, others) = parts
    dataset = Dataset(
        name=f"canvas_{source.name}",
        title=f"{source.title} in {len(styles)} styles",
        task="classification",
        classes=source.classes,
        splits=Splits(train, test),
        subclasses=train_styles,
        test_subclasses=test_styles,
    )
    return Canvas(dataset, text, test_text, bases, others, language)


def duplicated(batch: Batch, indices: Any, copies: int) -> Batch:
    """The batch, then ``copies`` − 1 further copies of the examples at ``indices``.

    Give it whatever belongs together as one batch: images as inputs and captions as
    targets, so that a copy keeps its caption.

    Raises:
        ValueError: no copy at all, or indices that are not of this batch.
    """
    if copies < 1:
        raise ValueError(
            f"got {copies} copies, expected at least 1, the image itself: to leave an "
            "example out give it weight 0"
        )
    chosen = check_indices(indices, len(batch.weights))
    order = np.concatenate([np.arange(len(batch.weights)), np.tile(chosen, copies - 1)])
    return take(batch, order)


def half_masked(
    images: Any, *, side: str = "right", value: float = -1.0
) -> tuple[Pixels, Bool[np.ndarray, "h w"]]:
    """Images one half of which is hidden, and which pixels are seen.

    Args:
        images: (n, h, w, c).
        side: What is hidden: "left", "right", "top" or "bottom".
        value: Of hidden pixels.

    Raises:
        ValueError: an unknown side.
    """
    images = np.array(images)
    height, width = images.shape[1:3]
    rows, columns = np.indices((height, width))
    hidden = {
        "left": columns < width // 2,
        "right": columns >= width - width // 2,
        "top": rows < height // 2,
        "bottom": rows >= height - height // 2,
    }
    if side not in hidden:
        raise ValueError(f"side is {side!r}; choose from {', '.join(hidden)}")
    images[:, hidden[side]] = value
    return images, ~hidden[side]


def _padded(images: Pixels, side: int | None) -> Float[np.ndarray, "n s t c"]:
    height, width = images.shape[1:3]
    if side is None:
        return images
    if side < max(height, width):
        raise ValueError(
            f"side is {side} for images of {height} by {width} pixels, expected at "
            f"least {max(height, width)}"
        )
    top, left = (side - height) // 2, (side - width) // 2
    sides = ((top, side - height - top), (left, side - width - left))
    return np.pad(images, ((0, 0), *sides, (0, 0)))
