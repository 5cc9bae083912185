"""The folder of an ensemble: what it belongs to, its pieces, who works on which."""

import contextlib
import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.storage.checksum import (
    check_folder,
    checked_row,
    folder_digests,
    with_check,
)
from unlearn_jax.storage.piece import Piece, PieceError, pack, unpack
from unlearn_jax.storage.write import raise_storage_error, temporary_path, write_bytes

OUTPUTS, VARIABLES, ABOUT = "outputs.npy", "variables.npz", "piece.json"
SETUP_FILE, CLAIMS_FILE = "ensemble.json", "claims"
_NAME = re.compile(r"members-(\d+)-(\d+)")
_SETUP_BYTE = 1 << 40
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Range(NamedTuple):
    """Value: members ``first`` to ``last - 1``."""

    first: int
    last: int

    @property
    def name(self) -> str:
        """Of the piece that holds these members."""
        return f"members-{self.first:06d}-{self.last:06d}"


class Claims:
    """Which members some process is working on: byte i of one file for member i.

    The system frees the locks of a process when it ends, however it ends, on the same
    machine and on shared file systems that pass locks on. Where there are no locks two
    processes may train the same members; the one that ends first is kept.
    """

    def __init__(self, folder: Path):
        self._path = folder / CLAIMS_FILE
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise_storage_error(self._path, 0, error)

    @contextlib.contextmanager
    def hold(self, part: Range | None, *, wait: bool) -> Iterator[bool]:
        """Claim members (None: the description of the folder); False if another did."""
        start, length = (
            (part.first, part.last - part.first) if part else (_SETUP_BYTE, 1)
        )
        held = self._lock(start, length, wait)
        try:
            yield held
        finally:
            if held:
                self._unlock(start, length)

    def close(self) -> None:
        """Give up every claim."""
        os.close(self._file)

    def _lock(self, start: int, length: int, wait: bool) -> bool:
        try:
            import fcntl
        except ImportError:  # not a Unix system: nothing to lock with
            return True
        kind = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.lockf(self._file, kind, length, start)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            warnings.warn(
                f"{self._path} cannot be locked ({error.strerror}): processes may "
                "train the same members twice",
                stacklevel=4,
            )
        return True

    def _unlock(self, start: int, length: int) -> None:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.lockf(self._file, fcntl.LOCK_UN, length, start)


def open_setup(folder: Path, claims: Claims, setup: dict[str, Any]) -> dict[str, Any]:
    """The folder's description: ``setup`` where the folder is new, else its own.

    Raises:
        ValueError: the folder holds an ensemble of another kind, or its description is
            damaged.
    """
    path = folder / SETUP_FILE
    with claims.hold(None, wait=True):
        if not path.exists() and not finished_pieces(folder):
            row = with_check(dict(sorted(setup.items())))
            write_bytes(path, (json.dumps(row, indent=2) + "\n").encode())
            return setup
    try:
        found = checked_row(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is missing or damaged ({error}), so nothing tells what its pieces "
            f"belong to: put it back from a copy, or move {folder} away and run the "
            "same command again"
        ) from None
    wrong = [name for name in setup if not _same(name, found.get(name), setup[name])]
    if wrong:
        raise ValueError(
            f"{folder} holds an ensemble with other {', '.join(wrong)}; choose another "
            "folder, or move this one away"
        )
    return found


def _same(name: str, found: Any, asked: Any) -> bool:
    if name in ("chunk", "way"):  # how it is trained, not what it is
        return True
    if name == "probe":
        return (
            isinstance(found, list)
            and len(found) == len(asked)
            and np.allclose(found, asked, rtol=0.01, atol=1e-6, equal_nan=True)
        )
    return found == asked


