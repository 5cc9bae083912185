"""Random ReLU features: on a grid, the same bits in any batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.models.random_features import (
    LARGEST_ROW,
    ROW_STEP,
    directions,
    expand,
    random_kernel,
)

D, WIDTH = 37, 50
INPUTS = np.random.default_rng(0).normal(size=(64, D)).astype(np.float32)
EXPAND = jax.jit(expand)


def on_grid(values, step):
    return np.all(np.asarray(values) / step == np.round(np.asarray(values) / step))


def test_everything_lies_on_its_grid(key):
    kernel, unit = random_kernel(key, D, WIDTH), directions(INPUTS)
    rows = EXPAND(unit, kernel)
    assert on_grid(kernel, 2.0**-18)
    assert on_grid(unit, 2.0**-22)
    assert on_grid(rows, ROW_STEP)
    assert float(rows.min()) == 0
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)


def test_rows_are_relu_of_random_directions(key):
    kernel, unit = random_kernel(key, D, WIDTH), directions(INPUTS)
    expected = np.maximum(np.asarray(unit) @ np.asarray(kernel), 0)
    np.testing.assert_allclose(EXPAND(unit, kernel), expected, atol=ROW_STEP / 2)
    wide = random_kernel(key, D, 4000)
    active = np.asarray(EXPAND(unit, wide))
    error = np.sqrt(5 / 4) / np.sqrt(active.size)
    assert abs(np.mean(active**2) - 0.5) < 4 * error * np.sqrt(len(unit))


def test_a_row_has_the_same_bits_in_any_batch(key):
    kernel = random_kernel(key, D, WIDTH)
    rows = np.asarray(EXPAND(directions(INPUTS), kernel))
    turned = np.asarray(EXPAND(directions(INPUTS[::-1]), kernel))[::-1]
    alone = np.stack(
        [np.asarray(EXPAND(directions(x[None]), kernel))[0] for x in INPUTS]
    )
    whole = (np.asarray(directions(INPUTS)) * 2.0**22).astype(object)
    by_integers = whole @ (np.asarray(kernel) * 2.0**18).astype(object)
    exact = np.asarray(by_integers / 2.0**40, float)
    expected = np.round(np.clip(exact, 0, LARGEST_ROW) / ROW_STEP) * ROW_STEP
    np.testing.assert_array_equal(rows, turned)
    np.testing.assert_array_equal(rows, alone)
    np.testing.assert_array_equal(rows, expected)


def test_scale_does_not_matter_and_zero_stays_zero(key):
    np.testing.assert_array_equal(directions(INPUTS), directions(INPUTS * 2.0**90))
    np.testing.assert_array_equal(directions(np.zeros((2, D))), np.zeros((2, D)))
    assert directions(np.zeros((2, 3, 4))).shape == (2, 12)


def test_float32(key):
    kernel = random_kernel(key, D, WIDTH, dtype=jnp.float32)
    rows = expand(directions(INPUTS, dtype=jnp.float32), kernel)
    assert rows.dtype == jnp.float32
    wide = EXPAND(directions(INPUTS), kernel.astype(jnp.float64))
    np.testing.assert_allclose(rows, wide, atol=2 * ROW_STEP)


@pytest.mark.parametrize(("d", "width"), [(0, 5), (5, 0), (5, 16_385)])
def test_impossible_sizes_are_named(key, d, width):
    with pytest.raises(ValueError, match=f"got {d} and {width}"):
        random_kernel(key, d, width)
