"""Models from elsewhere, and for elsewhere: npz, safetensors, Orbax.

By the path's ending: ``.npz``, ``.safetensors`` (an optional package), or none for the
folder of a plain Orbax checkpoint.
"""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.storage.tensors import read_tensors, write_safetensors
from unlearn_jax.train import checkpoint
from unlearn_jax.tree import path_names
from unlearn_jax.types import Variables

SUFFIXES = {"npz": ".npz", "safetensors": ".safetensors", "orbax": ""}
"""Name of a format -> how its paths end."""

_PARAMS, _STATS = ("params", "param"), ("stats", "batch_stats", "state")
_WRAPPERS = ("value", "raw_value")
"""Last names under which Flax NNX keeps the array of a variable."""


def read_variables(path: str | Path, like: Variables) -> Variables:
    """The variables of a model from a file or folder; see :func:`variables_from`.

    Args:
        path: ``.npz``, ``.safetensors``, or a folder: a plain Orbax checkpoint of a
            nested dict, such as Flax Linen's variables or an NNX state.
        like: Arrays or ``jax.ShapeDtypeStruct`` of the model, from
            ``jax.eval_shape(model.init, key)``.

    Raises:
        ValueError: not there, not readable, or not of this model.
    """
    path = Path(path)
    kind = _format(path)
    if not path.exists():
        raise ValueError(
            f"there is no model at {path}; give a .npz or .safetensors file, or the "
            "folder of an Orbax checkpoint"
        )
    try:
        if kind == "npz":
            with np.load(path, allow_pickle=False) as file:
                values: Any = dict(file)
        elif kind == "safetensors":
            values = read_tensors(path).arrays
        else:
            values = _read_orbax(path)
    except Exception as error:  # each library raises its own kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"{path} cannot be read as {kind} ({reason}); give the .npz or "
            ".safetensors file that was saved, or the folder that holds the "
            "checkpoint's own files, such as STEP/default"
        ) from None
    return variables_from(values, like, name=str(path))


def variables_from(values: Any, like: Variables, *, name: str = "state") -> Variables:
    """The variables of a model from Linen's variables, an NNX state, or named arrays.

    A name is a path of words joined by ``/`` or ``.``, or the nesting itself. It begins
    with the collection (``params``; ``stats`` or ``batch_stats``) or, where no name is
    in both, without; a last ``value`` is dropped.

    Args:
        values: Tree of dicts with arrays as leaves.
        like: What the model has.
        name: What the error calls the values.

    Returns:
        Variables with the dtypes of ``like``.

    Raises:
        ValueError: a name that is missing or belongs to no variable, another shape, or
            a number that is not finite.
    """
    found = {
        _words(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(values)
    }
    faults: list[str] = []
    used: set[tuple[str, ...]] = set()

    def take(path: Any, leaf: Any) -> Any:
        collection, *rest = map(str, path_names(path))
        prefixes = _PARAMS if collection == "params" else _STATS
        names = [*((prefix, *rest) for prefix in prefixes), tuple(rest)]
        there = next((one for one in names if one in found), None)
        shown = "/".join((collection, *rest))
        if there is None:
            faults.append(f"{shown} is missing")
            return leaf
        if there in used:
            faults.append(f"{'/'.join(there)} stands for two variables")
        used.add(there)
        array = found[there]
        if array.shape != leaf.shape:
            faults.append(f"{shown} is {array.shape}, expected {leaf.shape}")
        elif not _real(array):
            faults.append(f"{shown} is {array.dtype}, expected real numbers")
            return leaf
        elif not _finite(array, leaf.dtype):
            faults.append(f"{shown} is not finite in {leaf.dtype}")
            return leaf
        return jnp.asarray(array, leaf.dtype)

    made = jax.tree_util.tree_map_with_path(take, like)
    faults += [f"{'/'.join(one)} is unknown" for one in found if one not in used]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(
            f"{name} is not of this model: {', '.join(faults[:3])}{more}; choose the "
            "model and its width that it was trained with, or rename its arrays"
        )
    return made


def _finite(array: np.ndarray, dtype: Any) -> bool:
    """Whether all numbers are, in another precision too."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(array.astype(dtype).astype(np.float64)).all())


def _real(array: np.ndarray) -> bool:
    """Whether it holds real numbers, bfloat16 too."""
    kinds = (jnp.floating, jnp.integer)
    return any(jnp.issubdtype(array.dtype, kind) for kind in kinds)


def write_variables(path: str | Path, variables: Variables) -> None:
    """Write a model so that NumPy, safetensors or plain Orbax reads it.

    Names are ``params/...`` and ``stats/...``, joined by dots in safetensors; Orbax
    restores ``{"params": ..., "stats": ...}``.

    Args:
        path: Ends in ``.npz`` or ``.safetensors``; without an ending, a folder.
        variables: Of the model.

    Raises:
        StorageError: the disk cannot take it.
        CheckpointError: the same, of a folder.
        ValueError: another ending, or safetensors is not installed.
    """
    path = Path(path)
    kind = _format(path)
    if kind == "orbax":
        checkpoint.save(path, variables._asdict())
    elif kind == "npz":
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.export_npz(path, variables)
    else:
        leaves = jax.tree_util.tree_leaves_with_path(variables)
        flat = {".".join(_words(where)): np.asarray(leaf) for where, leaf in leaves}
        write_safetensors(path, flat, {})


def check_format(kind: str) -> None:
    """Refuse what cannot be written here.

    Raises:
        ValueError: unknown, or its package is not installed.
    """
    if kind not in SUFFIXES:
        raise ValueError(
            f"format {kind!r} is unknown; choose from {', '.join(SUFFIXES)}"
        )
    if kind == "safetensors" and importlib.util.find_spec("safetensors") is None:
        raise ValueError(
            "safetensors is not installed; pip install unlearn_jax[safetensors], or "
            "take npz or orbax"
        )


def _format(path: Path) -> str:
    kinds = {suffix: kind for kind, suffix in SUFFIXES.items()}
    kind = "orbax" if path.is_dir() else kinds.get(path.suffix)
    if kind is None:
        raise ValueError(
            f"{path} ends in {path.suffix!r}; expected .npz, .safetensors, or a folder "
            "without an ending"
        )
    check_format(kind)
    return kind


def _read_orbax(folder: Path) -> Any:
    import orbax.checkpoint as ocp

    folder = folder.absolute()
    with ocp.PyTreeCheckpointer() as reader:
        about: Any = reader.metadata(folder)
        tree = getattr(about, "item_metadata", about)
        tree = getattr(tree, "tree", tree)
        if not isinstance(tree, Mapping):
            raise ValueError("it holds no nested dict of arrays")
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(folder, restore_args=plain)


def _words(path: Any) -> tuple[str, ...]:
    words = [word for part in path_names(path) for word in re.split("[/.]", str(part))]
    return tuple(words[:-1] if words[-1] in _WRAPPERS else words)
