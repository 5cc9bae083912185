"""Two-dimensional convolution as patches times a matrix: fast on CPU, also in loops."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

Pair = tuple[int, int]


def window_padding(
    size: Pair, window: Pair, strides: Pair, padding: str | Sequence[Pair]
) -> list[Pair]:
    """Return the explicit (low, high) pairs that ``padding`` means for this size."""
    if isinstance(padding, str):
        return list(lax.padtype_to_pads(size, window, strides, padding))
    return [(int(low), int(high)) for low, high in padding]


def conv2d_patches(
    inputs: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    strides: Pair = (1, 1),
    padding: str | Sequence[Pair] = "SAME",
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Float[Array, "n p q o"]:
    """Convolve NHWC inputs with an HWIO kernel as shifted slices times a matrix.

    Args:
        inputs: Images, channels last.
        kernel: Taps; ``i`` is the number of input channels over ``groups``.
        strides: Distance between outputs (pixels).
        padding: ``"SAME"``, ``"VALID"`` or two pairs (low, high) (pixels).
        dilation: Distance between taps (pixels).
        groups: Number of independent blocks of channels.

    Returns:
        Outputs, channels last, in the dtype of the inputs.

    Cost: ``2 n p q kh kw i o`` operations and ``n p q kh kw c`` numbers of memory.
    """
    kh, kw, per_group, features = kernel.shape
    span = ((kh - 1) * dilation[0] + 1, (kw - 1) * dilation[1] + 1)
    pads = window_padding(inputs.shape[1:3], span, strides, padding)
    padded = jnp.pad(inputs, ((0, 0), *pads, (0, 0)))
    n, h, w, channels = padded.shape
    p, q = (h - span[0]) // strides[0] + 1, (w - span[1]) // strides[1] + 1
    taps = [
        padded[
            :,
            a * dilation[0] : a * dilation[0] + (p - 1) * strides[0] + 1 : strides[0],
            b * dilation[1] : b * dilation[1] + (q - 1) * strides[1] + 1 : strides[1],
            :,
        ]
        for a in range(kh)
        for b in range(kw)
    ]
    if groups == 1:
        patches = jnp.concatenate(taps, axis=-1).reshape(n * p * q, kh * kw * channels)
        return (patches @ kernel.reshape(-1, features)).reshape(n, p, q, features)
    grouped = [tap.reshape(n, p, q, groups, per_group) for tap in taps]
    patches = jnp.stack(grouped, axis=-2)
    matrix = kernel.reshape(kh * kw, per_group, groups, features // groups)
    return jnp.einsum("npqgti,tigo->npqgo", patches, matrix).reshape(n, p, q, features)
