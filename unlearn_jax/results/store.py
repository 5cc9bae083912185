"""Pieces of a run that survive a kill: the same command goes on where it was."""

import contextlib
import os
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unlearn_jax.results.record import RECORDS_FILE, RecordError
from unlearn_jax.results.run import Run, read_run, write_run
from unlearn_jax.storage.names import file_name
from unlearn_jax.storage.piece import Piece, PieceError, pack, unpack
from unlearn_jax.storage.write import (
    private_folder,
    raise_storage_error,
    remove_leftovers,
    write_bytes,
)

_IDENTITY = "this run"
"""Piece that tells of which run the pieces are, should ``run.json`` be damaged."""


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


def run_folder(root: Path, run: Run) -> Path:
    """``ROOT/EXPERIMENT/ID``."""
    return Path(root) / run.experiment / run.id


def find_unfinished(root: Path, run: Run) -> Path | None:
    """The latest run of the same configuration, inputs and code that never finished.

    Args:
        root: Folder of all results.
        run: What is to be run, from ``new_run``.

    Returns:
        Its folder, or None. Finished means that ``run.json`` names the seconds taken
        and the records lie beside it. The digits in a folder's name only find it; what
        decides is the whole configuration, kept in ``run.json`` and once more as a
        piece.
    """
    folders = (Path(root) / run.experiment).glob(f"*-{run.config_hash}")
    for folder in sorted(folders, key=lambda path: path.name, reverse=True):
        if folder.is_dir() and _goes_on(folder, run):
            return folder
    return None


def _goes_on(folder: Path, run: Run) -> bool:
    try:
        told = read_run(folder)
        if told.seconds is not None and (folder / RECORDS_FILE).is_file():
            return False
        return _identity(told) == _identity(run)
    except FileNotFoundError:
        pass
    except RecordError as error:
        warnings.warn(str(error), RuntimeWarning, stacklevel=4)
    pieces = folder / "pieces"
    piece = pieces / f"{file_name(_IDENTITY)}.npz"
    if not piece.is_file():  # killed before its first piece; else of another making
        return not any(pieces.glob("*.npz")) and not (folder / "models").exists()
    try:
        return unpack(piece.read_bytes()).data == _identity(run)
    except ValueError:
        return False  # nothing tells any more what it was: a new run leaves it alone


def _identity(run: Run) -> dict[str, Any]:
    """What two runs must share for one to go on with the other's pieces."""
    return {"config": run.config, "inputs": run.inputs, "commit": run.commit}


def open_run(root: Path, run: Run) -> tuple[Store, Run]:
    """Go on with the unfinished run of the same everything, or start one.

    Same are the configuration, the digests of the inputs, and the commit of the code.

    Args:
        root: Folder of all results.
        run: From ``new_run``.

    Returns:
        The open store of its folder, and the run, with the id and the start of the
        one that is gone on with. ``run.json`` is there from now on, without seconds;
        ``write_run(store.folder, run._replace(seconds=...))`` finishes it.

    Raises:
        BusyError: another process is at this very run.
        StorageError: the folder cannot be written.
    """
    found = find_unfinished(root, run)
    while found is None and run_folder(root, run).exists():
        time.sleep(0.1)  # one that was finished within this very second
        run = run._replace(id=f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{run.config_hash}")
    store = Store(found or run_folder(root, run))
    if found is not None:
        run = run._replace(id=found.name)
        with contextlib.suppress(FileNotFoundError, RecordError):
            run = run._replace(started=read_run(found).started)
    store.save(_IDENTITY, data=_identity(run))
    write_run(store.folder, run)
    return store, run


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
