"""Lists of indices: check them, read and write .npy, .npz, .txt and .json."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_jax.storage.write import write_bytes

UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,
    EOFError,
    MemoryError,
    OverflowError,
    RecursionError,
    zipfile.BadZipFile,
)
"""What reading a file or a word raises that is broken, too large or nested too deep."""

_FORMATS = ".npy, .npz, .txt or .json"


def check_indices(indices: Any, n: int) -> np.ndarray:
    """Sorted int64 copy of indices that make a forget set of ``n`` examples.

    Raises:
        ValueError: empty, not integers, out of range, duplicates, or all ``n``.
    """
    indices = np.asarray(indices)
    if indices.size == 0:
        raise ValueError(
            "the forget set is empty, expected at least one index: choose another "
            "label, size or file"
        )
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            f"the forget set is {indices.dtype} of shape {indices.shape}, expected a "
            "list of integers: turn a mask into indices with numpy.flatnonzero"
        )
    wrong = indices[(indices < 0) | (indices >= n)]
    if wrong.size:
        raise ValueError(
            f"the forget set holds index {int(wrong[0])}, expected indices from 0 to "
            f"{n - 1}: was it drawn for another data set?"
        )
    unique, counts = np.unique(indices.astype(np.int64), return_counts=True)
    if unique.size < indices.size:
        first = int(np.argmax(counts > 1))
        raise ValueError(
            f"the forget set holds index {int(unique[first])} {int(counts[first])} "
            "times, expected each index once: remove the duplicates with numpy.unique"
        )
    if unique.size == n:
        raise ValueError(
            f"the forget set holds all {n} training examples, expected some to retain: "
            "forget fewer, there is nothing to learn from otherwise"
        )
    return unique


def read_indices(path: Path) -> np.ndarray:
    """The indices as the file holds them, in its order.

    An .npz holds one array, or one called "indices"; a .txt one integer per line; a
    .json a list, or an object with a list called "indices".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix, or no list of integers inside.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"index file {path} does not exist, expected {_FORMATS}: check the path"
        )
    suffix = _suffix(path)
    try:
        indices = np.asarray(_READERS[suffix](path))
    except UNREADABLE as error:
        raise ValueError(
            f"index file {path} could not be read as {suffix} ({error}): expected a "
            "list of integers, write it with save_indices"
        ) from error
    if indices.size == 0:
        return np.zeros(0, np.int64)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            f"index file {path} holds {indices.dtype} of shape {indices.shape}, "
            "expected a list of integers: write it with save_indices"
        )
    return indices


def save_indices(path: str | Path, indices: Any) -> Path:
    """Write a list of integers in the format of the path's suffix, atomically.

    Args:
        path: Ends in .npy, .npz, .txt or .json; folders are made.
        indices: Integers, shape (s,).

    Returns:
        The path written.

    Raises:
        ValueError: another suffix, or not a list of integers.
        StorageError: the folder cannot take the file.
    """
    path, indices = Path(path), np.asarray(indices)
    suffix = _suffix(path)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            f"save_indices got {indices.dtype} of shape {indices.shape}, expected a "
            "list of integers: turn a mask into indices with numpy.flatnonzero"
        )
    stream = io.BytesIO()
    if suffix == ".npy":
        np.save(stream, indices, allow_pickle=False)
    elif suffix == ".npz":
        np.savez(stream, allow_pickle=False, indices=indices)
    elif suffix == ".txt":
        stream.write("".join(f"{index}\n" for index in indices).encode())
    else:
        stream.write(json.dumps([int(index) for index in indices]).encode())
    write_bytes(path, stream.getvalue())
    return path


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise ValueError(
            f"index file {path} ends in {suffix!r}, expected {_FORMATS}: rename it"
        )
    return suffix


def _read_npy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def _read_npz(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as arrays:
        names = list(arrays)
        return arrays[names[0] if len(names) == 1 else "indices"]


def _read_txt(path: Path) -> Any:
    return [int(word) for word in path.read_text(encoding="utf-8").split()]


def _read_json(path: Path) -> Any:
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["indices"] if isinstance(content, dict) else content


_READERS = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".txt": _read_txt,
    ".json": _read_json,
}
