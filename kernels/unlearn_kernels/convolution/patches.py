"""Two-dimensional convolution as patches times a matrix: fast on CPU, also in loops."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from unlearn_kernels.convolution.geometry import (
    Padding,
    Pair,
    Windows,
    pad_to,
    windows,
)

# Up to this many numbers a patch is copied whole, above it is copied along rows only.
SMALL_PATCH = 32


def conv2d_patches(
    inputs: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    strides: Pair = (1, 1),
    padding: Padding = "SAME",
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Float[Array, "n p q o"]:
    """Convolve NHWC inputs with an HWIO kernel by copies and one matrix product.

    Plain array operations throughout, so that every transformation of JAX applies and
    all of them run at the same speed inside of ``scan`` and ``fori_loop``. Three forms:

    * Each window is copied whole and multiplied by the kernel. Copies ``kh kw`` numbers
      per input number; used for strides and for small patches (a first layer).
    * Windows are copied along their columns only, one product gives the contributions
      of each row to all ``kh`` outputs above and below it, and those are added up.
      Copies ``kw`` numbers per input and ``kh`` per output number.
    * One channel per group: a sum of elementwise products.

    Args:
        inputs: Images, channels last.
        kernel: Taps; ``i`` is the number of input channels over ``groups``.
        strides: Distance between windows (pixels).
        padding: ``"SAME"``, ``"VALID"`` or two pairs (low, high) (pixels).
        dilation: Distance between taps (pixels).
        groups: Number of independent blocks of channels.

    Returns:
        Outputs, channels last, in the dtype of the inputs; 16-bit inputs are computed
        in float32.

    Cost: ``2 n p q kh kw i o`` operations, ``(h + kh) / h`` times as many in the second
        form; memory ``n p q (kw i + kh o)`` numbers, or ``n p q kh kw i``.
    """
    kh, kw, per_group, features = kernel.shape
    place = windows(inputs, kernel, strides, padding, dilation)
    dtype = jnp.promote_types(inputs.dtype, jnp.float32)
    images, taps = inputs.astype(dtype), kernel.astype(dtype)
    if groups == 1:
        outputs = _dense(images, taps, place)
    elif per_group == 1:
        outputs = _depthwise(images, taps, place, groups)
    else:
        grouped = images.reshape(*inputs.shape[:3], groups, per_group)
        stacks = taps.reshape(kh, kw, per_group, groups, features // groups)
        outputs = jax.vmap(lambda x, k: _dense(x, k, place), (3, 3), 3)(grouped, stacks)
        outputs = outputs.reshape(*outputs.shape[:3], features)
    return outputs.astype(inputs.dtype)


def _dense(
    inputs: Float[Array, "n h w c"], kernel: Float[Array, "kh kw i o"], place: Windows
) -> Float[Array, "n p q o"]:
    kh, kw, channels, _ = kernel.shape
    if kh > 1 and place.strides == (1, 1) and kh * kw * channels > SMALL_PATCH:
        return _gather_columns_add_rows(inputs, kernel, place)
    return _gather(inputs, kernel, place)


def _frames(
    inputs: Float[Array, "n h w c"], kernel: Pair, place: Windows
) -> Float[Array, "n p q c"]:
    """Pad the images to exactly the pixels that some window covers."""
    covered = [
        (count - 1) * step + (taps - 1) * apart + 1
        for count, step, taps, apart in zip(
            place.size, place.strides, kernel, place.dilation, strict=True
        )
    ]
    return pad_to(inputs, place.low, (covered[0], covered[1]))


def _tap(frames: Array, axis: int, index: int, place: Windows) -> Array:
    """Pixels of tap ``index`` of every window, along rows (axis 1) or columns (2)."""
    start = index * place.dilation[axis - 1]
    step, count = place.strides[axis - 1], place.size[axis - 1]
    stop = start + (count - 1) * step + 1
    return lax.slice_in_dim(frames, start, stop, step, axis)


def _gather(
    inputs: Float[Array, "n h w c"], kernel: Float[Array, "kh kw i o"], place: Windows
) -> Float[Array, "n p q o"]:
    kh, kw, channels, features = kernel.shape
    patches = _frames(inputs, (kh, kw), place)
    if kh > 1:
        rows = [_tap(patches, 1, a, place) for a in range(kh)]
        patches = lax.optimization_barrier(jnp.concatenate(rows, axis=3))
    else:
        patches = _tap(patches, 1, 0, place)
    patches = jnp.concatenate([_tap(patches, 2, b, place) for b in range(kw)], axis=3)
    matrix = kernel.transpose(1, 0, 2, 3).reshape(kw * kh * channels, features)
    outputs = patches.reshape(-1, kw * kh * channels) @ matrix
    return outputs.reshape(inputs.shape[0], *place.size, features)


def _gather_columns_add_rows(
    inputs: Float[Array, "n h w c"], kernel: Float[Array, "kh kw i o"], place: Windows
) -> Float[Array, "n p q o"]:
    kh, kw, channels, features = kernel.shape
    frames = _frames(inputs, (kh, kw), place)
    patches = jnp.concatenate([_tap(frames, 2, b, place) for b in range(kw)], axis=3)
    matrix = kernel.transpose(1, 2, 0, 3).reshape(kw * channels, kh * features)
    terms = patches.reshape(-1, kw * channels) @ matrix
    terms = terms.reshape(*patches.shape[:3], kh * features)
    # Split, not sliced: the transpose of a split is one concatenation.
    split = lax.split(terms, (features,) * kh, axis=3)
    outputs = _tap(split[0], 1, 0, place)
    for a in range(1, kh):
        outputs = outputs + _tap(split[a], 1, a, place)
    return outputs


def _depthwise(
    inputs: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw 1 o"],
    place: Windows,
    groups: int,
) -> Float[Array, "n p q o"]:
    kh, kw, _, features = kernel.shape
    frames = _frames(inputs, (kh, kw), place)
    # Feature f of a group reads that group's channel: channels repeat, features run.
    frames = jnp.repeat(frames, features // groups, axis=3)
    terms = [
        _tap(_tap(frames, 1, a, place), 2, b, place) * kernel[a, b][None, None]
        for a in range(kh)
        for b in range(kw)
    ]
    return sum(terms[1:], terms[0])
