"""Decoded arrays kept on disk: written whole or not at all, read only if they fit."""

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def cached(
    folders: list[Path],
    file: str,
    *,
    dtype: Any,
    length: int,
    make: Callable[[], np.ndarray],
) -> np.ndarray:
    """The array kept as ``file`` in the first folder that has it, else ``make()``.

    A kept array of another dtype or length, or one that does not open, is made again.
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
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
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
    number, partial = tempfile.mkstemp(suffix=".tmp", prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(number, "wb") as stream:
            np.save(stream, array)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
