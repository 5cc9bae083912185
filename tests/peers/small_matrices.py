"""Small matrices of the peers' tests, as operators."""

import jax
import jax.numpy as jnp
import numpy as np
from small_nets import numbers

from unlearn_jax.curvature.operator import linear_operator

SIZE = 8


def close(actual, expected, rtol=1e-8, atol=1e-9):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def symmetric(seed=0, size=SIZE):
    matrix = numbers(seed, size, size)
    return (matrix + matrix.T) / 2


def definite(seed=0, size=SIZE):
    matrix = numbers(seed, size, size)
    return matrix @ matrix.T / size + jnp.eye(size)


def hilbert(size=SIZE):
    places = jnp.arange(size)
    return 1.0 / (places[:, None] + places[None] + 1)


def of(matrix):
    return linear_operator(lambda v: matrix @ v, matrix[0])


def of_tree(matrix):
    """The same on a tree of a list and a tuple."""
    like = [jnp.zeros((2, 3)), (jnp.zeros(2),)]
    unflatten = jax.flatten_util.ravel_pytree(like)[1]
    return linear_operator(
        lambda v: unflatten(matrix @ jax.flatten_util.ravel_pytree(v)[0]), like
    )


def within(estimate, expected, errors=5):
    """Within five standard errors, none of them zero or NaN."""
    for value, stderr, want in zip(
        jax.tree.leaves(estimate.value),
        jax.tree.leaves(estimate.stderr),
        jax.tree.leaves(expected),
        strict=True,
    ):
        assert np.all(stderr > 0)
        assert np.all(np.abs(value - want) < errors * stderr)
