"""Faces with names: 40 people, ten photographs each; forget a person.

Read from a local file ``orl_faces.npz``, never downloaded: ``images`` uint8 (n, 112,
92) and ``identity`` integers (n,). Each block of 4×4 pixels is averaged, so that
images are 28×23×1; pixels are divided by 255, then standardised by the mean and the
standard deviation of all training pixels. The split is fixed: of each person three
photographs in ten, drawn with a fixed seed, are test images: 280 train, 120 test. The
target is the person, so forgetting one is a request for a class.
"""

import os
import zipfile
from pathlib import Path

import numpy as np

from unlearn_jax.data.batch import Dataset, Splits, from_arrays
from unlearn_jax.data.prepared import DATA_VARIABLE

FILE = "orl_faces.npz"
BLOCK = 4
"""Pixels along a side that are averaged into one."""
CIRCLE = 5
"""People of one circle: the coarse class is the person's number over this, cut."""
_SPLIT_SEED = 0
_TEST_SHARE = 0.3


def faces(data_dir: str | Path | None = None) -> Dataset:
    """ORL faces: who is it?

    Args:
        data_dir: Folder that holds the file, or whose parent does; None asks
            UNLEARN_DATA.

    Returns:
        Dataset "faces"; inputs float32 (n, 28, 23, 1), targets int32.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it is there but holds something else.

    Source: Samaria & Harter 1994, Olivetti Research Laboratory.
    """
    path = find_faces(data_dir)
    images, people = _read(path)
    small = shrunk(images, BLOCK) / np.float32(255)
    train, test = _split(people)
    mean = small[train].mean(dtype=np.float64)
    std = small[train].std(dtype=np.float64)
    if not std > 0:
        raise ValueError(f"{path}: all pixels are the same, expected photographs")
    inputs = ((small - mean) / std).astype(np.float32)[..., None]
    return Dataset(
        name="faces",
        title="ORL faces",
        task="classification",
        classes=int(people.max()) + 1,
        splits=Splits(
            from_arrays(inputs[train], people[train]),
            from_arrays(inputs[test], people[test]),
        ),
    )


def faces_coarse(data_dir: str | Path | None = None) -> Dataset:
    """The same photographs: to which circle of five does this person belong?

    The person is the finer class, so that "sub_class:3,8,13" forgets people while the
    task stays. The circles follow the numbers: they mean nothing, and who was never
    seen can only be guessed.

    Args:
        data_dir: As for :func:`faces`.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it is there but holds something else, or a single circle.
    """
    dataset = faces(data_dir)
    circles = -(-dataset.classes // CIRCLE)
    if circles < 2:
        raise ValueError(
            f"{dataset.title} has {dataset.classes} people, a single circle of "
            f"{CIRCLE}: expected two circles to tell apart, take 'faces'"
        )
    people = [np.asarray(split.targets) for split in dataset.splits]
    return dataset._replace(
        name="faces_coarse",
        title=f"ORL faces in circles of {CIRCLE}",
        classes=circles,
        splits=Splits(
            *(
                from_arrays(split.inputs, own // CIRCLE)
                for split, own in zip(dataset.splits, people, strict=True)
            )
        ),
        subclasses=people[0],
        test_subclasses=people[1],
    )


def missing(data_dir: str | Path | None) -> str | None:
    """What keeps the faces from being read here and now; None when nothing does."""
    try:
        find_faces(data_dir)
    except FileNotFoundError as error:
        return str(error)
    return None


def find_faces(data_dir: str | Path | None) -> Path:
    """The file, in the folder or beside it.

    Raises:
        FileNotFoundError: no folder was named, or the file is in neither place.
    """
    chosen = data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE)
    reason = "no folder was named to look in"
    if chosen:
        root = Path(chosen).expanduser()
        for folder in (root, root.resolve().parent):
            if (folder / FILE).is_file():
                return folder / FILE
        reason = f"neither {root} nor its parent holds it"
    raise FileNotFoundError(
        f"data set 'faces' is not on disk ({reason}): name the folder that holds "
        f"{FILE} with --data.dir or the environment variable {DATA_VARIABLE}; it is an "
        "npz of images, uint8 (n, 112, 92), and identity, integers (n,)"
    )


def shrunk(images: np.ndarray, block: int) -> np.ndarray:
    """Means of block × block pixels, float32; what is left over at the edge is cut."""
    height, width = (size // block * block for size in images.shape[1:])
    n = len(images)
    parts = images[:, :height, :width].reshape(
        n, height // block, block, width // block, block
    )
    return parts.mean(axis=(2, 4), dtype=np.float32)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, people = arrays["images"], arrays["identity"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} could not be read ({error}): expected an npz of 'images' and "
            "'identity', copy it again"
        ) from error
    fits = images.ndim == 3 and images.dtype == np.uint8 and min(images.shape) >= BLOCK
    if not fits or people.shape != (len(images),) or people.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: got images {images.dtype} {images.shape} and identity "
            f"{people.dtype} {people.shape}, expected uint8 (n, height, width) and "
            "integers (n,): copy the file again"
        )
    counts = np.bincount(people) if people.min() >= 0 else np.zeros(1)
    if counts.min() < 2:
        raise ValueError(
            f"{path}: expected people numbered from 0 with at least two images each: "
            "renumber them"
        )
    return images, people.astype(np.int32)


def _split(people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Train and test indices; every person has at least one of each."""
    random = np.random.Generator(np.random.PCG64(_SPLIT_SEED))
    test = []
    for person in range(int(people.max()) + 1):
        own = random.permutation(np.flatnonzero(people == person))
        test.append(own[: min(max(1, round(_TEST_SHARE * len(own))), len(own) - 1)])
    held_out = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(len(people)), held_out), held_out