def finished_pieces(folder: Path) -> list[Range]:
    """Pieces that lie there, by their first member; none overlaps another."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            match = _NAME.fullmatch(name)
            if match:
                found.append(Range(int(match[1]), int(match[2])))
    kept: list[Range] = []
    for part in sorted(found):
        if not kept or part.first >= kept[-1].last:
            kept.append(part)
    return kept


def missing_ranges(finished: Sequence[Range], wanted: Range) -> list[Range]:
    """The members of ``wanted`` that no piece holds."""
    missing, at = [], wanted.first
    for part in finished:
        if part.last <= at:
            continue
        if part.first >= wanted.last:
            break
        if part.first > at:
            missing.append(Range(at, part.first))
        at = max(at, part.last)
    if at < wanted.last:
        missing.append(Range(at, wanted.last))
    return missing


@contextlib.contextmanager
def new_piece(folder: Path, part: Range) -> Iterator[Path]:
    """A folder to fill; it gets the piece's name when the body ends without error.

    Raises:
        StorageError: the disk cannot take it; nothing stays behind.
    """
    remove_leftovers(folder, part)
    place = temporary_path(folder, part.name)
    try:
        place.mkdir()
        yield place
        for file in sorted(place.iterdir()):
            _sync(file)
        _sync(place)
        try:
            os.rename(place, folder / part.name)
        except OSError:
            if not (folder / part.name / ABOUT).is_file():
                raise
        _sync(folder)
    except OSError as error:
        size = sum(file.stat().st_size for file in place.glob("*"))
        raise_storage_error(folder / part.name, size, error)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def remove_leftovers(folder: Path, part: Range) -> None:
    """Delete what killed processes left of these members; claim them first."""
    for left in folder.glob(".unlearn-members-*.tmp"):
        match = re.match(r"\.unlearn-members-(\d+)-(\d+)-", left.name)
        if match and int(match[1]) < part.last and part.first < int(match[2]):
            shutil.rmtree(left, ignore_errors=True)


def write_about(place: Path, data: dict[str, Any]) -> None:
    """Close a piece: sizes and checksums of its files, and what is known of it."""
    row = with_check({**data, "files": folder_digests(place)})
    (place / ABOUT).write_text(json.dumps(row, indent=1) + "\n")


def read_about(folder: Path, part: Range) -> dict[str, Any]:
    """What is known of a piece.

    Raises:
        PieceError: missing or damaged.
    """
    path = folder / part.name / ABOUT
    try:
        return checked_row(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(folder / part.name, str(error)) from None


def check_piece(folder: Path, part: Range) -> dict[str, Any]:
    """Compare sizes and checksums of a piece with what was written.

    Raises:
        PieceError: names the file that is damaged.
    """
    about = read_about(folder, part)
    try:
        check_folder(folder / part.name, about["files"])
    except ValueError as error:
        raise _damaged(folder / part.name, str(error)) from None
    return about


def write_outputs(place: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array on disk to be filled; types that numpy does not know lie as integers."""
    path = place / OUTPUTS
    array = np.lib.format.open_memmap(
        path, mode="w+", dtype=_plain(np.dtype(dtype)), shape=shape
    )
    _reserve(path)
    return array


def read_outputs(folder: Path, part: Range, dtype: str) -> np.ndarray:
    """The outputs of a piece, on disk until they are used."""
    try:
        array = np.load(folder / part.name / OUTPUTS, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _damaged(folder / part.name / OUTPUTS, str(error)) from None
    wanted = jnp.dtype(dtype)
    return array if array.dtype == wanted else array.view(wanted)


def write_variables(place: Path, variables: Any) -> None:
    """Stacked leaves, in the order of the tree."""
    leaves = jax.tree.leaves(variables)
    arrays = {f"leaf-{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    (place / VARIABLES).write_bytes(pack(Piece(arrays, {})))


def read_variables(folder: Path, part: Range) -> list[np.ndarray]:
    """The leaves of a piece."""
    path = folder / part.name / VARIABLES
    try:
        arrays = unpack(path.read_bytes()).arrays
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    return [arrays[name] for name in sorted(arrays)]


def _damaged(path: Path, reason: str) -> PieceError:
    return PieceError(
        f"{path} is damaged ({reason}). Run the same command again: just the members "
        "of that piece are trained anew."
    )


def _plain(dtype: np.dtype) -> np.dtype:
    foreign = dtype.kind == "V" or dtype.type.__module__ != "numpy"
    return np.dtype(f"uint{8 * dtype.itemsize}") if foreign else dtype


def _reserve(path: Path) -> None:
    """Take the room of a file that is mapped: later a full disk kills the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise


def _sync(path: Path) -> None:
    """Force a file or folder to disk; some systems cannot do it for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(PermissionError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
