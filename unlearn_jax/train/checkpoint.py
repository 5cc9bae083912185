"""Trees of arrays on disk through Orbax: written whole or not at all."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from unlearn_jax.tree import path_names


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message says which and what to do."""


def save(path: str | Path, values: Any) -> None:
    """Write a tree of arrays (Variables, an ensemble, a FitState) to a folder.

    The folder appears under its name only once it is complete; a process that dies
    half-way leaves nothing that could be mistaken for a checkpoint. An older checkpoint
    of the same name is replaced.

    Args:
        path: Folder to create.
        values: Pytree of arrays; random keys go as ``jax.random.key_data``.

    Raises:
        OSError: the disk is full or not writable.
    """
    import orbax.checkpoint as ocp

    target = Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f"{target.name}.orbax-checkpoint-tmp*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(target, values, force=True)


def load(path: str | Path, like: Any) -> Any:
    """Read a checkpoint back into the structure, shapes and dtypes of ``like``.

    Args:
        path: Folder that :func:`save` wrote.
        like: Arrays or ``jax.ShapeDtypeStruct`` (``jax.eval_shape`` makes them), with a
            ``sharding`` where the arrays are to be laid over devices.

    Raises:
        CheckpointError: nothing there, half-written, or of another structure.
    """
    import orbax.checkpoint as ocp

    target = Path(path).absolute()
    if not target.is_dir():
        raise CheckpointError(f"there is no checkpoint at {target}")
    abstract = jax.tree.map(_abstract, like)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(target, abstract)
    except Exception as error:  # Orbax raises many kinds; all mean: unusable here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise CheckpointError(
            f"the checkpoint at {target} is damaged or was written by another "
            f"configuration ({type(error).__name__}: {reason[:200]}); delete that folder "
            f"and run the same command again, only this piece is computed anew"
        ) from error


def export_npz(path: str | Path, values: Any) -> None:
    """Write a tree as one ``.npz`` whose keys are the paths of the leaves."""
    flat = {
        "/".join(map(str, path_names(where))): np.asarray(leaf)
        for where, leaf in jax.tree_util.tree_leaves_with_path(values)
    }
    np.savez(path, **flat)  # pyright: ignore[reportArgumentType] (numpy's own stub)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    # Without a sharding Orbax would ask the stored file for one, and warn.
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    sharding = getattr(leaf, "sharding", None) or device
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
