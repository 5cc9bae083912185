"""Max-pooling over windows that tile the image: one pass forward, one pass back."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

Pair = tuple[int, int]


def max_pool2d_tiles(
    inputs: Float[Array, "n h w c"], window: Pair
) -> Float[Array, "n p q c"]:
    """Take the largest value of each window by comparing its pixels one by one.

    The index of the winner is kept, so that the derivative is a selection: the whole
    slope goes to one pixel, the first of equals, as in XLA's own gradient.

    Args:
        inputs: Images, channels last.
        window: Height and width of the windows, which do not overlap (pixels).

    Cost: ``n h w c`` comparisons in each direction, all of them vectorised.
    """
    n, height, width, channels = inputs.shape
    rows, columns = height // window[0], width // window[1]
    whole = inputs[:, : rows * window[0], : columns * window[1], :]
    return _largest(
        whole.reshape(n, rows, window[0], columns, window[1], channels), window
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _largest(
    tiles: Float[Array, "n p a q b c"], window: Pair
) -> Float[Array, "n p q c"]:
    pixels = _pixels(tiles, window)
    return functools.reduce(jnp.maximum, pixels)


@_largest.defjvp
def _largest_jvp(
    window: Pair,
    primals: tuple[Float[Array, "n p a q b c"]],
    tangents: tuple[Float[Array, "n p a q b c"]],
) -> tuple[Float[Array, "n p q c"], Float[Array, "n p q c"]]:
    (tiles,), (slopes,) = primals, tangents
    winner = _winner(tiles, window)[:, :, None, :, None, :]
    index = jnp.arange(window[0] * window[1], dtype=winner.dtype)
    chosen = winner == index.reshape(1, 1, window[0], 1, window[1], 1)
    slope = jnp.sum(jnp.where(chosen, slopes, 0), axis=(2, 4))
    return _largest(tiles, window), slope


def _winner(tiles: Float[Array, "n p a q b c"], window: Pair) -> Int[Array, "n p q c"]:
    """Index of the first largest pixel of each window, row by row."""
    first, *others = _pixels(tiles, window)
    largest, winner = first, jnp.zeros(first.shape, jnp.int32)
    for index, pixel in enumerate(others, start=1):
        winner = jnp.where(pixel > largest, index, winner)
        largest = jnp.maximum(largest, pixel)
    return winner


def _pixels(
    tiles: Float[Array, "n p a q b c"], window: Pair
) -> list[Float[Array, "n p q c"]]:
    return [tiles[:, :, a, :, b, :] for a in range(window[0]) for b in range(window[1])]
