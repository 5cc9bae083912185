"""Write a file whole or not at all."""

import contextlib
import errno
import os
from pathlib import Path
from typing import NoReturn

_STORAGE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing there is not permitted",
    errno.EPERM: "writing there is not permitted",
}


class StorageError(OSError):
    """The place where results go cannot take them; says what, how large, and where."""


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that a reader sees the old file or the new one.

    The bytes go to a temporary file in the same folder (``.NAME.PID.tmp``), are forced
    to disk and then renamed: a process killed at any moment leaves no half-written file
    under the final name.

    Raises:
        StorageError: full disk, spent quota, read-only or forbidden folder. The
            temporary file is removed first, so nothing stays behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise_storage_error(path, len(data), error)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed process left in ``folder``."""
    for leftover in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def readable_bytes(count: int) -> str:
    """A size as people say it: ``1.5 MB`` (powers of ten)."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{size:.3g} {unit}"


def raise_storage_error(path: Path, size: int, error: OSError) -> NoReturn:
    """Raise one sentence if the place is to blame, else the error itself."""
    if error.errno not in _STORAGE:
        raise error
    raise StorageError(
        f"Could not write {path.name} ({readable_bytes(size)}) in {path.parent}: "
        f"{_STORAGE[error.errno]}. Free room (or choose another folder) and run the "
        "same command again: everything finished is kept."
    ) from error


def _sync_folder(folder: Path) -> None:
    """Force the renaming itself to disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
