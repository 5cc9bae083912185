"""Write a file whole or not at all; temporary names that are nobody else's."""

import contextlib
import errno
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import NoReturn

_STORAGE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing there is not permitted",
    errno.EPERM: "writing there is not permitted",
    errno.EEXIST: "a file of that name is in the way",
    errno.ENOTDIR: "a part of that path is a file",
}
_TEMPORARY = re.compile(r"\.unlearn-(.*-)?[0-9a-f]{16}\.tmp", re.DOTALL)


class StorageError(OSError):
    """The place where results go cannot take them; says what, how large, and where."""


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replace ``path`` by ``data`` so that a reader sees the old file or the new one.

    The bytes go to a temporary file in the same folder (:func:`temporary_path`), are
    forced to disk and then renamed: a process killed at any moment leaves no
    half-written file under the final name.

    Args:
        path: File to write; its folder is made where it is missing.
        data: Its whole content.
        private: It holds rows of people's data: readable for its owner alone (0600).

    Raises:
        StorageError: full disk, spent quota, read-only or forbidden folder. The
            temporary file is removed first, so nothing stays behind.
    """
    temporary = temporary_path(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(create(temporary, private=private), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise_storage_error(path, len(data), error)


def temporary_path(folder: Path, label: str = "") -> Path:
    """A path in ``folder`` that is neither there nor anybody's: hidden, and drawn.

    Args:
        folder: Where the finished thing will lie, so that renaming is enough.
        label: Part of the name, by which its maker finds it again after a kill.
    """
    label = f"{label}-" if label else ""
    return folder / f".unlearn-{label}{secrets.token_hex(8)}.tmp"


def create(path: Path, *, private: bool = False) -> int:
    """Descriptor of a new empty file for writing; never one that is there already.

    Raises:
        FileExistsError: something has that name, were it a link to nowhere.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags, 0o600 if private else 0o666)


def private_folder(path: Path) -> None:
    """Make a folder that its owner alone can enter (0700), or close one that is there.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise_storage_error(path, 0, error)


def remove_leftovers(folder: Path, label: str = "") -> None:
    """Delete the temporary files and folders that killed processes left in ``folder``.

    Args:
        folder: Where to look; nothing there is fine too.
        label: Only those that were made with it; "" takes all of ours.
    """
    start = f".unlearn-{label}-" if label else ".unlearn-"
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(folder):
            if name.startswith(start) and _TEMPORARY.fullmatch(name):
                remove(folder / name)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all in it, as far as the system allows."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


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


def sync_folder(folder: Path) -> None:
    """Force the renaming itself to disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
