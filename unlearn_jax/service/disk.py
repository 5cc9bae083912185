"""What must be on the disk before the next step: files, folders, appended lines."""

import os
import shutil
from pathlib import Path

from unlearn_jax.storage.write import raise_storage_error


class ServiceError(RuntimeError):
    """The service cannot go on; says why, names the file, and says what to do."""


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to disk.

    Raises:
        StorageError: the disk is full or does not take it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise_storage_error(path, 0, error)


def sync_tree(folder: Path) -> None:
    """Force a folder to disk: every file below it, every folder, its own name last."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)
    sync(folder.parent)


def make_private(folder: Path) -> None:
    """Keep a folder and all below it from everybody but its owner: 0700 and 0600.

    Raises:
        StorageError: it belongs to somebody else.
    """
    for path in [folder, *folder.rglob("*")]:
        mode = 0o700 if path.is_dir() else 0o600
        try:
            if not path.is_symlink() and path.stat().st_mode & 0o777 != mode:
                path.chmod(mode)
        except OSError as error:
            raise_storage_error(path, 0, error)


def append(path: Path, line: bytes) -> None:
    """Add a line to a file and force it to disk.

    Raises:
        StorageError: the disk is full or not writable; part of the line may be there.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            rest = line
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise_storage_error(path, len(line), error)


def cut(path: Path, size: int) -> None:
    """Keep the first ``size`` bytes of a file, on disk."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise_storage_error(path, size, error)


def remove(path: Path) -> None:
    """Delete a file or a folder with all it holds; nothing there is fine too."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise_storage_error(path, 0, error)
