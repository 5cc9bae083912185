"""A symmetric matrix changed by a product of low rank, in place where that pays."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import dynamic_slice, dynamic_update_slice

from unlearn_jax.loop import fori_loop
from unlearn_jax.types import Array
from unlearn_kernels.precision import exactly

OUTER, THIN, PANEL, BLOCK, MIRROR = 4, 128, 128, 256, 128
"""Rows up to which R changes by outer products, and by panels of so many of its own
rows; and above that, by blocks of this size of its lower half, mirrored by tiles."""


@exactly
def subtract_product(
    matrix: Array, factor: Array, signs: Array, *, block: int = BLOCK
) -> Array:
    """Matrix − factor · diag(signs) · factorᵀ, symmetric bit for bit, as the matrix.

    In a donated buffer no second matrix is allocated on CPU. Loops with moving
    starts are what XLA updates in place; slices with fixed starts are copied first. A
    tile that is mirrored travels through the carry of the loop, since a matrix that is
    read at one place and written at another would be copied in every round.

    Args:
        matrix: Symmetric (f, f).
        factor: Columns (f, n); where all are zero, the matrix stays bit for bit.
        signs: One (n,) for each column, 1 or −1.
        block: Side of the blocks of the lower half.

    Cost: f² n, or 2 f² n up to 128 columns and on other devices than CPUs.
    """
    f, n = factor.shape
    left = factor * signs[None, :]
    if n <= OUTER:
        for j in range(n):
            matrix = matrix - left[:, j, None] * factor[None, :, j]
        return matrix
    if f < 2 * block:
        return _whole(matrix, left, factor)
    in_place = _thin if n <= THIN else _wide
    return jax.lax.platform_dependent(
        *(matrix, left, factor), cpu=partial(in_place, block=block), default=_whole
    )


def _whole(matrix: Array, left: Array, factor: Array) -> Array:
    return _lower(matrix - left @ factor.T)


def _thin(matrix: Array, left: Array, factor: Array, *, block: int) -> Array:
    return _panels(matrix, left, factor, min(PANEL, block))


def _wide(matrix: Array, left: Array, factor: Array, *, block: int) -> Array:
    return _mirror(_blocks(matrix, left, factor, block), min(MIRROR, block))


def _panels(matrix: Array, left: Array, factor: Array, size: int) -> Array:
    """One panel of rows at a time; entries (i, j) and (j, i) are the same sums."""
    f = matrix.shape[0]

    def body(i: Array, matrix: Array) -> Array:
        at, own = _own(i * size, left, size)
        old = dynamic_slice(matrix, (at, 0 * at), (size, f))
        return dynamic_update_slice(matrix, old - own @ factor.T, (at, 0 * at))

    return fori_loop(0, -(-f // size), body, matrix, left, factor)


def _blocks(matrix: Array, left: Array, factor: Array, size: int) -> Array:
    """Blocks of the lower half; what is above the diagonal is stale afterwards."""
    starts = _lower_pairs(matrix.shape[0], size)
    rows, columns = jnp.asarray(starts[:, 0]), jnp.asarray(starts[:, 1])

    def body(t: Array, matrix: Array) -> Array:
        i, own = _own(rows[t], left, size)
        j, other = _own(columns[t], factor, size)
        old = dynamic_slice(matrix, (i, j), (size, size))
        return dynamic_update_slice(matrix, old - own @ other.T, (i, j))

    return fori_loop(0, len(starts), body, matrix, left, factor)


def _mirror(matrix: Array, size: int) -> Array:
    """The lower half, written over the upper one.

    One carry goes through both loops: what is read or written between them would have
    a layout of its own, and be copied.
    """
    f = matrix.shape[0]
    starts = np.minimum(_lower_pairs(f, size), f - size)
    apart = starts[:, 0] - starts[:, 1] >= size
    first = starts[~apart]
    carry = _next_tile(matrix, first[0, 0], first[0, 1], size, whole=False)
    carry = _mirror_tiles(carry, first[1:], size, whole=False)
    matrix, tile, i, j = _mirror_tiles(carry, starts[apart], size, whole=True)
    return dynamic_update_slice(matrix, tile, (j, i))


def _mirror_tiles(carry: Any, starts: np.ndarray, size: int, *, whole: bool) -> Any:
    """Write the tile that is held and read the next; the last one is held at the end.

    Tiles that are ``whole`` lie below the diagonal.
    """
    if not len(starts):
        return carry
    rows, columns = jnp.asarray(starts[:, 0]), jnp.asarray(starts[:, 1])

    def body(t: Array, carry: Any) -> Any:
        matrix, tile, i, j = carry
        matrix = dynamic_update_slice(matrix, tile, (j, i))
        return _next_tile(matrix, rows[t], columns[t], size, whole=whole)

    return fori_loop(0, len(starts), body, carry)


def _next_tile(matrix: Array, row: Any, column: Any, size: int, *, whole: bool) -> Any:
    """The matrix, the mirror image of the tile that starts there, and its start."""
    i, j = jnp.asarray(row), jnp.asarray(column)
    tile = dynamic_slice(matrix, (i, j), (size, size))
    if whole:
        return matrix, tile.T, i, j
    across = dynamic_slice(matrix, (j, i), (size, size))
    places = jnp.arange(size)
    below = places[:, None] - places[None, :] + (i - j) >= 0
    return matrix, jnp.where(below, tile, across.T).T, i, j


def _lower_pairs(f: int, size: int) -> np.ndarray:
    """Starts (row, column) of the blocks on and below the diagonal."""
    count = -(-f // size)
    return size * np.stack(np.tril_indices(count), axis=1).astype(np.int32)


def _own(start: Array, rows: Array, size: int) -> tuple[Array, Array]:
    """A start moved back until the panel fits, and the panel, zero where moved over."""
    f, n = rows.shape
    at = jnp.minimum(start, f - size)
    panel = dynamic_slice(rows, (at, 0 * at), (size, n))
    return at, jnp.where((at + jnp.arange(size) >= start)[:, None], panel, 0)


def _lower(matrix: Array) -> Array:
    """Symmetric: the lower half and its mirror image."""
    places = jnp.arange(matrix.shape[0])
    return jnp.where(places[:, None] >= places[None, :], matrix, matrix.T)
