"""A linear map: softmax or ridge regression, where everything is known exactly."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from unlearn_jax.models.model import Model, from_nnx
from unlearn_jax.types import Array


class Linear(nnx.Module):
    """Flatten and apply one affine map, initialised at zero."""

    def __init__(self, inputs: int, outputs: int, dtype: Any, rngs: nnx.Rngs):
        self.head = nnx.Linear(
            inputs,
            outputs,
            kernel_init=nnx.initializers.zeros_init(),
            dtype=dtype,
            param_dtype=dtype,
            rngs=rngs,
        )

    def features(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """The flattened inputs."""
        del rngs
        return inputs.reshape(inputs.shape[0], -1).astype(self.head.param_dtype)

    def __call__(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """(n, …) to (n, outputs)."""
        return self.head(self.features(inputs, rngs=rngs))


def linear(
    input_shape: tuple[int, ...], outputs: int, *, dtype: Any = jnp.float32
) -> Model:
    """Softmax or ridge regression on flattened inputs.

    Args:
        input_shape: Shape of one example.
        outputs: Classes or regression targets.
        dtype: Dtype of parameters and arithmetic.
    """
    size = 1
    for side in input_shape:
        size *= side
    return from_nnx(lambda rngs: Linear(size, outputs, dtype, rngs))
