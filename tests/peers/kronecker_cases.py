"""Nets of the tests of Kronecker factors: linear ones, and one example."""

import functools

import jax
import jax.numpy as jnp
from small_nets import (
    Case,
    labels,
    layers,
    logistic_loss,
    numbers,
    perceptron,
    soft,
)

from unlearn_jax.train.loss import cross_entropy, squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

linear = functools.partial(perceptron, activation=lambda values: values)


def case_of(predict, loss, params, inputs, targets):
    n = len(jax.tree.leaves(inputs)[0])
    return Case(Objective(predict, loss), params, Batch(inputs, targets, jnp.ones(n)))


def of_dict(params, inputs):
    return linear(params, inputs["x"])


def of_mean(params, inputs):
    """One layer at each position, then the mean over positions."""
    return jnp.mean(linear(params, inputs), axis=1)


def of_image(params, inputs):
    kernel = params["kernel"]
    layout = jax.lax.conv_dimension_numbers(
        inputs.shape, kernel.shape, ("NHWC", "HWIO", "NHWC")
    )
    return jax.lax.conv_general_dilated(
        inputs, kernel, (1, 1), "VALID", dimension_numbers=layout
    )


def of_image_mean(params, inputs):
    return jnp.mean(of_image(params, inputs), axis=(1, 2))


def summed_squares(outputs, targets):
    return 0.5 * jnp.sum((outputs - targets) ** 2, axis=tuple(range(1, outputs.ndim)))


ONE = {
    "softmax": lambda: case_of(
        *(linear, cross_entropy, layers(1, 4, 3, 3)),
        *(numbers(2, 1, 4), labels(3, 1, classes=3)),
    ),
    "logits": lambda: case_of(
        *(linear, logistic_loss, layers(1, 3, 3, 2)),
        *(numbers(2, 1, 3), soft(3, 1, 2)),
    ),
}
LINEAR = {
    "scalar": lambda: case_of(
        *(linear, squared_error, layers(4, 4, 3, 1)),
        *(numbers(5, 5, 4), numbers(6, 5, 1)),
    ),
    "vector": lambda: case_of(
        *(linear, squared_error, layers(4, 4, 3, 2)),
        *(numbers(5, 5, 4), numbers(6, 5, 2)),
    ),
    "dict": lambda: case_of(
        *(of_dict, squared_error, layers(4, 4, 3, 2)),
        *({"x": numbers(5, 5, 4)}, numbers(6, 5, 2)),
    ),
}
SHARED = {
    "expand, dense": lambda: case_of(
        *(linear, summed_squares, layers(7, 3, 2, 2)),
        *(numbers(8, 4, 3, 3), numbers(9, 4, 3, 2)),
    ),
    "reduce, dense": lambda: case_of(
        *(of_mean, squared_error, layers(7, 3, 2, 2)),
        *(numbers(8, 4, 3, 3), numbers(9, 4, 2)),
    ),
    "expand, convolution": lambda: case_of(
        *(of_image, summed_squares, {"kernel": numbers(10, 2, 2, 1, 2)}),
        *(numbers(11, 3, 3, 3, 1), numbers(12, 3, 2, 2, 2)),
    ),
    "reduce, convolution": lambda: case_of(
        *(of_image_mean, squared_error, {"kernel": numbers(10, 2, 2, 1, 2)}),
        *(numbers(11, 3, 3, 3, 1), numbers(12, 3, 2)),
    ),
}
