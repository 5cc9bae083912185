"""Max-pooling over windows that do not overlap."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from unlearn_kernels.choice import chosen
from unlearn_kernels.pooling.reference import max_pool2d_reference
from unlearn_kernels.pooling.tiles import max_pool2d_tiles

__all__ = ["IMPLEMENTATIONS", "max_pool2d"]

IMPLEMENTATIONS = {"reference": max_pool2d_reference, "tiles": max_pool2d_tiles}


def max_pool2d(
    inputs: Float[Array, "n h w c"],
    window: tuple[int, int] = (2, 2),
    *,
    implementation: str | None = None,
) -> Float[Array, "n p q c"]:
    """Take the largest value of each window; NHWC images shrink by the window.

    Windows do not overlap; trailing rows and columns that do not fill one are dropped.
    Where pixels are equal the first of them, row by row, receives the whole slope.

    Args:
        inputs: Images, channels last; exactly four axes.
        window: Height and width of the windows (pixels).
        implementation: ``"reference"``: XLA's pooling; ``"tiles"``: comparisons of
            reshaped images. ``None``: the latter, which is faster on CPU and needs no
            scatter anywhere.

    Raises:
        ValueError: not images, or the window is larger than they are.

    Cost: ``n h w c`` comparisons forward and as many selections back.
    """
    if inputs.ndim != 4 or not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(
            f"max_pool2d needs floating inputs (n, h, w, c), got {inputs.dtype} of "
            f"shape {inputs.shape}; use vmap for further axes"
        )
    if min(window) < 1 or window[0] > inputs.shape[1] or window[1] > inputs.shape[2]:
        raise ValueError(
            f"max_pool2d was given windows of {window} pixels and images of "
            f"{inputs.shape[1:3]}; take a window between 1 and the image"
        )
    if implementation is None:
        implementation = "tiles"
    return chosen("max_pool2d", IMPLEMENTATIONS, implementation)(inputs, window)
