"""Named arrays in one file: an ordinary ``.npz``, sealed by its SHA-256."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_jax.storage.checksum import seal, unseal
from unlearn_jax.storage.write import write_bytes


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays whole or not at all; ``np.load`` reads the file too.

    Raises:
        StorageError: the disk cannot take it.
        ValueError: an array of objects.
    """
    write_bytes(Path(path), pack_arrays(arrays))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """What ``write_arrays`` wrote, bit for bit.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated or garbled; names the file.
    """
    content = Path(path).read_bytes()
    try:
        return unpack_arrays(content)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); put it back from a copy, or delete it"
        ) from None


def pack_arrays(arrays: Mapping[str, Any]) -> bytes:
    """The bytes of such a file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    body = buffer.getvalue()
    return body + seal(body)


def unpack_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Undo ``pack_arrays``.

    Raises:
        ValueError: truncated or garbled.
    """
    with np.load(io.BytesIO(unseal(content)), allow_pickle=False) as members:
        return {name: members[name] for name in members}
