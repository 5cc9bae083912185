"""Keyed digests of arrays: they recognise equal arrays, for whoever has the key."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np

_BYTES = 16


def digest_arrays(key: bytes, label: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    """BLAKE2b of names, dtypes, shapes and bytes under a secret key.

    Without the key nobody can test, from a digest, whether arrays they guess are the
    ones; with it anybody can. A service's key lies in its folder, beside the log.

    Args:
        key: 32 secret bytes.
        label: What the arrays are; other labels give other digests.
        arrays: By name; their order does not matter.

    Returns:
        16 bytes.
    """
    digest = hashlib.blake2b(key=key, digest_size=_BYTES)
    names = sorted(arrays)
    head = [label, *([n, arrays[n].dtype.str, arrays[n].dtype.name] for n in names)]
    shapes = [list(arrays[n].shape) for n in names]
    digest.update(json.dumps([head, shapes]).encode() + b"\n")
    for name in names:
        flat = np.ascontiguousarray(arrays[name]).reshape(-1)
        digest.update(flat.view(np.uint8).data if flat.size else b"")
    return digest.digest()
