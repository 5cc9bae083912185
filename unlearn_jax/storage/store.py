"""Pieces of a run that survive a kill: the same command goes on where it was."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearn_jax.storage.names import file_name
from unlearn_jax.storage.piece import Piece, PieceError, pack, unpack
from unlearn_jax.storage.write import (
    private_folder,
    raise_storage_error,
    remove_leftovers,
    write_bytes,
)


class BusyError(RuntimeError):
    """Another process is writing the same run."""


class Store:
    """The finished pieces of one run, a file each, under ``FOLDER/pieces``.

    A piece file is an ordinary ``.npz`` (numpy opens it as it is) followed by its
    SHA-256. It appears under its name only when it is complete and on disk. While a
    store is open its folder is locked; the system frees the lock when the process ends,
    however it ends.

    Args:
        folder: Of the run.
        private: The pieces hold rows of people's data: the folder and what is in it
            are for its owner alone.

    Raises:
        BusyError: another process holds the folder.
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, private: bool = False):
        self.folder = Path(folder)
        self._pieces = self.folder / "pieces"
        self._private = private
        if private:
            private_folder(self.folder)
        self._lock = _lock(self.folder)
        remove_leftovers(self.folder)
        remove_leftovers(self._pieces)

    def has(self, name: str) -> bool:
        """Whether the piece was finished."""
        return self.path(name).is_file()

    def save(
        self,
        name: str,
        arrays: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a finished piece; an older one of that name is replaced.

        Args:
            name: Any text; ``original/seed-0`` is fine.
            arrays: By name; anything ``np.asarray`` takes but objects.
            data: What JSON holds (plus nan and inf); tuples come back as lists.

        Raises:
            StorageError: the disk cannot take it.
        """
        content = pack(Piece(dict(arrays or {}), dict(data or {})))
        write_bytes(self.path(name), content, private=self._private)

    def load(self, name: str) -> Piece:
        """Read a piece back, bit for bit.

        Raises:
            KeyError: it was never finished.
            PieceError: the file is truncated or garbled.
        """
        path = self.path(name)
        if not path.is_file():
            raise KeyError(f"no finished piece {name!r} in {self.folder}")
        try:
            return unpack(path.read_bytes())
        except ValueError as error:
            raise PieceError(
                f"{path} is damaged ({error}). Delete that file and run the same "
                "command again: just this piece is computed anew."
            ) from None

    def path(self, name: str) -> Path:
        """The file of a piece; different names never share one."""
        if not name:
            raise ValueError("a piece needs a name")
        return self._pieces / f"{file_name(name)}.npz"

    def close(self) -> None:
        """Free the lock; nothing else is pending, every save is already on disk."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _lock(folder: Path) -> int | None:
    try:
        import fcntl
    except ImportError:  # not a Unix system: nothing to lock with
        return None
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise_storage_error(path, 0, error)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BusyError(
            f"Another process is writing {folder}. Wait until it has finished, or stop "
            "it and run the same command again: everything finished is kept."
        ) from None
    except OSError as error:
        warnings.warn(
            f"{folder} cannot be locked ({error.strerror}): see to it yourself that "
            "only one process writes there.",
            stacklevel=3,
        )
    return descriptor
