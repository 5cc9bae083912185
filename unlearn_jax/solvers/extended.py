"""Sums and products without rounding, from ordinary arithmetic.

A value is kept as an unevaluated pair ``high + low`` with ``high`` the nearest number
of its dtype: twice the digits. A product is free of rounding if its factors are cut
into slices so short that no sum of their products needs more digits than the dtype has:
then the order of summation does not matter, on any machine.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import dynamic_slice_in_dim
from jaxtyping import Bool, Float

from unlearn_jax.solvers.powers import exponent, power_of_two
from unlearn_jax.types import Scalar
from unlearn_kernels.target import target_platform


class Pair(NamedTuple):
    """Value: high + low, unevaluated; ``high`` is the sum rounded to its dtype."""

    high: Float[Array, "..."]
    low: Float[Array, "..."]


def two_sum(a: Array, b: Array) -> Pair:
    """A + b without error: the rounded sum, and what rounding took from it.

    Cost: six additions. Source: Knuth 1997, The Art of Computer Programming 2, 4.2.2.
    """
    total = a + b
    other = total - a
    return Pair(total, (a - (total - other)) + (b - other))


def pair_add(pair: Pair, term: Array) -> tuple[Pair, Bool[Array, ""]]:
    """Add an array to a pair.

    Returns:
        The new pair, the same bits whatever the order in which its terms came, and
        whether nothing was rounded at all.
    """
    total, left = two_sum(pair.high, term)
    low, lost = two_sum(pair.low, left)
    return two_sum(total, low), ~jnp.any(lost != 0)


def digits(dtype: object) -> int:
    """Binary digits of a floating-point dtype: 53 in float64, 24 in float32."""
    return int(jnp.finfo(dtype).nmant) + 1  # pyright: ignore[reportArgumentType]


def slice_digits(dtype: object, terms: int) -> int:
    """Most digits of factors whose products can be summed ``terms`` times exactly."""
    return (digits(dtype) - math.ceil(math.log2(max(terms, 1)))) // 2


@functools.partial(jax.jit, static_argnames=("bits", "count", "axis"))
def cut(values: Array, bits: int, count: int, axis: int) -> tuple[list[Array], Array]:
    """Slices of ``bits`` digits, the leading ones first, and what is left over.

    Args:
        values: Finite.
        bits: Digits per slice.
        count: Slices.
        axis: Along which all entries share the units of their slices: the axis that a
            product will sum over.

    Returns:
        The slices and the remainder; their sum is ``values`` without error.

    Raises:
        NotImplementedError: float64 in a program for a TPU, which has none.
    """
    if target_platform() == "tpu" and digits(values.dtype) > 24:
        raise NotImplementedError(
            "float64 on a TPU is a pair of float32 numbers, whose sums are rounded in "
            "their own way: no sum could be kept free of rounding; keep this state in "
            "float32, or on the CPU under jax.default_device(jax.devices('cpu')[0])"
        )
    largest = jnp.max(jnp.abs(values), axis=axis, keepdims=True)
    top = exponent(jnp.where(largest > 0, largest, 1))
    least = int(jnp.finfo(values.dtype).minexp) + 2
    slices = []
    for position in range(count):
        # Units below this one have no inverse; what they would hold is left over.
        place = jnp.maximum(top - bits * (position + 1), least)
        unit, inverse = (power_of_two(e, values.dtype) for e in (place, -place))
        part = jnp.round(values * inverse) * unit
        slices.append(part)
        values = values - part
    return slices, values


def rows_product(
    total: Pair,
    left: Array,
    right: Array | None = None,
    *,
    sign: int = 1,
    slices: int = 3,
) -> tuple[Pair, Bool[Array, ""]]:
    """``total + sign · leftᵀ right`` without rounding, where the slices reach.

    Args:
        total: (f, k).
        left: Rows (n, f), n at most 2,048 in float64 for slices of 21 digits.
        right: Rows (n, k); None: the left ones.
        sign: 1 or −1.
        slices: Slices of the left factor; one takes rows of up to 21 digits. The right
            one, if it is another, is cut into three.

    Returns:
        The new pair, and whether every digit of every product was counted.

    Cost: n f k for each pair of slices; of the same rows, s (s + 1) / 2 pairs.
    """
    bits = slice_digits(left.dtype, left.shape[0])
    lefts, rest = cut(left, bits, slices, 0)
    exact = ~jnp.any(rest != 0) & _no_underflow(left, bits * slices)
    same = right is None
    rights = lefts
    if right is not None:
        rights, rest = cut(right, bits, 3, 0)
        exact &= ~jnp.any(rest != 0) & _no_underflow(right, bits * 3)
    for i, a in enumerate(lefts):
        for j, b in enumerate(rights):
            if same and j < i:
                continue
            product = sign * jnp.matmul(a.T, b, precision="highest")
            terms = [product, product.T] if same and j > i else [product]
            for term in terms:
                total, kept = pair_add(total, term)
                exact &= kept
    return total, exact


_PANEL, _NARROW = 1024, 64
"""Rows of a matrix that are cut into slices at a time; in float32, columns."""


def _no_underflow(rows: Array, bits: int) -> Bool[Array, ""]:
    """Whether products of units of the last slices are normal numbers."""
    largest = jnp.max(jnp.abs(rows), axis=0)
    least = int(jnp.finfo(rows.dtype).minexp) // 2
    return jnp.all((largest == 0) | (exponent(largest) - bits >= least))


def residual(
    matrix: Pair, shift: Array, value: Array, rhs: Pair
) -> Float[Array, "f k"]:
    """``rhs − (matrix + shift) value`` with twice the digits of the dtype.

    Args:
        matrix: (f, f), symmetric.
        shift: Scalar on its diagonal.
        value: (f, k).
        rhs: (f, k).

    Cost: four products with the matrix, three of them of 4 k columns; in float32 by
    panels of 64 of its columns.
    """
    f = matrix.high.shape[0]
    total = _less(rhs, shift, value)
    if digits(value.dtype) < 53:
        return _narrow_residual(matrix, value, total)
    parts = []
    for start in range(0, f, _PANEL):
        part = slice(start, start + _PANEL)
        panel = Pair(matrix.high[part], matrix.low[part])
        rest = _minus_product(Pair(total.high[part], total.low[part]), panel, value)
        parts.append(rest.high + rest.low)
    return jnp.concatenate(parts)


def _narrow_residual(matrix: Pair, value: Array, total: Pair) -> Array:
    """The same over panels of 64 columns, whose sums leave slices of 9 digits."""
    f = value.shape[0]
    extra = -f % _NARROW
    wide = Pair(*(jnp.pad(each, ((0, 0), (0, extra))) for each in matrix))
    tall = jnp.pad(value, ((0, extra), (0, 0)))

    def body(i: Array, total: Pair) -> Pair:
        first = i * _NARROW
        columns = (dynamic_slice_in_dim(each, first, _NARROW, 1) for each in wide)
        rows = dynamic_slice_in_dim(tall, first, _NARROW, 0)
        return _minus_product(total, Pair(*columns), rows)

    total = jax.lax.fori_loop(0, (f + extra) // _NARROW, body, total)
    return total.high + total.low


def _minus_product(total: Pair, matrix: Pair, value: Array) -> Pair:
    """``total − matrix @ value``: slices exactly, and the small rest rounded."""
    bits = slice_digits(value.dtype, value.shape[0])
    columns, last = cut(value, bits, 3, 0)
    wide = jnp.concatenate([*columns, last], axis=1)
    rows, left_over = cut(matrix.high, bits, 3, 1)
    for row in rows:
        product = jnp.matmul(row, wide, precision="highest")
        for term in jnp.split(product, 4, axis=1):
            total, _ = pair_add(total, -term)
    small = jnp.matmul(left_over + matrix.low, value, precision="highest")
    total, _ = pair_add(total, -small)
    return total


def _less(total: Pair, scale: Array, value: Array) -> Pair:
    """``total − scale · value``, its products free of rounding but for the last."""
    bits = digits(value.dtype) // 2
    factors, _ = cut(scale[None, None], bits, 3, 0)
    slices, last = cut(value, bits, 2, 0)
    for factor in factors:
        for part in slices:
            total, _ = pair_add(total, -(factor * part))
    total, _ = pair_add(total, -(scale * last))
    return total


def norm(values: Array) -> Scalar:
    """Root of the sum of squares."""
    return jnp.sqrt(jnp.sum(jnp.square(values)))
