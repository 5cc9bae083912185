"""Inputs of another distribution, in the shape of those that a model knows."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from unlearn_jax.data import DATASETS
from unlearn_jax.data.digits import sklearn_table
from unlearn_jax.types import Array, Batch, PRNGKey

PHOTOS = "photos"
"""Cuts of the two photographs that ship inside scikit-learn."""


def foreign_names() -> tuple[str, ...]:
    """What :func:`foreign_images` knows."""
    tasks = DATASETS.items()
    return PHOTOS, *(name for name, one in tasks if one.task == "classification")


@functools.lru_cache(maxsize=8)
def foreign_images(
    name: str, shape: tuple[int, ...], count: int, folder: Path | None = None
) -> np.ndarray:
    """Images of another data set, brought to a shape.

    They are drawn by a fixed seed, averaged or stretched to height and width, mixed or
    repeated to the channels, and standardised by their own mean and standard deviation.

    Args:
        name: A data set of images in ``DATASETS``, or "photos".
        shape: Height, width and channels of one image.
        count: How many.
        folder: Of prepared sets; None asks UNLEARN_DATA.

    Returns:
        float32 (count, height, width, channels).

    Raises:
        ValueError: an unknown name, a shape of no image, a set that holds no images.
        FileNotFoundError: the set is not on disk.
        ImportError: scikit-learn is not installed.
    """
    if len(shape) != 3:
        raise ValueError(
            f"images of {name!r} were asked for in the shape {shape}, expected height, "
            "width and channels: take another kind of foreign inputs"
        )
    random = np.random.Generator(np.random.PCG64(0))
    whole = _photos(random, count) if name == PHOTOS else _set(name, folder)
    rows = random.choice(len(whole), count, replace=len(whole) < count)
    found = np.stack([_fit(whole[row], shape) for row in rows])
    return ((found - found.mean()) / max(found.std(), 1e-6)).astype(np.float32)


def marginals(key: PRNGKey, data: Batch, count: int) -> Array:
    """(count, ...) inputs whose numbers come each from an example of its own."""
    inputs = jnp.asarray(data.inputs)
    rows = inputs.reshape(len(inputs), -1)
    there = data.weights > 0
    chance = there / jnp.maximum(jnp.sum(there), 1)
    picked = jax.random.choice(key, len(rows), (count, rows.shape[1]), p=chance)
    drawn = jnp.take_along_axis(rows, picked, axis=0)
    return drawn.reshape(count, *inputs.shape[1:])


def _photos(random: np.random.Generator, count: int) -> list[np.ndarray]:
    """Square cuts, a sixteenth to a half of a photograph's height wide."""
    pictures = [np.asarray(one, np.float32) for one in _pictures()]
    cuts = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        height, width = picture.shape[:2]
        side = int(random.integers(height // 16, height // 2))
        top, left = (int(random.integers(0, end - side)) for end in (height, width))
        cuts.append(picture[top : top + side, left : left + side])
    return cuts


def _pictures() -> list[np.ndarray]:
    return sklearn_table("load_sample_images").images


def _set(name: str, folder: Path | None) -> np.ndarray:
    if name not in foreign_names():
        raise ValueError(
            f"there are no images of {name!r}; choose from {', '.join(foreign_names())}"
        )
    inputs = np.asarray(DATASETS[name].load(folder).splits.train.inputs, np.float32)
    if inputs.ndim != 4:
        raise ValueError(
            f"{name} holds inputs of shape {inputs.shape[1:]}, expected images: take "
            "another set"
        )
    return inputs


def _fit(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    height, width, channels = shape
    size, how = (width, height), Image.Resampling.BOX
    if height * width > image.shape[0] * image.shape[1]:
        how = Image.Resampling.BILINEAR
    planes = [
        np.asarray(Image.fromarray(image[..., c]).resize(size, how))
        for c in range(image.shape[-1])
    ]
    if channels < len(planes):
        planes = [np.mean(planes, axis=0)] * channels
    return np.stack([planes[c % len(planes)] for c in range(channels)], axis=-1)
