"""Trees of arrays on disk through Orbax: written whole or not at all."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from unlearn_jax.tree import path_names

_CONTENTS = "contents.json"
"""Beside Orbax's files: what they hold and how large they are, so that a loss or
another configuration is noticed, and named, before anything is read."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; says which and what to do."""


def save(path: str | Path, values: Any) -> None:
    """Write a tree of arrays (Variables, an ensemble, a FitState) to a folder.

    The folder appears under its name only once it is complete; a process that dies
    half-way leaves nothing that could be mistaken for a checkpoint. An older checkpoint
    of the same name can be loaded until the new one is complete.

    Args:
        path: Folder to create.
        values: Pytree of arrays; random keys go as ``jax.random.key_data``.

    Raises:
        CheckpointError: the disk is full or not writable.
    """
    import orbax.checkpoint as ocp

    target = Path(path).absolute()
    fresh, old = _beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _settle(target)
        _remove(target.parent, fresh.name)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(fresh, values)
        contents = {"leaves": _leaves(values), "files": _sizes(fresh)}
        (fresh / _CONTENTS).write_text(json.dumps(contents, indent=1))
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        _remove(target.parent, fresh.name)
    except Exception as error:  # Orbax and its back ends raise many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"could not write the checkpoint {target} ({lines[0][:200]}); free room or "
            f"choose another folder, then run the same command again: everything "
            f"finished is kept"
        ) from error


def load(path: str | Path, like: Any) -> Any:
    """Read a checkpoint back into the structure, shapes and dtypes of ``like``.

    Args:
        path: Folder that :func:`save` wrote.
        like: Arrays or ``jax.ShapeDtypeStruct`` (``jax.eval_shape`` makes them), with a
            ``sharding`` where the arrays are to be laid over devices.

    Raises:
        CheckpointError: nothing there, half-written, or of another structure; the
            message names the folder and says what to do.
    """
    import orbax.checkpoint as ocp

    target = Path(path).absolute()
    _settle(target)
    if not target.is_dir():
        raise CheckpointError(
            f"there is no checkpoint at {target}: it was never finished, or the folder "
            f"was moved; run the command that makes it again"
        )
    abstract = jax.tree.map(_abstract, like)
    try:
        contents = json.loads((target / _CONTENTS).read_text())
        files, sizes = contents["files"], _sizes(target)
        sizes = {name: sizes[name] for name in files if name in sizes}
        _compare(files, sizes, "{} has {} bytes instead of {}")
        _compare(_leaves(like), contents["leaves"], "{} is {}, expected {}")
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(target, abstract)
    except Exception as error:  # Orbax raises many kinds; all mean: unusable here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise CheckpointError(
            f"the checkpoint at {target} is damaged or was written by another "
            f"configuration ({type(error).__name__}: {reason[:200]}); delete that "
            f"folder and run the same command again, only this piece is computed anew"
        ) from error


def load_as_written(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint back in the shapes and dtypes that it was written with.

    For trees whose shapes are not known beforehand, since they grow; only for nested
    dicts with text as keys (without quotes), where the names in the folder tell the
    structure.

    Args:
        path: Folder that :func:`save` wrote.

    Raises:
        CheckpointError: nothing there, half-written, or another kind of tree.
    """
    target = Path(path).absolute()
    _settle(target)
    like: dict[str, Any] = {}
    try:
        leaves = json.loads((target / _CONTENTS).read_text())["leaves"]
        for name, text in leaves.items():
            keys = re.findall(r"\['([^']+)'\]", name)
            if not keys or name != "".join(f"['{key}']" for key in keys):
                raise ValueError(f"{name} is not made of the keys of dicts")
            dtype, _, shape = text.partition("[")
            inner = like
            for key in keys[:-1]:
                inner = inner.setdefault(key, {})
            inner[keys[-1]] = jax.ShapeDtypeStruct(
                tuple(json.loads(f"[{shape}")), jax.numpy.dtype(dtype)
            )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint at {target} does not tell its structure "
            f"({type(error).__name__}: {error}); it is missing, damaged, or no nested "
            f"dict: read it with ``load`` and a tree like it"
        ) from error
    return load(target, like)


def export_npz(path: str | Path, values: Any) -> None:
    """Write a tree as one ``.npz`` whose keys are the paths of the leaves."""
    flat = {
        "/".join(map(str, path_names(where))): np.asarray(leaf)
        for where, leaf in jax.tree_util.tree_leaves_with_path(values)
    }
    np.savez(path, **flat)  # pyright: ignore[reportArgumentType] (numpy's own stub)


def _beside(target: Path) -> tuple[Path, Path]:
    """Where a checkpoint is written, and where the one that it replaces waits."""
    fresh, old = f"{target.name}.tmp", f"{target.name}.tmp-old"
    return target.with_name(fresh), target.with_name(old)


def _settle(target: Path) -> None:
    """Finish a replacement that died between its two renames."""
    fresh, old = _beside(target)
    if old.is_dir() and fresh.is_dir() and not target.exists():
        fresh.rename(target)


def _compare(expected: dict[str, Any], found: dict[str, Any], sentence: str) -> None:
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            values = (found.get(name, "missing"), expected.get(name, "absent"))
            raise ValueError(sentence.format(name, *values))


def _leaves(values: Any) -> dict[str, str]:
    """Dtype and shape of every leaf, by its path."""
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(values)
    }


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / _CONTENTS
    }


def _remove(folder: Path, prefix: str) -> None:
    for leftover in folder.iterdir():
        if leftover.name.startswith(prefix):
            shutil.rmtree(leftover, ignore_errors=True)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    # Without a sharding Orbax would ask the stored file for one, and warn.
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    sharding = getattr(leaf, "sharding", None) or device
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
