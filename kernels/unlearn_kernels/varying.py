"""Over which axes of a mesh values vary, as JAX's types say it.

Inside a ``shard_map`` with its default checks every value has a type that names the
axes of the mesh over which it varies; what is computed from several values, a kernel's
operands among them, wants them to vary alike.
"""

from typing import Any

import jax
import jax.numpy as jnp


def varying_axes(values: Any) -> tuple[str, ...]:
    """Axes of a mesh over which JAX says that a leaf differs from device to device.

    It says so inside a ``shard_map`` with ``check_vma=True``, the default, alone.
    """
    found: set[str] = set()
    for leaf in arrays(values):
        told = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
        kind = getattr(told, "manual_axis_type", None)
        found |= set(getattr(kind, "varying", ()))
    return tuple(sorted(found))


def vary(values: Any, *like: Any) -> Any:
    """The same values, each varying over all axes that any leaf here varies over.

    Args:
        values: Pytree of arrays, numbers or ``jax.ShapeDtypeStruct``; as it is where
            nothing varies.
        like: Further such trees, for their axes alone.

    Cost: nothing; only types change.
    """
    axes = varying_axes((values, like))
    if not axes:
        return values

    def one(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.eval_shape(one, leaf)
        leaf = jnp.asarray(leaf)
        missing = tuple(axis for axis in axes if axis not in varying_axes(leaf))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(one, values)


def arrays(values: Any) -> list[Any]:
    """Leaves that are arrays or descriptions of arrays."""
    kinds = (jax.Array, jax.ShapeDtypeStruct)
    return [leaf for leaf in jax.tree.leaves(values) if isinstance(leaf, kinds)]
