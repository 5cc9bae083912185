"""The linear maps that an edit changes together, as one matrix.

All keys and values of a network's cross-attention read the same text embeddings: their
kernels (d, k₁), (d, k₂), … side by side are one map from d to K = Σ k, so that one
factorisation of one d × d matrix serves them all. Rows are on the left: the output of a
key c is c W, as in ``flax.nnx.Linear(..., use_bias=False)``.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from unlearn_jax.types import Array, Params
from unlearn_kernels.precision import exact_product, wide


def stacked(maps: Params) -> Float[Array, "d k"]:
    """The kernels side by side, in the order of the tree's leaves.

    Args:
        maps: A tree of kernels (d, k), of any k.

    Returns:
        In the widest of their dtypes, at least float32. Sums of edits are free of
        rounding in float64 alone: hand over float64 kernels where bits count.

    Raises:
        ValueError: no kernel, one that is no matrix, or inputs of different width.
    """
    leaves = jax.tree.leaves(maps)
    if not leaves:
        raise ValueError(
            "got no linear map, expected kernels (d, k) without bias that read the "
            "embeddings: choose a model with K and V maps"
        )
    shapes = [jnp.shape(leaf) for leaf in leaves]
    if any(len(s) != 2 for s in shapes) or len({s[0] for s in shapes}) > 1:
        raise ValueError(
            f"expected kernels (d, k) that read the same d numbers, got {shapes}: edit "
            f"maps of other inputs apart"
        )
    dtype = wide(*leaves)
    return jnp.concatenate([jnp.asarray(leaf, dtype) for leaf in leaves], axis=1)


def unstacked(matrix: Float[Array, "r k"], maps: Params) -> Params:
    """Columns as a tree like the maps, each in the dtype of its map."""
    leaves, structure = jax.tree.flatten(maps)
    ends = np.cumsum([jnp.shape(leaf)[1] for leaf in leaves])[:-1]
    parts = jnp.split(matrix, ends, axis=1)
    pairs = zip(parts, leaves, strict=True)
    return jax.tree.unflatten(structure, [p.astype(leaf.dtype) for p, leaf in pairs])


def outputs(maps: Params, keys: Any) -> Float[Array, "n k"]:
    """What the maps make of keys (n, d): c W, all maps side by side.

    Raises:
        ValueError: keys of another width than the maps read.
    """
    matrix = stacked(maps)
    return exact_product(as_keys(keys, matrix), matrix)


def as_keys(keys: Any, matrix: Float[Array, "d k"]) -> Float[Array, "n d"]:
    """Keys in the dtype of the maps.

    Raises:
        ValueError: no keys, or keys of another width.
    """
    shape, d = jnp.shape(keys), matrix.shape[0]
    if len(shape) != 2 or shape[1] != d:
        raise ValueError(
            f"expected keys (n, {d}), as wide as what the maps read, got {shape}: take "
            f"the embeddings that enter the maps, one token a row"
        )
    if not shape[0]:
        raise ValueError(
            f"got no rows, expected at least one key (n, {d}): leave the set out "
            f"(None) where it is optional"
        )
    return jnp.asarray(keys, matrix.dtype)
