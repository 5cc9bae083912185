"""Sums and products without rounding, against rational numbers."""

from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.solvers.extended import (
    Pair,
    cut,
    pair_add,
    residual,
    rows_product,
    slice_digits,
    two_sum,
)

pytestmark = pytest.mark.optimised

RANDOM = np.random.default_rng(0)


def wild(*shape):
    return RANDOM.normal(size=shape) * 10.0 ** RANDOM.integers(-8, 8, shape)


def rational(array):
    flat = [Fraction(float(x)) for x in np.asarray(array).ravel()]
    return np.array(flat, dtype=object).reshape(np.shape(array))


def value_of(pair):
    return rational(pair.high) + rational(pair.low)


def pair(high, low):
    return Pair(jnp.asarray(high), jnp.asarray(low))


def zeros(*shape):
    return pair(np.zeros(shape), np.zeros(shape))


def test_two_sum_has_no_error():
    a, b = wild(500), wild(500)
    assert np.all(value_of(jax.jit(two_sum)(a, b)) == rational(a) + rational(b))


def test_a_pair_does_not_depend_on_the_order_of_its_terms():
    terms = np.round(RANDOM.normal(size=(40, 30)) * 2.0**30) * 2.0 ** np.arange(30)

    @jax.jit
    def total(terms):
        pair, exact = zeros(30), jnp.asarray(True)
        for term in terms:
            pair, kept = pair_add(pair, term)
            exact &= kept
        return pair, exact

    first, exact = total(terms)
    second, _ = total(terms[::-1])
    assert bool(exact)
    assert np.all(value_of(first) == sum(rational(term) for term in terms))
    assert np.all(first.high == second.high)
    assert np.all(first.low == second.low)


def test_a_pair_says_when_it_had_to_round():
    wide = jnp.array([2.0**60])
    pair, exact = pair_add(Pair(wide, jnp.array([2.0**-40])), jnp.array([2.0**-100]))
    assert not bool(exact)
    assert value_of(pair)[0] == Fraction(2) ** 60 + Fraction(2) ** -40


@pytest.mark.parametrize("scale", [1.0, 1e-250, 1e290])
def test_slices_and_remainder_add_up(scale):
    values = wild(7, 5) * scale
    slices, rest = cut(jnp.asarray(values), 21, 3, 0)
    assert np.all(sum(map(rational, slices)) + rational(rest) == rational(values))
    for part in slices if scale == 1 else []:
        _, exponent = np.frexp(np.abs(part).max(0))
        units = np.asarray(part) / 2.0 ** (exponent - 22.0)
        assert np.all(units == np.round(units))


@pytest.mark.parametrize(("slices", "error"), [(1, 1e-5), (2, 1e-11), (3, 1e-17)])
@pytest.mark.parametrize("same", [True, False])
def test_product_of_rows_is_exact_up_to_its_slices(slices, error, same):
    x = RANDOM.normal(size=(30, 5))
    y = x if same else RANDOM.normal(size=(30, 4))
    start = Pair(jnp.full((5, y.shape[1]), 2.0), zeros(5, y.shape[1]).low)
    product = jax.jit(partial(rows_product, sign=-1, slices=slices))
    found, _ = product(start, x, None if same else y)
    off = value_of(found) - 2 + rational(x).T @ rational(y)
    assert np.max(np.abs(off)) < error
    if slices == 1:
        assert np.max(np.abs(off)) > 1e-9


@pytest.mark.parametrize("n", [1, 100, 2048])
def test_rows_on_a_grid_need_one_slice(n):
    x = np.round(RANDOM.normal(size=(n, 6)) * 2.0**16) / 2.0**16
    found, exact = jax.jit(partial(rows_product, slices=1))(zeros(6, 6), x)
    assert bool(exact)
    assert slice_digits(np.float64, n) >= 21
    # Integers of Python have no rounding either.
    whole = np.array((x * 2.0**16).astype(int), dtype=object)
    assert np.all(value_of(found) * 2**32 == whole.T @ whole)
    assert np.all(found.high == found.high.T)


def test_what_a_slice_leaves_out_is_told():
    x = np.array([[1.0, 1.0 + 2.0**-40]])
    _, exact = rows_product(zeros(2, 2), jnp.asarray(x), slices=1)
    assert not bool(exact)
    _, exact = rows_product(zeros(2, 2), jnp.asarray(x), slices=3)
    assert bool(exact)


def test_residual_has_digits_to_spare():
    matrix = RANDOM.normal(size=(9, 9))
    matrix = matrix @ matrix.T
    value = RANDOM.normal(size=(9, 2))
    high = matrix @ value
    low = RANDOM.normal(size=(9, 9)) * 1e-17
    shift, zero = np.float64(1e-6) / 3, np.zeros((9, 2))
    rest = jax.jit(residual)(pair(matrix, low), shift, value, pair(high, zero))
    exact = rational(high) - (rational(matrix) + rational(low)) @ rational(value)
    exact = exact - rational(shift).item() * rational(value)
    off = np.abs(rational(rest) - exact)
    assert 1e-7 < np.max(np.abs(exact)) < 1e-5
    assert np.max(off) < 1e-22


def test_residual_in_float32_beats_a_plain_product():
    f = 300
    matrix = RANDOM.normal(size=(f, f)).astype(np.float32)
    value = RANDOM.normal(size=(f, 2)).astype(np.float32)
    wide = matrix.astype(np.float64) @ value.astype(np.float64)
    rhs = pair(wide.astype(np.float32), np.zeros((f, 2), np.float32))
    exact = np.asarray(rhs.high, np.float64) - wide
    zero = np.zeros_like(matrix)
    found = jax.jit(residual)(pair(matrix, zero), np.float32(0), value, rhs)
    plain = rhs.high - matrix @ value
    assert found.dtype == np.float32
    assert np.linalg.norm(found - exact) < np.linalg.norm(plain - exact)
