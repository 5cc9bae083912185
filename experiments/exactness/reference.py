"""What a ridge regression should be: integers for the truth, float64 by other roads.

Rows lie on a grid of 2⁻¹⁶, so the sums G = XᵀX and Q = XᵀY are integers in units of
2⁻³² and 2⁻¹⁶. A solution kept in integers too has a residual without any rounding; and
as G + l2 is at least l2, ‖residual‖ / l2 bounds its distance to the true one, whatever
the condition number. numpy and scipy only.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from unlearn_jax.models.random_features import ROW_STEP

GOAL = 1e-24
"""Relative error of the reference, proven."""
_BLOCK, _TALL = 2048, 8192
_UNIT = 128
"""The solution is a multiple of 2⁻¹²⁸."""
_MOST_STEPS, _PATIENCE = 80, 8
_ROW_BITS = round(-math.log2(ROW_STEP))


class Sums(NamedTuple):
    """Value: what is left of the rows, without rounding, and their triangle.

    Attributes:
        gram: XᵀX as integers, units of 2⁻³².
        moment: XᵀY as integers, units of 2⁻¹⁶.
        triangle: R of [X Y] by Householder reflections, its first f rows.
    """

    gram: np.ndarray
    moment: np.ndarray
    triangle: np.ndarray


class Reference(NamedTuple):
    """Value: the solution as high + low, with its proven relative error."""

    high: np.ndarray
    low: np.ndarray
    bound: float


def exact_sums(rows: np.ndarray, targets: np.ndarray) -> Sums:
    """Sums of rows on the grid, a block at a time.

    Args:
        rows: (n, f), multiples of 2⁻¹⁶ below 16, any float dtype.
        targets: (n, k) of 0 and 1.

    Cost: 2 n f² for the products and about 3 n f² for the triangle.
    """
    f, k = rows.shape[1], targets.shape[1]
    gram, moment = np.zeros((f, f), np.int64), np.zeros((f, k), np.int64)
    for first in range(0, len(rows), _BLOCK):
        part = slice(first, first + _BLOCK)
        # Integers of 20 digits: sums of 2,048 products stay below 2⁵³.
        x = np.ldexp(rows[part].astype(np.float64), _ROW_BITS)
        gram += (x.T @ x).astype(np.int64)
        moment += (x.T @ targets[part]).astype(np.int64)
    triangle = np.zeros((0, f + k))
    for first in range(0, len(rows), _TALL):
        part = slice(first, first + _TALL)
        both = np.concatenate([rows[part].astype(np.float64), targets[part]], axis=1)
        triangle = _triangle(np.concatenate([triangle, both]))
    return Sums(gram, moment, triangle)


def floats(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """G and Q in float64; integers below 2⁵³, so nothing is rounded."""
    gram, moment = sums.gram.astype(np.float64), sums.moment.astype(np.float64)
    return np.ldexp(gram, -2 * _ROW_BITS), np.ldexp(moment, -_ROW_BITS)


def cholesky_solution(gram: np.ndarray, moment: np.ndarray, l2: float) -> np.ndarray:
    """The normal equations, solved once in float64; NaN where Cholesky breaks down."""
    try:
        factor = scipy.linalg.cho_factor(gram + l2 * np.eye(len(gram)), lower=True)
    except np.linalg.LinAlgError:
        return np.full(moment.shape, np.nan)
    return scipy.linalg.cho_solve(factor, moment)


def qr_solution(
    triangle: np.ndarray, outputs: int, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares on [X; √l2 I], which does not square the condition.

    Args:
        triangle: From :func:`exact_sums`; an orthogonal factor away from [X Y].
        outputs: k.
        l2: Ridge.

    Returns:
        The solution, and the triangle of [X; √l2 I].
    """
    f = triangle.shape[1] - outputs
    below = np.concatenate([np.sqrt(l2) * np.eye(f), np.zeros((f, outputs))], axis=1)
    whole = _triangle(np.concatenate([triangle, below]))[:f]
    factor, rhs = whole[:, :f], whole[:, f:]
    return scipy.linalg.solve_triangular(factor, rhs), factor


