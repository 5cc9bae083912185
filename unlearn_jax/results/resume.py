"""Where a run lies: the same command goes on with the one that never finished."""

import contextlib
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unlearn_jax.results.record import RecordError
from unlearn_jax.results.rows import ROWS_FILE
from unlearn_jax.results.run import Run, read_run, write_run
from unlearn_jax.storage.names import file_name
from unlearn_jax.storage.piece import unpack
from unlearn_jax.storage.store import Store

_IDENTITY = "this run"
"""Piece that tells of which run the pieces are, should ``run.json`` be damaged."""


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
        and the rows lie beside it. The digits in a folder's name only find it; what
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
        if told.seconds is not None and (folder / ROWS_FILE).is_file():
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
    names = ("config", "inputs", "source", "jax", "flax", "x64")
    return {name: getattr(run, name) for name in names}


def open_run(root: Path, run: Run) -> tuple[Store, Run]:
    """Go on with the unfinished run of the same everything, or start one.

    Same are the configuration, the digests of inputs and of the source, the versions
    of JAX and Flax, and the width of floats.

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
