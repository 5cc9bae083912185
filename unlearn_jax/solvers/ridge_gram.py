"""Ridge regression kept as sums: Gram matrix and moments, free of history.

The minimiser of Σ w ‖y − xW‖² + l2 ‖W‖² depends on rows only through G = Σ w x xᵀ and
Q = Σ w x yᵀ. Rows that are added and removed as exact numbers leave no trace, not in
the last bit: the state is the one that never saw them.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import dynamic_slice_in_dim
from jaxtyping import Bool, DTypeLike, Float, Int

from unlearn_jax.data.accumulate import present
from unlearn_jax.loop import fori_loop, while_loop
from unlearn_jax.solvers.extended import (
    Pair,
    digits,
    norm,
    pair_add,
    residual,
    rows_product,
    two_sum,
)
from unlearn_jax.solvers.powers import exponent, power_of_two
from unlearn_jax.solvers.refusal import (
    APPLIED,
    ILL_CONDITIONED,
    INDEFINITE,
    NOT_FINITE,
    TOO_LARGE,
    TOO_MUCH,
    settle,
)
from unlearn_jax.solvers.ridge_checks import check_rows, check_start, too_large
from unlearn_jax.types import Batch, Scalar

BLOCK = 2048
"""Rows per exact product: 21 digits each in float64."""


class GramRidge(NamedTuple):
    """Value: ridge regression as exact sums.

    Attributes:
        weight: The solution W of the latest solve.
        gram: G rounded to its dtype; without the ridge.
        gram_low: What rounding took from ``gram``.
        moment: Q, likewise.
        moment_low: Likewise.
        l2: Coefficient of ‖W‖² (no factor ½, not scaled by the number of rows).
        count: Total weight of the rows within.
        residual: ‖Q − (G + l2) W‖ / (‖G + l2‖ ‖W‖ + ‖Q‖) of the latest solve, Frobenius
            norms, with twice the digits of the dtype: its backward error.
        error: Relative error that the latest solve left in ``weight``: the correction
            that would come next, over ‖W‖; at least the rounding of W.
        exact: Whether no sum was ever rounded: then the state has no history. Rows of
            weights other than 0 and 1 are rounded.
        code: Index into ``refusal.REFUSALS``, of the latest request.
    """

    weight: Float[Array, "f k"]
    gram: Float[Array, "f f"]
    gram_low: Float[Array, "f f"]
    moment: Float[Array, "f k"]
    moment_low: Float[Array, "f k"]
    l2: Scalar
    count: Scalar  # pyright: ignore[reportIncompatibleMethodOverride]
    residual: Scalar
    error: Scalar
    exact: Bool[Array, ""]
    code: Int[Array, ""]


def gram_start(
    f: int, k: int, *, l2: float, dtype: DTypeLike = jnp.float64
) -> GramRidge:
    """Nothing learnt: all sums and weights are zero.

    Args:
        f: Features.
        k: Outputs; 0 while no class is known, see ``ridge.add_class``.
        l2: Coefficient of ‖W‖².
        dtype: Of all sums.

    Raises:
        ValueError: ``l2`` not positive, no features, or float64 while JAX's
            64-bit mode is off.
    """
    check_start(f, k, l2, dtype)
    # Buffers of their own: one that is shared could not be donated.
    square, flat = partial(jnp.zeros, (f, f), dtype), partial(jnp.zeros, (f, k), dtype)
    zero = partial(jnp.zeros, (), dtype)
    return GramRidge(
        flat(),
        square(),
        square(),
        flat(),
        flat(),
        jnp.asarray(l2, dtype),
        zero(),
        zero(),
        zero(),
        jnp.asarray(True),
        jnp.asarray(APPLIED, jnp.int32),
    )


def gram_add(
    state: GramRidge, rows: Batch, *, slices: int = 3, solve: bool = True
) -> GramRidge:
    """Learn rows.

    Args:
        state: Before.
        rows: Features (n, f), targets (n, k), weights; weight 0 means absent.
        slices: How many pieces of 21 digits each number is cut into (9 in float32) so
            that products are exact: in float64, 1 suffices for rows on a grid of 21
            digits and is up to six times cheaper; what does not fit is lost, and
            ``exact`` says so. 0: plain products, compensated sums.
        solve: Whether to bring ``weight`` up to date; False while requests follow. Then
            a matrix that is not positive definite is met by the later
            :func:`gram_solve` alone, which can undo nothing: keep the state before.

    Returns:
        The state after; refused requests change ``code`` alone: NaN and infinity, and
        what is too large to be forgotten again, see ``ridge_checks.too_large``.

    Raises:
        ValueError: shapes or dtypes that do not fit the state.

    Cost: n f² for one slice, f³/3 for the solve. Memory: four matrices (f, f) beside
        the state for the sums of one slice, nine with the solve, eleven with three.
    """
    return _change(state, rows, 1, slices, solve)


def gram_remove(
    state: GramRidge, rows: Batch, *, slices: int = 3, solve: bool = True
) -> GramRidge:
    """Forget rows: what is left is the fit without them.

    Refused, with ``code`` alone changed: rows that leave a negative weight, or a
    matrix that is not positive definite. A row that was never learned is not always
    noticed, since other rows may span it; see ``methods.ledger``.

    Args, Returns, Raises, Cost: as :func:`gram_add`.
    """
    return _change(state, rows, -1, slices, solve)


def gram_replace(
    state: GramRidge, old: Batch, new: Batch, *, slices: int = 3
) -> GramRidge:
    """Forget ``old`` and learn ``new`` with one solve; both or neither."""
    between = gram_remove(state, old, slices=slices, solve=False)
    after = gram_add(between, new, slices=slices)
    code = jnp.where(between.code == APPLIED, after.code, between.code)
    return settle(state, after, code)


def gram_add_sums(state: GramRidge, other: GramRidge) -> GramRidge:
    """Learn all that another state holds: a task kept apart, another client's rows.

    Cost: f³/3 for the solve, whatever the number of rows.
    """
    return _change_sums(state, other, 1)


def gram_remove_sums(state: GramRidge, other: GramRidge) -> GramRidge:
    """Forget all that another state holds: a whole task, without its rows."""
    return _change_sums(state, other, -1)


def gram_solve(state: GramRidge, *, bound: float | None = None) -> GramRidge:
    """Bring ``weight`` up to date from the sums alone, so from no history.

    Cholesky of the matrix scaled to a diagonal near 1, then refinement with residuals
    of twice the digits: the rate at which the corrections shrink tells the error that
    is left, and they go on until it is that of rounding W.

    Args:
        state: Its sums count.
        bound: Refuse (``ILL_CONDITIONED``) when ``error`` stays above; by default
            1e-9 in float64 and 1e-3 in float32.

    Cost: f³/3, and per step of refinement (one to three; ten at most) products of the
    matrix with 13 k columns.
    """
    dtype = state.gram.dtype
    if bound is None:
        bound = 1e-9 if digits(dtype) == 53 else 1e-3
    matrix = Pair(state.gram, state.gram_low)
    rhs = Pair(state.moment, state.moment_low)
    diagonal = jnp.maximum(jnp.diagonal(state.gram), 0) + state.l2
    scale = power_of_two(-(exponent(diagonal) // 2), dtype)[:, None]
    places = jnp.arange(state.gram.shape[0])
    scaled = state.gram * scale * scale.T
    scaled = scaled.at[places, places].add(state.l2 * scale[:, 0] ** 2)
    # Its transpose, since LAPACK reads columns: else all sums would be laid out anew.
    factor = jnp.linalg.cholesky(scaled.T, symmetrize_input=False)
    definite = jnp.all(jnp.isfinite(jnp.diagonal(factor)))

    def step(carry: _Refinement) -> _Refinement:
        move = scale * jax.scipy.linalg.cho_solve((factor, True), scale * carry.rest)
        weight = carry.weight + move
        size, length = norm(move), norm(weight)
        # What the next correction would be, at the rate at which they shrink.
        rate = jnp.where(carry.steps > 0, size / carry.size, 1)
        error = size * rate / jnp.where(length > 0, length, 1)
        error = jnp.where(size > 0, jnp.maximum(error, rounding), 0)
        shrinks = size <= carry.size / 2
        rest = residual(matrix, state.l2, weight, rhs)
        moved = _Refinement(weight, rest, size, error, shrinks, carry.steps + 1)
        # A correction that no longer shrinks is rounding: it is not taken.
        kept = jax.tree.map(lambda a, b: jnp.where(shrinks, a, b), moved, carry)
        idle = size / jnp.maximum(norm(carry.weight), jnp.finfo(dtype).tiny)
        error = jnp.where(shrinks, error, jnp.maximum(carry.error, idle))
        going = shrinks & (error > rounding)
        return kept._replace(error=error, going=going, steps=moved.steps)

    rounding = float(jnp.finfo(dtype).eps) / 2
    infinite = jnp.asarray(jnp.inf, dtype)
    weight, rest, _, error, _, _ = while_loop(
        lambda carry: carry.going & (carry.steps < 10),
        step,
        _Refinement(
            jnp.zeros_like(state.weight), rhs.high, infinite, infinite, definite, 0
        ),
    )
    size = (norm(state.gram) + state.l2) * norm(weight) + norm(rhs.high)
    left = norm(rest) / jnp.where(size > 0, size, 1)
    code = jnp.where(error <= bound, APPLIED, ILL_CONDITIONED)
    code = jnp.where(definite, code, INDEFINITE).astype(jnp.int32)
    solved = state._replace(weight=weight, residual=left, error=error, code=code)
    return settle(state, solved, code)


class _Refinement(NamedTuple):
    """Value: where a refinement stands."""

    weight: Array
    rest: Array
    size: Array
    error: Array
    going: Array
    steps: Any


def _change(
    state: GramRidge, rows: Batch, sign: int, slices: int, solve: bool
) -> GramRidge:
    f, k = state.weight.shape
    check_rows(f, k, state.gram.dtype, rows)
    rows = present(rows)
    finite = jnp.all(jnp.isfinite(rows.inputs)) & jnp.all(jnp.isfinite(rows.targets))
    finite &= jnp.all(jnp.isfinite(rows.weights) & (rows.weights >= 0))
    root = jnp.sqrt(jnp.asarray(rows.weights))[:, None]
    x, y = root * rows.inputs, root * rows.targets
    gram, moment = (
        Pair(state.gram, state.gram_low),
        Pair(state.moment, state.moment_low),
    )
    sums = _add_blocks(_Sums(gram, moment, state.exact), x, y, sign, slices)
    total, lost = two_sum(state.count, sign * jnp.sum(jnp.asarray(rows.weights)))
    # The root of any other weight is rounded, and so are its products.
    plain = jnp.all((rows.weights == 0) | (rows.weights == 1)) & (lost == 0)
    changed = state._replace(
        gram=sums.gram.high,
        gram_low=sums.gram.low,
        moment=sums.moment.high,
        moment_low=sums.moment.low,
        count=total,
        exact=sums.exact & plain,
    )
    large = too_large(x, y, state.l2) if sign > 0 else jnp.asarray(False)
    return _finish(state, changed, finite, solve, large)


class _Sums(NamedTuple):
    """Value: both sums, and whether they were never rounded."""

    gram: Pair
    moment: Pair
    exact: Array


def _add_blocks(sums: _Sums, x: Array, y: Array, sign: int, slices: int) -> _Sums:
    """Rows of a block at a time: as many as slices of enough digits allow."""
    block = min(BLOCK if digits(x.dtype) == 53 else 64, x.shape[0])
    extra = -x.shape[0] % block
    x, y = (jnp.pad(each, ((0, extra), (0, 0))) for each in (x, y))

    def one(i: Array, sums: _Sums) -> _Sums:
        own, answers = (dynamic_slice_in_dim(e, i * block, block) for e in (x, y))
        if not slices:
            square = jnp.matmul(own.T, own, precision="highest")
            flat = jnp.matmul(own.T, answers, precision="highest")
            gram, _ = pair_add(sums.gram, sign * (square + square.T) / 2)
            moment, _ = pair_add(sums.moment, sign * flat)
            return _Sums(gram, moment, jnp.zeros_like(sums.exact))
        product = partial(rows_product, sign=sign, slices=slices)
        gram, kept = product(sums.gram, own)
        moment, also = product(sums.moment, own, answers)
        return _Sums(gram, moment, sums.exact & kept & also)

    count = x.shape[0] // block
    if count == 1:
        return one(jnp.asarray(0), sums)
    return fori_loop(0, count, one, sums)


def _change_sums(state: GramRidge, other: GramRidge, sign: int) -> GramRidge:
    if state.weight.shape != other.weight.shape:
        raise ValueError(
            f"the states hold weights {state.weight.shape} and {other.weight.shape}; "
            f"add the missing classes first"
        )
    gram, moment = (
        Pair(state.gram, state.gram_low),
        Pair(state.moment, state.moment_low),
    )
    total, lost = two_sum(state.count, sign * other.count)
    exact = state.exact & other.exact & (lost == 0)
    for term in (other.gram, other.gram_low):
        gram, kept = pair_add(gram, sign * term)
        exact &= kept
    for term in (other.moment, other.moment_low):
        moment, kept = pair_add(moment, sign * term)
        exact &= kept
    changed = state._replace(
        gram=gram.high,
        gram_low=gram.low,
        moment=moment.high,
        moment_low=moment.low,
        count=total,
        exact=exact,
    )
    return _finish(state, changed, jnp.asarray(True), True, jnp.asarray(False))


def _finish(
    before: GramRidge, after: GramRidge, finite: Array, solve: bool, large: Array
) -> GramRidge:
    """The new state, or the old one with the reason for the refusal."""
    trace = jnp.maximum(jnp.trace(before.gram), jnp.trace(after.gram))
    slack = 8 * jnp.finfo(before.gram.dtype).eps * trace
    slack = jnp.where(after.exact, 0, slack)
    diagonal = jnp.diagonal(after.gram)
    code = jnp.where(jnp.all(diagonal >= -slack), APPLIED, INDEFINITE)
    lost = 1e-6 if digits(before.gram.dtype) < 53 else 1e-12
    lost = lost * jnp.maximum(before.count, after.count)
    code = jnp.where(after.count < -lost, TOO_MUCH, code)
    code = jnp.where(large, TOO_LARGE, code)
    finite &= jnp.isfinite(trace) & jnp.all(jnp.isfinite(after.moment))
    code = jnp.where(finite, code, NOT_FINITE).astype(jnp.int32)
    if solve:
        safe = settle(before, after, code)
        solved = gram_solve(safe)
        code = jnp.where(code == APPLIED, solved.code, code)
        after = solved
    return settle(before, after, code)
