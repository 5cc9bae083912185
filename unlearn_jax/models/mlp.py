"""Multilayer perceptron."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from unlearn_jax.models.model import Model, from_nnx
from unlearn_jax.types import Array


class MLP(nnx.Module):
    """Dense layers with one activation between them."""

    def __init__(
        self,
        sizes: tuple[int, ...],
        activation: Callable[[Array], Array],
        dtype: Any,
        compute_dtype: Any,
        rngs: nnx.Rngs,
    ):
        def dense(fan_in: int, fan_out: int, gain: float) -> nnx.Linear:
            return nnx.Linear(
                fan_in,
                fan_out,
                kernel_init=nnx.initializers.variance_scaling(
                    gain, "fan_in", "uniform"
                ),
                dtype=compute_dtype or dtype,
                param_dtype=dtype,
                rngs=rngs,
            )

        self.hidden = nnx.List(
            [dense(a, b, 2.0) for a, b in itertools.pairwise(sizes[:-1])]
        )
        self.head = dense(sizes[-2], sizes[-1], 1.0)
        self.activation = activation
        self.dtype = dtype

    def features(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """Activations of the last hidden layer."""
        del rngs
        values = inputs.reshape(inputs.shape[0], -1)
        for layer in self.hidden:
            values = self.activation(layer(values))
        return values

    def __call__(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """(n, …) to (n, outputs)."""
        return self.head(self.features(inputs, rngs=rngs)).astype(self.dtype)


def mlp(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    widths: tuple[int, ...] = (128, 128),
    activation: Callable[[Array], Array] = jax.nn.relu,
    dtype: Any = jnp.float32,
    compute_dtype: Any = None,
) -> Model:
    """Multilayer perceptron on flattened inputs.

    Args:
        input_shape: Shape of one example.
        outputs: Classes or regression targets.
        widths: Units of the hidden layers.
        activation: Applied after each hidden layer.
        dtype: Dtype of parameters and outputs.
        compute_dtype: Dtype of the arithmetic in between, such as ``jnp.bfloat16``;
            None takes ``dtype``.
    """
    size = 1
    for side in input_shape:
        size *= side
    sizes = (size, *widths, outputs)
    return from_nnx(lambda rngs: MLP(sizes, activation, dtype, compute_dtype, rngs))