def reference(sums: Sums, l2: float, factor: np.ndarray) -> Reference:
    """The solution of (G + l2) W = Q to ``GOAL``, with residuals in integers.

    Args:
        sums: Integers.
        l2: Any float64 number, taken as it is.
        factor: A triangle of about G + l2; how good it is decides the number of steps
            and nothing else.

    Raises:
        ArithmeticError: the steps do not converge, the problem being too
            ill-conditioned for its triangle in float64.

    Cost: 2 f² k times some tens, for each step; about ten.
    """
    numerator, denominator = float(l2).as_integer_ratio()
    ridge_bits = denominator.bit_length() - 1
    deep = max(ridge_bits, 2 * _ROW_BITS)
    slices = _slices_of_gram(sums.gram)
    rhs = sums.moment.astype(object) << (deep - _ROW_BITS + _UNIT)
    ridge = numerator << (deep - ridge_bits)
    weight = np.zeros(sums.moment.shape, object)
    bounds = []
    for _ in range(_MOST_STEPS):
        product = _product(slices, weight) << (deep - 2 * _ROW_BITS)
        rest = _to_float(rhs - product - ridge * weight, deep + _UNIT)
        length = np.linalg.norm(_to_float(weight, _UNIT))
        left = float(np.linalg.norm(rest))
        bounds.append(left / (l2 * length) if length else math.inf)
        if bounds[-1] <= GOAL:
            high = _to_float(weight, _UNIT)
            low = _to_float(weight - _to_integers(high, _UNIT), _UNIT)
            return Reference(high, low, bounds[-1])
        if len(bounds) > _PATIENCE and bounds[-1] >= bounds[-_PATIENCE]:
            break
        move = scipy.linalg.solve_triangular(factor, rest, trans=1)
        weight = weight + _to_integers(
            scipy.linalg.solve_triangular(factor, move), _UNIT
        )
    raise ArithmeticError(
        f"the reference for l2 = {l2:g} stops at a proven error of {bounds[-1]:.1e}, "
        f"wanted {GOAL:g}"
    )


def off(weight: Any, truth: Reference) -> np.ndarray:
    """W − W*, free of the rounding of W*."""
    return (np.asarray(weight, np.float64) - truth.high) - truth.low


def head_error(weight: Any, truth: Reference) -> float:
    """‖W − W*‖ / ‖W*‖."""
    return float(np.linalg.norm(off(weight, truth)) / np.linalg.norm(truth.high))


def condition_numbers(gram: np.ndarray, l2s: tuple[float, ...]) -> dict[float, float]:
    """Condition of G + l2 for each l2, of the features that are not 0 on all rows.

    The others stay apart, with weight 0, and harm nobody.
    """
    alive = np.flatnonzero(np.diagonal(gram))
    values = scipy.linalg.eigvalsh(gram[np.ix_(alive, alive)])
    least, most = max(float(values[0]), 0.0), float(values[-1])
    return {l2: (most + l2) / (least + l2) for l2 in l2s}


def _triangle(matrix: np.ndarray) -> np.ndarray:
    triangle: Any = np.linalg.qr(matrix, mode="r")
    return triangle


def _digits(f: int) -> int:
    """Digits of integers whose products can be summed f times in float64."""
    return (53 - math.ceil(math.log2(max(f, 2)))) // 2


def _slices_of_gram(gram: np.ndarray) -> list[np.ndarray]:
    """G cut into floats of few digits, the lowest first; entries are not negative."""
    bits, slices = _digits(len(gram)), []
    while not slices or gram.any():
        slices.append((gram & ((1 << bits) - 1)).astype(np.float64))
        gram = gram >> bits
    return slices


def _product(slices: list[np.ndarray], weight: np.ndarray) -> np.ndarray:
    """G W in integers, by exact products of slices."""
    f, k = weight.shape
    bits = _digits(f)
    sign = np.where(weight < 0, -1, 1)
    rest: Any = np.abs(weight)
    parts: list[np.ndarray] = []
    while not parts or rest.any():
        parts.append((sign * (rest & ((1 << bits) - 1))).astype(np.float64))
        rest = rest >> bits
    wide = np.concatenate(parts, axis=1)
    total = np.zeros((f, k), object)
    for i, each in enumerate(slices):
        product = (each @ wide).astype(np.int64).astype(object)
        for j in range(len(parts)):
            total = total + (product[:, k * j : k * (j + 1)] << (bits * (i + j)))
    return total


def _to_float(values: np.ndarray, bits: int) -> np.ndarray:
    """Integers in units of 2⁻ᵇⁱᵗˢ as float64, rounded once."""
    return np.ldexp(values.astype(np.float64), -bits)


def _to_integers(values: np.ndarray, bits: int) -> np.ndarray:
    """Floats as integers in units of 2⁻ᵇⁱᵗˢ; what is smaller is cut off."""
    flat = [int(value) for value in np.ldexp(values, bits).ravel()]
    return np.array(flat, object).reshape(values.shape)
