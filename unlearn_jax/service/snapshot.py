"""Snapshots of a state: sealed by a digest, so that a damaged one is never used."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.service.disk import ServiceError, make_private, remove, sync, sync_tree
from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.storage.write import raise_storage_error, write_bytes
from unlearn_jax.train.checkpoint import CheckpointError, load_as_written, save

_STATE, _SEAL = "state", "seal"


def adopt(state: Any) -> Any:
    """The same state in the types that a snapshot gives back.

    JAX arrays lose their weak types, numpy arrays and numbers become numpy arrays in C
    order. Otherwise a restarted service would go on with other types than one that was
    never stopped, and could round otherwise.

    Raises:
        ValueError: a leaf is a random key, or no array.
    """
    return jax.tree_util.tree_map_with_path(_adopt, state)


def describe(state: Any) -> dict[str, str]:
    """Dtype and shape of every leaf, by its path."""
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def digest_state(key: bytes, state: Any) -> str:
    """Keyed digest of all leaves, hexadecimal."""
    leaves = enumerate(jax.tree.leaves(state))
    arrays = {str(i): np.asarray(leaf) for i, leaf in leaves}
    return digest_arrays(key, "state", arrays).hex()


def write_snapshot(folder: Path, key: bytes, sequence: int, state: Any) -> None:
    """Write ``FOLDER/SEQUENCE``; it gets its name once all of it is on disk.

    Empty arrays (no class yet) are kept by their shape and dtype alone; numpy arrays
    by their bytes, since JAX would lose 64 bits where it is not set to keep them.

    Raises:
        CheckpointError: the disk is full or not writable.
        StorageError: it cannot be forced to disk.
    """
    leaves = jax.tree.leaves(state)
    about = [[_dtype_name(leaf), list(leaf.shape), _is_jax(leaf)] for leaf in leaves]
    tree = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "leaves": {
            str(i): leaf if _is_jax(leaf) else np.frombuffer(leaf.tobytes(), np.uint8)
            for i, leaf in enumerate(leaves)
            if leaf.size
        },
    }
    part, target = folder / f"{sequence}.part", folder / str(sequence)
    remove(part)
    save(part / _STATE, tree)
    write_bytes(part / _SEAL, _seal_of(part, key, sequence))
    make_private(part)
    sync_tree(part)
    remove(target)  # a damaged one; what leads on from an older one is still there
    try:
        os.rename(part, target)
    except OSError as error:
        raise_storage_error(target, 0, error)
    sync(folder)


def read_snapshot(folder: Path, key: bytes, sequence: int, like: Any) -> Any:
    """The state of ``FOLDER/SEQUENCE``, in the structure of ``like``.

    Args:
        folder: Of all snapshots.
        key: Of the service.
        sequence: Number of the last request within.
        like: A state of the same structure; its shapes may differ.

    Raises:
        ServiceError: a file is missing or changed, or Orbax cannot read it.
    """
    where = folder / str(sequence)
    kept = (where / _SEAL).read_bytes() if (where / _SEAL).is_file() else b""
    if kept != _seal_of(where, key, sequence):
        raise ServiceError(f"{where} is damaged: its seal does not match")
    try:
        tree = load_as_written(where / _STATE)
    except CheckpointError as error:
        raise ServiceError(
            f"{where} is whole, but cannot be read here ({error.__cause__}): open it "
            "with the version of Orbax that wrote it"
        ) from error
    kept = tree.get("leaves", {})
    about = json.loads(np.asarray(tree["about"]).tobytes())
    leaves = [_leaf(kept.get(str(i)), *each) for i, each in enumerate(about)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def sequences(folder: Path) -> list[int]:
    """Numbers of the snapshots that are there under their name, newest first."""
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def _seal_of(snapshot: Path, key: bytes, sequence: int) -> bytes:
    """Keyed digest of every file, so that Orbax is never handed a damaged one."""
    contents = {
        path.relative_to(snapshot).as_posix(): np.memmap(path, np.uint8, "r")
        if path.stat().st_size
        else np.zeros(0, np.uint8)
        for path in (snapshot / _STATE).rglob("*")
        if path.is_file()
    }
    return digest_arrays(key, f"snapshot {sequence}", contents)


def _adopt(path: Any, leaf: Any) -> jax.Array | np.ndarray:
    name = jax.tree_util.keystr(path)
    if isinstance(leaf, jax.Array):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(f"{name} is a random key; keep jax.random.key_data of it")
        return jnp.asarray(leaf, leaf.dtype)
    array = np.array(leaf, order="C")
    if array.dtype.hasobject:
        raise ValueError(f"{name} of the state is {type(leaf)}, expected an array")
    return array


def _leaf(stored: Any, name: str, shape: list[int], is_jax: bool) -> Any:
    if is_jax:
        return jnp.zeros(shape, jnp.dtype(name)) if stored is None else stored
    raw = b"" if stored is None else np.asarray(stored).tobytes()
    return np.frombuffer(bytearray(raw), jnp.dtype(name)).reshape(shape)


def _is_jax(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array)


def _dtype_name(leaf: Any) -> str:
    """A name that gives the dtype back: byte order for numpy's, else its own name."""
    return leaf.dtype.name if leaf.dtype.kind == "V" else leaf.dtype.str
