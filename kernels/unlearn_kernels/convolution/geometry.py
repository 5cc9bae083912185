"""Where the windows of a convolution lie: padding, output size, phases of a stride."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

Pair: TypeAlias = tuple[int, int]
Padding: TypeAlias = str | Sequence[Pair]


class Windows(NamedTuple):
    """Description: the windows over one image, all numbers in pixels.

    Attributes:
        low: Zeros before the first row and column (negative: pixels cut off).
        strides: Distance between windows.
        dilation: Distance between the taps of a window.
        size: Number of windows, in rows and columns.
    """

    low: Pair
    strides: Pair
    dilation: Pair
    size: Pair


def windows(
    inputs: Array, kernel: Array, strides: Pair, padding: Padding, dilation: Pair
) -> Windows:
    """Resolve ``padding`` and count the windows.

    Raises:
        ValueError: the window is larger than the padded image.
    """
    image, taps = (inputs.shape[1], inputs.shape[2]), kernel.shape[:2]
    span = ((taps[0] - 1) * dilation[0] + 1, (taps[1] - 1) * dilation[1] + 1)
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(image, span, strides, padding)
    else:
        pads = padding
    (top, bottom), (left, right) = pads
    rows = (image[0] + top + bottom - span[0]) // strides[0] + 1
    columns = (image[1] + left + right - span[1]) // strides[1] + 1
    if rows < 1 or columns < 1:
        raise ValueError(
            f"conv2d was given images of {image} pixels with padding {padding!r} and "
            f"windows that span {span}; pad more, or take a smaller kernel or dilation"
        )
    return Windows((top, left), strides, dilation, (rows, columns))


def pad_to(
    inputs: Float[Array, "n h w c"], low: Pair, size: Pair, examples: int | None = None
) -> Float[Array, "m p q c"]:
    """Place the images at ``low`` in frames of ``size``, zeros around (or cut off)."""
    n, height, width, _ = inputs.shape
    more = 0 if examples is None else examples - n
    config = [
        (0, more, 0),
        (low[0], size[0] - low[0] - height, 0),
        (low[1], size[1] - low[1] - width, 0),
        (0, 0, 0),
    ]
    return lax.pad(inputs, jnp.zeros((), inputs.dtype), config)


def phase_inputs(
    frames: Float[Array, "n h w c"], strides: Pair
) -> Float[Array, "n p q d"]:
    """Move the position within a stride into the channels (space to depth)."""
    n, height, width, channels = frames.shape
    down, right = strides
    split = frames.reshape(n, height // down, down, width // right, right, channels)
    moved = split.transpose(0, 1, 3, 2, 4, 5)
    return moved.reshape(n, height // down, width // right, down * right * channels)


def phase_kernel(
    kernel: Float[Array, "kh kw i o"], strides: Pair
) -> Float[Array, "p q d o"]:
    """Match :func:`phase_inputs`: one window of the result covers the same pixels."""
    kh, kw, channels, features = kernel.shape
    down, right = strides
    rows, columns = -(-kh // down), -(-kw // right)
    more = [(0, rows * down - kh, 0), (0, columns * right - kw, 0), (0, 0, 0)]
    whole = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*more, (0, 0, 0)])
    split = whole.reshape(rows, down, columns, right, channels, features)
    moved = split.transpose(0, 2, 1, 3, 4, 5)
    return moved.reshape(rows, columns, down * right * channels, features)
