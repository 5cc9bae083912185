"""Two-dimensional convolution: one function, the fastest form for device and shape."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from unlearn_kernels.choice import chosen
from unlearn_kernels.convolution.geometry import Padding, Pair, windows
from unlearn_kernels.convolution.patches import conv2d_patches
from unlearn_kernels.convolution.reference import conv2d_reference
from unlearn_kernels.convolution.winograd import conv2d_winograd, supports
from unlearn_kernels.target import target_platform

__all__ = ["IMPLEMENTATIONS", "conv2d"]

IMPLEMENTATIONS = {
    "reference": conv2d_reference,
    "patches": conv2d_patches,
    "winograd": conv2d_winograd,
}

# From here on the Winograd form wins on CPU: channels in, channels in × out, and
# operations of the plain form (below, its longer compilation is not earned back).
WINOGRAD_CHANNELS = 16
WINOGRAD_PRODUCT = 1024
WINOGRAD_OPERATIONS = 1e8


def conv2d(
    inputs: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    strides: Pair = (1, 1),
    padding: Padding = "SAME",
    dilation: Pair = (1, 1),
    groups: int = 1,
    implementation: str | None = None,
) -> Float[Array, "n p q o"]:
    """Convolve NHWC inputs with an HWIO kernel (a correlation, as in every network).

    Every form is made of plain array operations: forward and reverse mode, their
    compositions, ``vmap`` over inputs and kernels, and loops all apply.

    Args:
        inputs: Images, channels last; exactly four axes.
        kernel: Taps in the dtype of the inputs; ``i`` is the number of input channels
            over ``groups``.
        strides: Distance between windows (pixels).
        padding: ``"SAME"``, ``"VALID"`` or two pairs (low, high) (pixels).
        dilation: Distance between taps (pixels).
        groups: Number of independent blocks of channels.
        implementation: ``"reference"``: XLA's convolution; ``"patches"``: copies and
            one matrix product; ``"winograd"``: 3×3 kernels in the minimal form.
            ``None``: for CPUs (``target.target_platform``) the faster of the latter two
            for this shape, elsewhere XLA's.

    Returns:
        Outputs, channels last, in the dtype of the inputs.

    Raises:
        ValueError: shapes, dtypes or options do not fit together.
        NotImplementedError: ``implementation`` cannot do this convolution.

    Cost: ``2 n p q kh kw i o`` operations; see the forms for memory.
    """
    _check(inputs, kernel, strides, padding, dilation, groups)
    if implementation is None:
        implementation = _choose(inputs, kernel, strides, padding, dilation, groups)
    return chosen("conv2d", IMPLEMENTATIONS, implementation)(
        inputs,
        kernel,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


def _choose(
    inputs: Array,
    kernel: Array,
    strides: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> str:
    if target_platform() != "cpu":
        return "reference"
    channels, features = kernel.shape[2:]
    rows, columns = windows(inputs, kernel, strides, padding, dilation).size
    operations = 2 * inputs.shape[0] * rows * columns * kernel.size
    pays = (
        channels >= WINOGRAD_CHANNELS
        and channels * features >= WINOGRAD_PRODUCT
        and operations >= WINOGRAD_OPERATIONS
    )
    if pays and supports(kernel, strides, dilation, groups):
        return "winograd"
    return "patches"


def _check(
    inputs: Array,
    kernel: Array,
    strides: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> None:
    """Refuse what the forms would treat differently, with one message for all."""
    if inputs.ndim != 4 or kernel.ndim != 4:
        raise ValueError(
            f"conv2d needs inputs (n, h, w, c) and a kernel (kh, kw, i, o), got shapes "
            f"{inputs.shape} and {kernel.shape}; use vmap for further axes"
        )
    if inputs.dtype != kernel.dtype or not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(
            f"conv2d needs inputs and kernel of one floating dtype, got {inputs.dtype} "
            f"and {kernel.dtype}; cast one of them"
        )
    channels, per_group, features = inputs.shape[3], *kernel.shape[2:]
    if groups < 1 or channels != groups * per_group or features % groups:
        raise ValueError(
            f"conv2d was given {channels} channels in {groups} groups and a kernel "
            f"(kh, kw, i, o) = {kernel.shape}; i must be {channels} / groups, and o a "
            f"multiple of groups"
        )
    if min(*strides, *dilation) < 1:
        raise ValueError(
            f"strides {strides} and dilation {dilation} must be at least 1; there is "
            f"no transposed convolution here"
        )
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(
                f"padding {padding!r} is unknown; give 'SAME', 'VALID' or two pairs "
                f"such as ((1, 1), (1, 1))"
            )
    elif len(padding) != 2 or any(len(pair) != 2 for pair in padding):
        raise ValueError(
            f"padding {padding!r} must hold one (low, high) pair for rows and one for "
            f"columns, such as ((1, 1), (1, 1))"
        )
