"""What JAX's types say of how arrays lie on a mesh, and what follows from it.

A derivative by a value that does not vary over an axis is summed over the devices by
JAX itself, and a loop must carry what it began with. So functions here let all that
they are given vary alike before they begin (:func:`unlearn_kernels.varying.vary`).
"""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.types import Array
from unlearn_kernels.varying import arrays


def explicit_mesh(values: Any) -> Any:
    """The mesh with axes of type ``Explicit`` that a leaf's type names, else None."""
    for leaf in arrays(values):
        told = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
        mesh = getattr(getattr(told, "sharding", None), "mesh", None)
        if mesh is not None and mesh.explicit_axes:
            return mesh
    return None


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
