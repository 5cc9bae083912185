"""Checksums of everything that is read back: whole files, JSON objects, folders.

SHA-256 everywhere: about 1 GB/s, so that a check costs less than the reading itself.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECK = "check"
"""Key of a JSON object's own checksum; its last one when it is written."""

_SEAL_BYTES = len(b"\nsha256 " + b"0" * 64 + b"\n")
_BLOCK = 1 << 20


def seal(body: bytes) -> bytes:
    """What is written behind ``body``: its SHA-256 on a line of text.

    Formats that say how long they are (``.npy``, ``.npz``) are opened by others as if
    it was not there.
    """
    return _seal(hashlib.sha256(body).hexdigest())


def unseal(content: bytes) -> bytes:
    """The body of ``body + seal(body)``.

    Raises:
        ValueError: it has no checksum, or another one.
    """
    body = content[:-_SEAL_BYTES]
    if not body or content[-_SEAL_BYTES:] != seal(body):
        raise ValueError("its checksum does not match")
    return body


def check_sealed(file: io.BufferedIOBase) -> None:
    """:func:`unseal` for an open file of any size, which is then back at its start.

    Raises:
        ValueError: it has no checksum, or another one.
    """
    body = file.seek(0, 2) - _SEAL_BYTES
    if body < 0 or _digest_of(file, body) != file.read():
        raise ValueError("its checksum does not match")
    file.seek(0)


def append_seal(file: io.BufferedIOBase) -> None:
    """Write :func:`seal` behind what an open file holds; it must be readable too."""
    file.write(_digest_of(file, file.seek(0, 2)))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: Path) -> dict[str, list[Any]]:
    """Size and SHA-256 of every file below a folder, by its path in there."""
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_size, file_digest(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check_folder(folder: Path, told: Mapping[str, list[Any]]) -> None:
    """Compare the files of a folder with ``told``; others may lie there too.

    Raises:
        ValueError: the first one that is missing, of another size, or changed.
    """
    for name, (size, digest) in told.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else "missing"
        if found != size:
            raise ValueError(f"{name} has {found} bytes instead of {size}")
        if file_digest(path) != digest:
            raise ValueError(f"{name} has another checksum")


def with_check(row: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object and, as its last key, its own checksum.

    It covers the values and not how they are laid out: a file that was formatted anew
    stays valid, one in which a value was changed does not.
    """
    return {**row, CHECK: _row_digest(row)}


def checked_row(text: bytes | str) -> dict[str, Any]:
    """The object that ``with_check`` closed, without its checksum.

    Raises:
        ValueError: no JSON object, no checksum, or another one.
    """
    try:
        row = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(row, dict):
        raise ValueError("expected an object")
    if CHECK not in row:
        raise ValueError("it has no checksum: cut, changed, or of an older version")
    told = row.pop(CHECK)
    if told != _row_digest(row):
        raise ValueError("its checksum does not match")
    return row


def _row_digest(row: Mapping[str, Any]) -> str:
    text = json.dumps(row, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest_of(file: io.BufferedIOBase, count: int) -> bytes:
    """The seal of the first ``count`` bytes; the file then stands behind them."""
    file.seek(0)
    digest, left = hashlib.sha256(), count
    while left and (block := file.read(min(left, _BLOCK))):
        digest.update(block)
        left -= len(block)
    return _seal(digest.hexdigest())


def _seal(digest: str) -> bytes:
    return f"\nsha256 {digest}\n".encode()
