"""Two-dimensional convolution as XLA writes it: right on every platform."""

from jax import Array, lax
from jaxtyping import Float

from unlearn_kernels.convolution.geometry import Padding, Pair


def conv2d_reference(
    inputs: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    strides: Pair = (1, 1),
    padding: Padding = "SAME",
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Float[Array, "n p q o"]:
    """Convolve NHWC inputs with an HWIO kernel by ``lax.conv_general_dilated``.

    ``out[n, p, q, o] = Σ_{a, b, i} inputs[n, s p + d a, s q + d b, i] k[a, b, i, o]``
    on the padded inputs; with groups, ``i`` runs over the channels of the group of
    ``o``.

    Args:
        inputs: Images, channels last.
        kernel: Taps; ``i`` is the number of input channels over ``groups``.
        strides: Distance between windows (pixels).
        padding: ``"SAME"``, ``"VALID"`` or two pairs (low, high) (pixels).
        dilation: Distance between taps (pixels).
        groups: Number of independent blocks of channels.

    Returns:
        Outputs, channels last, in the dtype of the inputs.

    Cost: ``2 n p q kh kw i o`` operations. On CPU its gradient is some 50 times slower
        inside of ``scan``, ``while_loop`` or ``fori_loop``: the transposed convolutions
        permute their dimensions, and XLA puts such dimensions in order for its fast
        form only outside of loops.
    """
    return lax.conv_general_dilated(
        inputs,
        kernel,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
