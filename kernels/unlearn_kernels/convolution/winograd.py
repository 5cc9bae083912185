"""Two-dimensional 3×3 convolution with 2.25 times fewer products (Winograd)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from unlearn_kernels.convolution.geometry import (
    Padding,
    Pair,
    pad_to,
    phase_inputs,
    phase_kernel,
    windows,
)

# Tiles of 2×2 outputs worked on at once: 32 (c + o) kB of float32 at 512, to stay in
# cache.
TILES = 512


def supports(kernel: Array, strides: Pair, dilation: Pair, groups: int) -> bool:
    """Whether the convolution is 3×3 once its stride is moved into the channels."""
    taps = (-(-kernel.shape[0] // strides[0]), -(-kernel.shape[1] // strides[1]))
    return taps == (3, 3) and dilation == (1, 1) and groups == 1


def conv2d_winograd(
    inputs: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    strides: Pair = (1, 1),
    padding: Padding = "SAME",
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Float[Array, "n p q o"]:
    """Convolve NHWC inputs with an HWIO kernel in Winograd's minimal form F(2×2, 3×3).

    Each 2×2 tile of outputs is ``Aᵀ [(G k Gᵀ) ∘ (Bᵀ d B)] A`` of a 4×4 tile ``d`` of
    inputs; the sum over channels turns ``∘`` into 16 matrix products over all tiles. A
    stride s is first moved into the channels (s² c of them), which makes a 3×3
    convolution of stride 1 of any kernel from 2 s + 1 to 3 s. Examples are worked on
    in blocks that fit the cache; the backward pass transforms the inputs again rather
    than storing the four times larger ``Bᵀ d B``.

    Args:
        inputs: Images, channels last.
        kernel: Taps, 3×3 of them, or from 2 s + 1 to 3 s along an axis of stride s.
        strides: Distance between windows (pixels).
        padding: ``"SAME"``, ``"VALID"`` or two pairs (low, high) (pixels).
        dilation: Must be (1, 1).
        groups: Must be 1.

    Returns:
        Outputs, channels last, in the dtype of the inputs; 16-bit inputs are computed
        in float32.

    Raises:
        NotImplementedError: the convolution is not 3×3 in this sense.

    Cost: ``8 n p q i o`` operations at stride 1 (``18 n p q i o`` directly); memory of
        the outputs and of one block.
    Source: Lavin & Gray 2016, §4.1. Differs: autodiff of this form is the backward
        pass; strides through phases.
    """
    if not supports(kernel, strides, dilation, groups):
        raise NotImplementedError(
            f"implementation='winograd' needs a 3x3 kernel (for a stride s: from 2 s + "
            f"1 to 3 s pixels), no dilation and one group; got kernel "
            f"{kernel.shape[:2]}, strides {strides}, dilation {dilation}, groups "
            f"{groups}. Use implementation='patches'"
        )
    place = windows(inputs, kernel, strides, padding, dilation)
    dtype = jnp.promote_types(inputs.dtype, jnp.float32)
    images, taps = inputs.astype(dtype), kernel.astype(dtype)
    tall, wide = (-(-place.size[0] // 2), -(-place.size[1] // 2))
    n = inputs.shape[0]
    blocks = -(-n // max(1, TILES // (tall * wide)))
    examples = -(-n // blocks)
    frame = ((2 * tall + 2) * strides[0], (2 * wide + 2) * strides[1])
    frames = pad_to(images, place.low, frame, blocks * examples)
    if strides != (1, 1):
        frames, taps = phase_inputs(frames, strides), phase_kernel(taps, strides)
    transformed = lax.optimization_barrier(_both_axes(_transform_kernel, _grid(taps)))
    if blocks == 1:
        outputs = _tiles(frames, transformed)
    else:
        block = jax.checkpoint(_tiles, prevent_cse=False)
        split = frames.reshape(blocks, examples, *frames.shape[1:])
        _, outputs = lax.scan(lambda _, x: (None, block(x, transformed)), None, split)
        outputs = outputs.reshape(-1, *outputs.shape[2:])
    rows, columns = place.size
    return outputs[:n, :rows, :columns].astype(inputs.dtype)


Rows = Sequence[Array]
Grid = list[list[Array]]


def _tiles(
    frames: Float[Array, "n h w c"], kernels: Grid
) -> Float[Array, "n h-2 w-2 o"]:
    """Outputs of whole frames, whose sides are even."""
    n, height, width, channels = frames.shape
    tall, wide = height // 2 - 1, width // 2 - 1
    # The four phases as arrays of their own: the backward pass then adds into four
    # small arrays instead of sixteen padded large ones.
    split = frames.reshape(n, tall + 1, 2, wide + 1, 2, channels)
    phases = lax.optimization_barrier(
        [
            [
                phase.reshape(n, tall + 1, wide + 1, channels)
                for phase in lax.split(row, (1, 1), axis=4)
            ]
            for row in lax.split(split, (1, 1), axis=2)
        ]
    )
    tiles = [
        [
            phases[a % 2][b % 2][:, a // 2 : a // 2 + tall, b // 2 : b // 2 + wide]
            for b in range(4)
        ]
        for a in range(4)
    ]
    transformed = _both_axes(_transform_inputs, tiles)
    products = [
        [d.reshape(-1, channels) @ k for d, k in zip(*rows, strict=True)]
        for rows in zip(transformed, kernels, strict=True)
    ]
    outputs = [
        [y.reshape(n, tall, wide, -1) for y in row]
        for row in _both_axes(_transform_outputs, products)
    ]
    rows = jnp.stack([jnp.stack(row, axis=3) for row in outputs], axis=2)
    return rows.reshape(n, 2 * tall, 2 * wide, -1)


def _grid(kernel: Float[Array, "3 3 i o"]) -> Grid:
    return [[kernel[a, b] for b in range(3)] for a in range(3)]


def _both_axes(transform: Callable[[Rows], Rows], grid: Grid) -> Grid:
    """Apply a transform of vectors to the columns, then to the rows, of a grid."""
    down = [transform(column) for column in zip(*grid, strict=True)]
    across = [transform(row) for row in zip(*down, strict=True)]
    return [list(row) for row in across]


def _transform_inputs(d: Rows) -> Rows:
    """Apply Bᵀ."""
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _transform_kernel(k: Rows) -> Rows:
    """Apply G."""
    even, odd = 0.5 * (k[0] + k[2]), 0.5 * k[1]
    return k[0], even + odd, even - odd, k[2]


def _transform_outputs(m: Rows) -> Rows:
    """Apply Aᵀ."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]
