"""Smoothed losses: real derivatives, against dense Hessians and known means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax import tree
from unlearn_jax.methods.smoothing import check_smoothing, smoothed


def loss(x):
    return jnp.sum(jnp.cosh(x) * jnp.roll(x, 1)) + jnp.sum(x**4) / 3


POINT = jnp.linspace(-0.7, 0.9, 5)


def part(key, params):
    return loss(params["x"]), params


def value_of(kind, size, **options):
    made = smoothed(part, kind, size, **options)
    return lambda x: made(jax.random.key(0), {"x": x})


def test_the_gradient_penalty_has_the_slope_of_a_hessian_product():
    slope = jax.grad(lambda x: value_of("gradient_penalty", 0.3)(x)[0])(POINT)
    g, h = jax.grad(loss)(POINT), jax.hessian(loss)(POINT)
    expected = g + 0.3 * h @ g / np.linalg.norm(g)
    np.testing.assert_allclose(slope, expected, rtol=1e-10)


def test_the_curvature_penalty_is_the_length_of_a_hessian_product():
    def penalty(x):
        return value_of("curvature_penalty", 0.3)(x)[0]

    along = jax.grad(loss)(POINT)
    along = along / jnp.linalg.norm(along)

    def dense(x):
        return loss(x) + 0.3 * jnp.linalg.norm(jax.hessian(loss)(x) @ along)

    np.testing.assert_allclose(penalty(POINT), dense(POINT), rtol=1e-10)
    np.testing.assert_allclose(
        jax.grad(penalty)(POINT), jax.grad(dense)(POINT), rtol=1e-9
    )


def test_sharpness_is_the_slope_a_radius_uphill():
    made = value_of("sharpness", 0.2)
    slope = jax.grad(lambda x: made(x)[0])(POINT)
    g = jax.grad(loss)(POINT)
    uphill = POINT + 0.2 * g / jnp.linalg.norm(g)
    np.testing.assert_allclose(slope, jax.grad(loss)(uphill), rtol=1e-10)


@pytest.mark.parametrize("size", [1e-2, 1e-1])
def test_the_perturbation_is_as_long_as_it_should_be_in_float32(size):
    params = tree.random_like(
        jax.random.key(1), {"a": jnp.zeros((400, 50), jnp.float32)}, jax.random.normal
    )

    def long(key, at):
        return jnp.sum(jnp.sin(at["a"])), at

    at = smoothed(long, "sharpness", size)(jax.random.key(0), params)[1]
    realised = tree.norm(tree.subtract(at, params))
    assert 0.99 < realised / size < 1.01


def test_random_perturbations_add_half_the_trace():
    # On a quadratic the mean is known: σ²/2 · trace, with a variance that is too.
    scales = jnp.arange(1.0, 6.0)

    def quadratic(key, params):
        return 0.5 * jnp.sum(scales * params["x"] ** 2), ()

    # A program holds a copy of the loss for each sample, so the many are drawn by keys.
    samples, runs, sigma = 3, 100, 0.5
    made = smoothed(quadratic, "random", sigma, samples)
    keys = jax.random.split(jax.random.key(2), runs)
    point = {"x": jnp.zeros(5)}
    values = tiny.quick_jit(jax.vmap(lambda key: made(key, point)[0]))(keys)
    mean = sigma**2 / 2 * float(scales.sum())
    error = sigma**2 / 2 * np.sqrt(2 * float((scales**2).sum()) / (samples * runs))
    assert abs(np.mean(values) - mean) < 4 * error


def test_a_flat_place_is_no_trouble():
    def flat(key, params):
        return jnp.sum(params["x"] ** 2), ()

    for kind in ("sharpness", "gradient_penalty", "curvature_penalty"):
        made = smoothed(flat, kind, 0.1)
        slope = jax.grad(lambda p, made=made: made(jax.random.key(0), p)[0])(
            {"x": jnp.zeros(3)}
        )
        assert np.isfinite(slope["x"]).all()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="choose from none, sharpness"):
        check_smoothing("sam")
