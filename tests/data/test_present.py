"""What examples of weight zero hold is never seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.data.accumulate import present
from unlearn_jax.data.batch import from_arrays


def test_absent_examples_become_copies_of_the_heaviest():
    batch = from_arrays(
        np.array([[np.nan, 1], [2, 3], [4, 5], [np.inf, 6]]),
        np.array([-7, 1, 2, 9]),
        np.array([0.0, 1.0, 2.0, 0.0]),
    )
    found = present(batch)
    np.testing.assert_array_equal(found.inputs, [[4, 5], [2, 3], [4, 5], [4, 5]])
    np.testing.assert_array_equal(found.targets, [2, 1, 2, 2])
    np.testing.assert_array_equal(found.weights, batch.weights)
    assert found.targets.dtype == jnp.int32


def test_where_all_are_absent_there_are_zeros():
    batch = from_arrays(np.full((2, 3), np.nan), np.array([4, 5]), np.zeros(2))
    found = present(batch)
    assert not np.any(found.inputs)
    assert not np.any(found.targets)


@pytest.mark.parametrize("filling", [0.0, np.nan])
def test_gradients_stay_finite_for_models_that_choke_on_zeros(filling):
    def risk(scale, batch):
        batch = present(batch)
        length = jnp.linalg.norm(batch.inputs, axis=1, keepdims=True)
        return jnp.sum(batch.weights[:, None] * jnp.tanh(scale * batch.inputs / length))

    inputs = np.array([[3.0, 4.0], [filling, filling]])
    batch = from_arrays(inputs, np.zeros(2), np.array([1.0, 0.0]))
    slope = tiny.quick_jit(jax.grad(risk))(1.0, batch)
    expected = 0.6 / np.cosh(0.6) ** 2 + 0.8 / np.cosh(0.8) ** 2
    np.testing.assert_allclose(slope, expected, rtol=1e-12)


def test_present_works_on_weights_that_are_mapped():
    batch = from_arrays(np.array([[np.nan], [1.0]]), np.array([0, 1]), np.ones(2))
    weights = np.array([[0.0, 1.0], [0.0, 0.0]])
    mapped = jax.vmap(lambda w: present(batch._replace(weights=w)).inputs)(weights)
    assert_trees_close(mapped, jnp.array([[[1.0], [1.0]], [[0.0], [0.0]]]), rtol=0)
