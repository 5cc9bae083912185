"""A small convolutional network for images of any size."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from unlearn_jax.models.layers import Conv, max_pool
from unlearn_jax.models.model import Model, from_nnx
from unlearn_jax.types import Array


class CNN(nnx.Module):
    """conv(w) – pool – conv(2w) – pool – dense(hidden) – dense(outputs), ReLU."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        width: int,
        hidden: int,
        dtype: Any,
        compute_dtype: Any,
        rngs: nnx.Rngs,
    ):
        height, columns, channels = input_shape
        kind: dict[str, Any] = {"dtype": dtype, "compute_dtype": compute_dtype}
        self.conv1 = Conv(channels, width, **kind, rngs=rngs)
        self.conv2 = Conv(width, 2 * width, **kind, rngs=rngs)
        flat = (height // 4) * (columns // 4) * 2 * width
        dense: dict[str, Any] = {"dtype": compute_dtype or dtype, "param_dtype": dtype}
        he = nnx.initializers.he_uniform()
        self.dense = nnx.Linear(flat, hidden, kernel_init=he, **dense, rngs=rngs)
        self.head = nnx.Linear(hidden, outputs, **dense, rngs=rngs)
        self.dtype = dtype

    def features(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """Activations of the dense hidden layer."""
        del rngs
        values = max_pool(jax.nn.relu(self.conv1(inputs)))
        values = max_pool(jax.nn.relu(self.conv2(values)))
        return jax.nn.relu(self.dense(values.reshape(values.shape[0], -1)))

    def __call__(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """(n, h, w, c) to (n, outputs)."""
        return self.head(self.features(inputs, rngs=rngs)).astype(self.dtype)


def cnn(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    width: int = 16,
    hidden: int = 128,
    dtype: Any = jnp.float32,
    compute_dtype: Any = None,
) -> Model:
    """Small convolutional network without normalisation.

    Args:
        input_shape: (height, width, channels) of one image, at least 4 × 4.
        outputs: Classes or regression targets.
        width: Channels of the first convolution; the second has twice as many.
        hidden: Units of the dense layer before the head.
        dtype: Dtype of parameters and outputs.
        compute_dtype: Dtype of the arithmetic in between; None takes ``dtype``.

    Raises:
        ValueError: ``input_shape`` is not that of an image.
    """
    if len(input_shape) != 3 or min(input_shape[:2]) < 4:
        raise ValueError(
            f"cnn needs images of shape (height, width, channels) with at least 4 x 4 "
            f"pixels, got examples of shape {input_shape}; use the mlp for flat inputs"
        )
    return from_nnx(
        lambda rngs: CNN(
            input_shape, outputs, width, hidden, dtype, compute_dtype, rngs
        )
    )
