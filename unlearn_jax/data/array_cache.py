"""Decoded arrays kept on disk: written whole or not at all, read only if they fit."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_jax.data.indices import UNREADABLE
from unlearn_jax.storage.checksum import append_seal, check_sealed
from unlearn_jax.storage.write import create, temporary_path


def cached(
    folders: list[Path],
    file: str,
    *,
    dtype: Any,
    length: int,
    make: Callable[[], np.ndarray],
) -> np.ndarray:
    """The array kept as ``file`` in the first folder that has it, else ``make()``.

    A kept array of another dtype or length, or one whose checksum does not match, is
    made again.
    What is made is written to the first folder that can be written to; when there is
    none, a warning says so and the array is returned all the same.

    Args:
        folders: Where to look and where to write, in order of preference.
        file: Ends in .npy.
        dtype: What every entry must be; may be a structured dtype.
        length: Number of entries, along the only axis.
        make: Called when no kept array fits.

    Returns:
        Array of shape (length,).
    """
    for folder in folders:
        kept = _read(folder / file)
        if kept is not None and kept.dtype == dtype and kept.shape == (length,):
            return kept
    made = make()
    for folder in folders:
        if _writable(folder):
            try:
                _write(folder / file, made)
            except OSError:
                continue
            return made
    warnings.warn(
        f"decoded images could not be kept in any of "
        f"{', '.join(str(folder) for folder in folders)}: the next start decodes them "
        "again, set XDG_CACHE_HOME to a folder that can be written to",
        RuntimeWarning,
        stacklevel=2,
    )
    return made


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/unlearn_jax``, or ``~/.cache/unlearn_jax``."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "unlearn_jax"


def _read(path: Path) -> np.ndarray | None:
    try:
        with path.open("rb") as file:
            check_sealed(file)
            return np.load(file, allow_pickle=False)
    except (OSError, *UNREADABLE):  # a torn or foreign file is made again
        return None


def _writable(folder: Path) -> bool:
    """Whether the nearest existing folder allows it, by permission bits and by user.

    The bits count even for a super-user: a folder marked read-only is left alone.
    """
    while not folder.exists():
        folder = folder.parent
    return (
        folder.is_dir()
        and bool(folder.stat().st_mode & 0o222)
        and os.access(folder, os.W_OK)
    )


def _write(path: Path, array: np.ndarray) -> None:
    """Write beside the goal and rename: a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_path(path.parent)
    try:
        with os.fdopen(create(partial), "w+b") as file:
            np.save(file, array, allow_pickle=False)
            append_seal(file)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
