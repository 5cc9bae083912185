"""Two-dimensional convolution: one function, the fastest form for the platform."""

from collections.abc import Sequence

import jax
from jax import Array
from jaxtyping import Float

from unlearn_kernels.convolution.patches import conv2d_patches
from unlearn_kernels.convolution.reference import conv2d_reference

__all__ = ["conv2d"]

Pair = tuple[int, int]


def conv2d(
    inputs: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw i o"],
    *,
    strides: Pair = (1, 1),
    padding: str | Sequence[Pair] = "SAME",
    dilation: Pair = (1, 1),
    groups: int = 1,
    implementation: str | None = None,
) -> Float[Array, "n p q o"]:
    """Convolve NHWC inputs with an HWIO kernel."""
    if implementation is None:
        implementation = "patches" if jax.default_backend() == "cpu" else "reference"
    forms = {"patches": conv2d_patches, "reference": conv2d_reference}
    if implementation not in forms:
        raise ValueError(
            f"conv2d has no implementation {implementation!r}; "
            f"choose one of {sorted(forms)} or None."
        )
    return forms[implementation](
        inputs,
        kernel,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
