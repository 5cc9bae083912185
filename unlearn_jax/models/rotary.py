"""Rotary positions, and the two orders in which published weights keep them."""

import jax.numpy as jnp

from unlearn_jax.types import Array


def rotate(values: Array, positions: Array, base: float) -> Array:
    """Turn each pair of numbers by an angle that grows with the position.

    Number i of the first half of a head makes a pair with number i of its second half,
    and turns by ``position · base^(-2i/d)`` radians (Su et al., RoFormer, 2021; the
    halves as in Llama's published PyTorch form).

    Args:
        values: (n, t, …, d), d even.
        positions: (n, t), integers from 0.
        base: Of the wavelengths; 10,000 in the paper.

    Returns:
        Like ``values``; angles are computed in float32 at least.
    """
    half = values.shape[-1] // 2
    wide = jnp.promote_types(values.dtype, jnp.float32)
    frequencies = base ** (-jnp.arange(half, dtype=wide) / half)
    angles = positions.astype(wide)[..., None] * frequencies[None, None, :]
    between = tuple(range(2, values.ndim - 1))
    cosine = jnp.expand_dims(jnp.cos(angles), between).astype(values.dtype)
    sine = jnp.expand_dims(jnp.sin(angles), between).astype(values.dtype)
    first, second = values[..., :half], values[..., half:]
    return jnp.concatenate(
        (first * cosine - second * sine, second * cosine + first * sine), axis=-1
    )


def halves_from_pairs(kernel: Array, heads: int) -> Array:
    """Columns of a query or key kernel from the order of pairs to that of halves.

    GGUF files keep the two numbers of a pair next to each other (2i, 2i + 1);
    :func:`rotate` and the ``safetensors`` files of Llama keep them half a head apart.
    Read in the wrong order, a model still speaks, and much worse.

    Args:
        kernel: (…, heads · d).
        heads: Of the queries, or of the keys.
    """
    *before, width = kernel.shape
    pairs = kernel.reshape(*before, heads, width // heads // 2, 2)
    return jnp.swapaxes(pairs, -1, -2).reshape(kernel.shape)


def pairs_from_halves(kernel: Array, heads: int) -> Array:
    """The inverse of :func:`halves_from_pairs`."""
    *before, width = kernel.shape
    halves = kernel.reshape(*before, heads, 2, width // heads // 2)
    return jnp.swapaxes(halves, -1, -2).reshape(kernel.shape)
