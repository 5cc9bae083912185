"""What JAX's types say about a mesh: what differs over its axes, what is split.

Inside a ``shard_map`` with its default checks every value has a type that names the
axes of the mesh over which it varies. A derivative by a value that does not vary is
summed over the devices by JAX itself, and a loop must carry what it began with. So
functions here let all that they are given vary alike before they begin.
"""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.types import Array


def varying_axes(values: Any) -> tuple[str, ...]:
    """Axes of a mesh over which JAX says that a leaf differs from device to device.

    It says so inside a ``shard_map`` with ``check_vma=True``, the default, alone.
    """
    found: set[str] = set()
    for leaf in _arrays(values):
        told = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
        kind = getattr(told, "manual_axis_type", None)
        found |= set(getattr(kind, "varying", ()))
    return tuple(sorted(found))


def explicit_mesh(values: Any) -> Any:
    """The mesh with axes of type ``Explicit`` that a leaf's type names, else None."""
    for leaf in _arrays(values):
        told = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
        mesh = getattr(getattr(told, "sharding", None), "mesh", None)
        if mesh is not None and mesh.explicit_axes:
            return mesh
    return None


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


def agreed(values: Any, axes: tuple[str, ...]) -> Any:
    """Values that every device holds alike though their type varies, without that.

    Args:
        values: Pytree of arrays of real numbers or booleans.
        axes: Of the mesh, over which the type varies and the values do not.

    Cost: one sum over these axes, in which all devices but one give zeros.
    """
    if not axes:
        return values
    first = jnp.asarray([jax.lax.axis_index(axis) == 0 for axis in axes]).all()

    def one(leaf: Array) -> Array:
        own = leaf.astype(jnp.int32) if leaf.dtype == bool else leaf
        own = jnp.where(first, own, jnp.zeros_like(own))
        return jax.lax.psum(own, axes).astype(leaf.dtype)

    return jax.tree.map(one, values)


def _arrays(values: Any) -> list[Any]:
    kinds = (jax.Array, jax.ShapeDtypeStruct)
    return [leaf for leaf in jax.tree.leaves(values) if isinstance(leaf, kinds)]
