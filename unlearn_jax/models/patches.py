"""Images as rows of square patches, and back."""

from unlearn_jax.types import Array


def cut(image: Array, side: int) -> Array:
    """(n, h, w, c) to (n, p, side² · c), patch after patch along the rows.

    Sides of the image are multiples of ``side``.
    """
    n, height, width, channels = image.shape
    cells = image.reshape(-1, height // side, side, width // side, side, channels)
    rows = cells.transpose(0, 1, 3, 2, 4, 5)
    return rows.reshape(n, -1, side * side * channels)


def joined_up(patches: Array, image: tuple[int, int, int], side: int) -> Array:
    """(n, p, side² · c) to (n, h · w · c): undoes :func:`cut`, flat."""
    height, width, channels = image
    shape = (-1, height // side, width // side, side, side, channels)
    cells = patches.reshape(shape)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(patches.shape[0], -1)
