"""The secret key of a service's digests, in its folder."""

import os
from pathlib import Path

from unlearn_jax.service.disk import ServiceError
from unlearn_jax.storage.write import write_bytes

KEY_FILE = "digest.key"


def make_key(folder: Path) -> bytes:
    """Draw a secret key and keep it in the folder, readable for its owner alone."""
    key = os.urandom(32)
    write_bytes(folder / KEY_FILE, key, private=True)
    return key


def read_key(folder: Path) -> bytes:
    """The key of the folder.

    Raises:
        ServiceError: missing or cut short.
    """
    path = folder / KEY_FILE
    key = path.read_bytes() if path.is_file() else b""
    if len(key) != 32:
        raise ServiceError(
            f"{path} holds {len(key)} bytes, expected 32: without the key no request "
            "and no snapshot can be recognised; put the file back from a copy"
        )
    return key
