"""Pooling by tiles equals XLA's, ties and derivatives included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_kernels.pooling import IMPLEMENTATIONS, max_pool2d

SHAPES = [
    ((3, 6, 8, 5), (2, 2)),
    ((2, 7, 5, 3), (2, 2)),
    ((2, 6, 7, 1), (3, 2)),
    ((2, 4, 4, 2), (4, 4)),
    ((2, 3, 3, 2), (1, 1)),
]
shapes = pytest.mark.parametrize(("shape", "window"), SHAPES)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])


def images(shape, dtype, seed=0):
    """Few distinct values, so that most windows hold ties."""
    return jnp.asarray(np.random.default_rng(seed).integers(-2, 3, shape), dtype)


def loss(x, window, implementation):
    pooled = max_pool2d(x, window, implementation=implementation)
    return jnp.sum(pooled * jnp.cos(pooled))


@shapes
@dtypes
def test_value_and_gradient_equal_reference_also_at_ties(shape, window, dtype):
    x = images(shape, dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def both(implementation):
        value = max_pool2d(x, window, implementation=implementation)
        return value, jax.grad(loss)(x, window, implementation)

    for actual, expected in zip(both("tiles"), both("reference"), strict=True):
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)


@shapes
def test_hessian_product_equals_reference(shape, window):
    x, v = jnp.asarray(np.random.default_rng(0).normal(size=(2, *shape)))

    @functools.partial(jax.jit, static_argnums=2)
    def product(x, v, implementation):
        slope = functools.partial(
            jax.grad(loss), window=window, implementation=implementation
        )
        return jax.jvp(slope, (x,), (v,))[1]

    actual, expected = product(x, v, "tiles"), product(x, v, "reference")
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_tangent_and_gradient_are_adjoint():
    x, v = images((2, 6, 6, 3), "float64"), images((2, 6, 6, 3), "float64", 1)
    pooled, tangent = jax.jit(lambda x, v: jax.jvp(max_pool2d, (x,), (v,)))(x, v)
    (back,) = jax.jit(lambda x, u: jax.vjp(max_pool2d, x)[1](u))(x, pooled)
    np.testing.assert_allclose(jnp.vdot(pooled, tangent), jnp.vdot(back, v))


def test_vmap_equals_a_loop():
    x = images((4, 2, 6, 4, 3), "float64")
    slope = jax.jit(
        functools.partial(jax.grad(loss), window=(2, 2), implementation="tiles")
    )
    together = jax.vmap(slope)(x)
    np.testing.assert_array_equal(together, jnp.stack([slope(each) for each in x]))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_not_a_number_is_not_lost(implementation):
    for position in range(4):
        x = jnp.zeros((1, 2, 2, 1), jnp.float32)
        x = x.at[0, position // 2, position % 2, 0].set(jnp.nan)
        assert jnp.isnan(max_pool2d(x, implementation=implementation)).all()


def test_impossible_windows_are_refused():
    x = jnp.zeros((1, 4, 4, 1), jnp.float32)
    with pytest.raises(ValueError, match="between 1 and the image"):
        max_pool2d(x, (5, 1))
    with pytest.raises(ValueError, match="between 1 and the image"):
        max_pool2d(x, (0, 1))
    with pytest.raises(ValueError, match="choose one of reference, tiles"):
        max_pool2d(x, implementation="fast")
    with pytest.raises((ValueError, TypeError)):
        max_pool2d(x[0])
