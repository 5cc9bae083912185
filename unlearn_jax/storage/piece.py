"""The file of one piece: an ordinary ``.npz`` followed by its SHA-256."""

import json
from typing import Any, NamedTuple

import numpy as np

from unlearn_jax.storage.arrays import pack_arrays, unpack_arrays

_HEADER = "piece.json"


class PieceError(ValueError):
    """A piece on disk is damaged; names the file and says what to do."""


class Piece(NamedTuple):
    """What is kept under one name.

    Attributes:
        arrays: By name; anything ``np.asarray`` takes but objects.
        data: What JSON holds, plus nan and inf; tuples come back as lists.
    """

    arrays: dict[str, Any]
    data: dict[str, Any]


def pack(piece: Piece) -> bytes:
    """The bytes of a piece; ``np.load`` reads a file of them too."""
    arrays = {key: np.asarray(value) for key, value in piece.arrays.items()}
    header = {
        "dtypes": {key: _foreign_dtype(value) for key, value in arrays.items()},
        "data": piece.data,
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    members = {f"array:{key}": _as_npz(value) for key, value in arrays.items()}
    return pack_arrays({_HEADER: text} | members)


def unpack(content: bytes) -> Piece:
    """Undo ``pack``, bit for bit.

    Raises:
        ValueError: truncated or garbled.
    """
    members = unpack_arrays(content)
    header = json.loads(members[_HEADER].tobytes())
    arrays = {
        key: _from_npz(members[f"array:{key}"], foreign)
        for key, foreign in header["dtypes"].items()
    }
    return Piece(arrays, header["data"])


def _foreign_dtype(array: np.ndarray) -> str | None:
    """Name of a dtype that ``.npz`` would forget (bfloat16 and its kin), else None."""
    plain = array.dtype.kind != "V" or array.dtype.name.startswith("void")
    return None if plain else array.dtype.name


def _as_npz(array: np.ndarray) -> np.ndarray:
    if _foreign_dtype(array) is None:
        return array
    return array.view(np.dtype(f"uint{8 * array.dtype.itemsize}"))


def _from_npz(array: np.ndarray, foreign: str | None) -> np.ndarray:
    return array if foreign is None else array.view(np.dtype(foreign))
