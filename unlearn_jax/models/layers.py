"""What NNX lacks: a convolution that is fast inside loops on CPU, and pooling."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from unlearn_jax.types import Array
from unlearn_kernels.convolution import conv2d


class Conv(nnx.Module):
    """3×3 (or any) 2-D convolution over NHWC images through ``unlearn_kernels``.

    Args:
        in_features: Input channels.
        out_features: Output channels.
        kernel_size: Height and width of the kernel.
        strides: Steps between outputs.
        padding: "SAME", "VALID" or explicit pairs.
        use_bias: Whether a bias is added.
        dtype: Dtype of the parameters.
        compute_dtype: Dtype of the arithmetic; None takes ``dtype``.
        rngs: Source of the initial values (He uniform over the fan-in).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: tuple[int, int] = (3, 3),
        *,
        strides: tuple[int, int] = (1, 1),
        padding: Any = "SAME",
        use_bias: bool = True,
        dtype: Any = jnp.float32,
        compute_dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        initial = jax.nn.initializers.he_uniform()
        shape = (*kernel_size, in_features, out_features)
        self.kernel = nnx.Param(initial(rngs.params(), shape, dtype))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros((out_features,), dtype))
        self.use_bias = use_bias
        self.strides = strides
        self.padding = padding
        self.compute_dtype = compute_dtype or dtype

    def __call__(self, inputs: Array) -> Array:
        """Convolve (n, h, w, in) to (n, h', w', out)."""
        outputs = conv2d(
            inputs.astype(self.compute_dtype),
            self.kernel[...].astype(self.compute_dtype),
            strides=self.strides,
            padding=self.padding,
        )
        if not self.use_bias:
            return outputs
        bias = self.bias[...].astype(self.compute_dtype)
        return outputs + bias[None, None, None, :]


def max_pool(inputs: Array, window: int = 2) -> Array:
    """Largest value of each ``window`` × ``window`` square; (n, h, w, c) shrinks.

    Trailing rows and columns that do not fill a square are dropped.
    """
    n, h, w, c = inputs.shape
    rows, columns = h // window, w // window
    squares = inputs[:, : rows * window, : columns * window, :].reshape(
        n, rows, window, columns, window, c
    )
    return jnp.max(squares, axis=(2, 4))
