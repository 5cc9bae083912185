"""Any prepared image set of TensorFlow Datasets, read without TensorFlow.

Sets are read from disk only; nothing is downloaded or prepared here. Images become
float32 (n, height, width, channels), divided by 255 and standardised by the mean and
the standard deviation of each channel written below (of the published training sets).
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_jax.data.array_cache import cached, user_cache
from unlearn_jax.data.batch import Dataset, Splits, from_arrays
from unlearn_jax.data.checks import check
from unlearn_jax.data.prepared import Prepared, find_prepared

FASHION_MNIST_MEAN, FASHION_MNIST_STD = (0.2860,), (0.3530,)
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

FASHION_GROUPS = {
    "tops": (0, 2, 4, 6),  # T-shirt, pullover, coat, shirt
    "trousers": (1,),
    "dresses": (3,),
    "shoes": (5, 7, 9),  # sandal, sneaker, ankle boot
    "bags": (8,),
}
"""Coarse class, by its place here -> classes of Fashion-MNIST."""

_BLOCK = 4096


def fashion_mnist(data_dir: str | Path | None = None) -> Dataset:
    """Fashion-MNIST: 60,000 + 10,000 images of clothes, 28×28×1, ten classes.

    Args:
        data_dir: Folder that holds fashion_mnist/<version>/; None asks UNLEARN_DATA.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: it is there but damaged.
    """
    splits = load_images(
        "fashion_mnist", data_dir, mean=FASHION_MNIST_MEAN, std=FASHION_MNIST_STD
    )
    return Dataset("fashion_mnist", "Fashion-MNIST", "classification", 10, splits)


def fashion_mnist_coarse(data_dir: str | Path | None = None) -> Dataset:
    """Fashion-MNIST in five classes (``FASHION_GROUPS``); sub-class = original class.

    Args and errors as ``fashion_mnist``.
    """
    fine = fashion_mnist(data_dir)
    coarse = np.zeros(10, np.int32)
    for group, members in enumerate(FASHION_GROUPS.values()):
        coarse[list(members)] = group
    labels = [np.asarray(split.targets) for split in fine.splits]
    train, test = (
        split._replace(targets=from_arrays(split.inputs, coarse[y]).targets)
        for split, y in zip(fine.splits, labels, strict=True)
    )
    return Dataset(
        name="fashion_mnist_coarse",
        title="Fashion-MNIST in five groups",
        task="classification",
        classes=len(FASHION_GROUPS),
        splits=Splits(train, test),
        subclasses=labels[0],
        test_subclasses=labels[1],
    )


def cifar10(data_dir: str | Path | None = None) -> Dataset:
    """CIFAR-10: 50,000 + 10,000 colour images, 32×32×3, ten classes.

    A set prepared from lossy copies is titled "CIFAR-10 (JPEG)": its numbers are not
    those of CIFAR-10.

    Args:
        data_dir: Folder that holds cifar10/<version>/; None asks UNLEARN_DATA.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: it is there but damaged.
    """
    title = "CIFAR-10 (JPEG)" if find_prepared("cifar10", data_dir).jpeg else "CIFAR-10"
    splits = load_images("cifar10", data_dir, mean=CIFAR10_MEAN, std=CIFAR10_STD)
    return Dataset("cifar10", title, "classification", 10, splits)


def load_images(
    name: str,
    data_dir: str | Path | None,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Splits:
    """Train and test split of any prepared set with an "image" and a "label".

    The first start decodes every image and keeps the bytes as one .npy per split, in
    ``unlearn_jax_cache/`` inside the data folder or, where that is read-only, in the
    user's cache folder; later starts read these.

    Args:
        name: The set's name in TensorFlow Datasets.
        data_dir: Folder that holds ``<name>/<version>/``; None asks UNLEARN_DATA.
        mean: One per channel, of pixels between 0 and 1.
        std: One per channel, of pixels between 0 and 1.

    Returns:
        Splits of numpy arrays in the order of the files.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: it is damaged, or has another number of channels than ``mean``.
    """
    prepared = find_prepared(name, data_dir)
    channels = prepared.shape[-1]
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"{name}: got {len(mean)} means and {len(std)} standard deviations, "
            f"expected {channels}: give one for each channel"
        )
    kept = Path(prepared.name) / prepared.version
    folders = [prepared.root / "unlearn_jax_cache" / kept, user_cache() / kept]
    dtype = np.dtype([("image", np.uint8, prepared.shape), ("label", np.int32)])
    batches = []
    for split in ("train", "test"):
        examples = cached(
            folders,
            f"{split}-{prepared.fingerprint}.npy",
            dtype=dtype,
            length=prepared.lengths[split],
            make=lambda split=split: _decode(prepared, split, dtype),
        )
        images = _standardised(examples["image"], mean, std)
        batch = from_arrays(images, np.ascontiguousarray(examples["label"]))
        # Bytes are always finite: one pixel of each image stands for all.
        check(
            batch._replace(inputs=images[:, :1, :1]),
            task="classification",
            classes=prepared.classes,
            name=f"{name} {split}",
        )
        batches.append(batch)
    return Splits(*batches)


def _standardised(
    images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]
) -> np.ndarray:
    """(uint8 / 255 - mean) / std as float32, in blocks that stay in the cache."""
    pixels = images.shape[1] * images.shape[2]
    scale = np.tile(1 / (255 * np.asarray(std)), pixels).astype(np.float32)
    shift = np.tile(np.asarray(mean) / np.asarray(std), pixels).astype(np.float32)
    flat = images.reshape(len(images), -1)
    out = np.empty(flat.shape, np.float32)
    for start in range(0, len(out), 64):
        block = out[start : start + 64]
        np.multiply(flat[start : start + 64], scale[None], out=block, dtype=np.float32)
        block -= shift[None]
    return out.reshape(images.shape)


def _decode(prepared: Prepared, split: str, dtype: np.dtype) -> np.ndarray:
    """Every example of a split: structured array of uint8 images and int32 labels.

    Pillow decodes, whatever else is installed: pixels of lossy images then do not
    depend on which decoder TensorFlow Datasets finds.
    """
    import tensorflow_datasets as tfds
    from PIL import Image

    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(prepared.shape[-1])
    if mode is None:
        raise ValueError(
            f"{prepared.name}: got images of {prepared.shape[-1]} channels, expected "
            "1, 3 or 4: prepare the set with one of these"
        )
    source: Any = tfds.data_source(
        f"{prepared.name}:{prepared.version}",
        data_dir=str(prepared.root),
        split=split,
        download=False,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    examples = np.empty(len(source), dtype)
    try:
        for start in range(0, len(source), _BLOCK):
            rows = range(start, min(start + _BLOCK, len(source)))
            for row, example in zip(rows, source.__getitems__(rows), strict=True):
                with Image.open(BytesIO(example["image"])) as image:
                    pixels = np.asarray(image.convert(mode))
                examples["image"][row] = pixels.reshape(prepared.shape)
                examples["label"][row] = example["label"]
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"prepared set {prepared.folder} is damaged: its {split} examples do not "
            f"decode ({error}); copy the whole folder again or prepare it anew"
        ) from error
    return examples
