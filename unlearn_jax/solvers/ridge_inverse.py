"""Ridge regression kept as its inverse: rows come and go by Woodbury's formula.

What is learnt can be forgotten. A row of s = w ‖x‖² / l2 lowers the inverse along
itself from 1 / l2 to 1 / (l2 (1 + s)) by a subtraction whose rounding is ε / l2. Its
removal has a pivot of at least 1 / (1 + s), whatever else is within and in whatever
order rows go, for the inverse never exceeds I / l2; into this pivot goes the rounding
s ε. So a removal costs a relative error of ε s (1 + s) at most. Learning is refused
where this passes ``row`` for one row, so s > √(row / ε), or where all rows within and
the errors so far pass ``all`` together; then no removal of what was learnt has to be
refused, down to an empty state. Measured, the true error is some third of that sum at
most, and usually far less.

Targets do not enter the inverse. Their sums are kept too, with twice the digits, so
that a target which comes and goes leaves nothing behind: where the weights, updated in
turn, are further from inverse · sums than the rounding of that product and ``error``
allow, the product takes their place.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax.linalg import triangular_solve
from jaxtyping import Float, Int

from unlearn_jax.solvers.extended import Pair, norm, rows_product
from unlearn_jax.solvers.refusal import (
    APPLIED,
    NOT_FINITE,
    TOO_LARGE,
)
from unlearn_jax.solvers.ridge_checks import check_rows, check_start
from unlearn_jax.solvers.ridge_part import Judged, first, judge, root_of, scaled_rows
from unlearn_jax.solvers.symmetric_update import subtract_product
from unlearn_jax.types import Array, Batch, Scalar


class Ridge(NamedTuple):
    """Value: ridge regression over everything learned and not removed since.

    Attributes:
        weight: The solution, inverse · Xᵀ Ω Y for the rows X, targets Y, weights Ω.
        inverse: (Xᵀ Ω X + l2 I)⁻¹, symmetric bit for bit.
        count: Total weight of the rows within.
        margin: Smallest pivot of the latest removal, in (0, 1]; one before the first.
            The digits that a removal loses are about those of 1 / margin.
        error: Estimate of the relative error that removals have left, summed: rounding
            of a relative size ε beside the first inverse I / l2, as the removed rows
            see it, over the margin. Usually too large, for rows in many blocks by far.
        l2: The ridge.
        code: What became of the latest request, an index into ``REFUSALS``.
        moment: Xᵀ Ω Y.
        moment_low: What rounding took from ``moment``.
        reserve: The error that forgetting all rows within would add at most.
    """

    weight: Float[Array, "f k"]
    inverse: Float[Array, "f f"]
    count: Scalar  # pyright: ignore[reportIncompatibleMethodOverride]
    margin: Scalar
    error: Scalar
    l2: Scalar
    code: Int[Array, ""]
    moment: Float[Array, "f k"]
    moment_low: Float[Array, "f k"]
    reserve: Scalar


class Change(NamedTuple):
    """Value: what a request does: inverse − factor · diag(signs) · factorᵀ."""

    weight: Float[Array, "f k"]
    factor: Float[Array, "f n"]
    signs: Float[Array, " n"]
    count: Scalar  # pyright: ignore[reportIncompatibleMethodOverride]
    margin: Scalar
    error: Scalar
    code: Int[Array, ""]
    moment: Float[Array, "f k"]
    moment_low: Float[Array, "f k"]
    reserve: Scalar


def inverse_start(f: int, k: int, *, l2: Any, dtype: Any = jnp.float64) -> Ridge:
    """The state that has learned nothing.

    Args:
        f: Features.
        k: Outputs.
        l2: Added to the diagonal of the Gram matrix, positive; fixed from here on.
        dtype: Of the whole state. In float32 each request adds an error of about
            1e-7 / margin to the inverse, and nothing takes it away again.

    Raises:
        ValueError: l2 is not positive, no features, or float64 without 64-bit mode.
    """
    check_start(f, k, l2, dtype)
    return Ridge(
        jnp.zeros((f, k), dtype),
        jnp.eye(f, dtype=dtype) / jnp.asarray(l2, dtype),
        jnp.zeros((), dtype),
        jnp.ones((), dtype),
        jnp.zeros((), dtype),
        jnp.asarray(l2, dtype),
        jnp.asarray(APPLIED, jnp.int32),
        jnp.zeros((f, k), dtype),
        jnp.zeros((f, k), dtype),
        jnp.zeros((), dtype),
    )


def inverse_add(state: Ridge, rows: Batch) -> Ridge:
    """Learn rows: the ridge solution over the old rows and these.

    K = I + X R Xᵀ = L Lᵀ and V = R Xᵀ L⁻ᵀ give R ← R − V Vᵀ and
    W ← W + V L⁻¹ (Y − X W).

    Args:
        state: From :func:`inverse_start` or an earlier request; :func:`donating`
            updates it in place.
        rows: Inputs (n, f), targets (n, k), weights (n,) ≥ 0; weight 0 is padding.

    Returns:
        The new state; or the old one with the ``code`` ``NOT_FINITE``, where a row, a
        target or a weight is NaN or infinite or a weight is negative, or ``TOO_LARGE``,
        where it could not be forgotten again: √(row / ε) is about 7e5 in float64, 360
        in float32; targets are as in ``ridge_checks.too_large``.

    Raises:
        ValueError: rows do not fit the state.

    Cost: 2 f² n for R Xᵀ, f² n on CPU for R (2 f² n elsewhere and up to 128 rows),
        3 f n² + n³/3; memory 3 f n. More than f rows are first made f rows with the
        same sums XᵀΩX and XᵀΩY by a QR factorisation, 2 f² n.
    Source: Zhuang et al. 2022, NeurIPS (ACIL). Differs: weights, the symmetric factor.
    """
    return _request(state, [(rows, 1)])


def inverse_remove(state: Ridge, rows: Batch) -> Ridge:
    """Forget rows: the ridge solution over all others, no other row needed.

    K = I − X R Xᵀ = L Lᵀ and V = R Xᵀ L⁻ᵀ give R ← R + V Vᵀ and
    W ← W − V L⁻¹ (Y − X W). Of rows that were learned, K's eigenvalues are at least
    l2 / (l2 + largest eigenvalue of the Gram matrix), so that pivots below rounding
    mean rows that were never learned, or a problem too ill-conditioned for this form.
    Rows never learned that the learned ones outweigh leave K positive definite and
    cannot be told apart.

    Args:
        state: As for :func:`inverse_add`.
        rows: Rows as they were learned, with all or a part of their weight.

    Returns:
        The new state; or the old one with a ``code``: ``INDEFINITE`` where a pivot is
        not above its own rounding error, ``ILL_CONDITIONED`` where ``error`` would pass
        1/32 (1/8 in float32; never for rows as they were learned), ``TOO_MUCH`` where
        more weight is taken than is within,
        ``NOT_FINITE`` as for :func:`inverse_add`. What an inverse has lost to rounding
        nothing in it can tell: where errors matter, take ``ridge_kept``.

    Raises:
        ValueError: rows do not fit the state.

    Cost: as :func:`inverse_add`.
    Source: Tang et al. 2025, arXiv 2505.12239. Differs: as :func:`inverse_add`, and
        that it can refuse.
    """
    return _request(state, [(rows, -1)])


def inverse_replace(state: Ridge, old: Batch, new: Batch) -> Ridge:
    """Forget ``old`` and learn ``new``, both or neither, in one pass over the inverse.

    Args:
        state: As for :func:`inverse_add`.
        old: Rows to forget.
        new: Rows to learn.

    Returns:
        The new state, or the old one with the ``code`` of what was refused.

    Raises:
        ValueError: rows do not fit the state.

    Cost: as :func:`inverse_add` of all rows.
    """
    return _request(state, [(old, -1), (new, 1)])


@lru_cache(maxsize=32)
def donating(request: Callable[..., Any]) -> Callable[..., Any]:
    """A request compiled so that it updates the state it is given in place.

    The state passed in must not be used again. Writing into fresh memory would cost
    more than the products of a small request.
    """
    return jax.jit(request, donate_argnums=0)


def change(
    product: Callable[[Array], Array],
    diagonal: Array,
    state: Any,
    parts: list[tuple[Batch, int]],
) -> Change:
    """What requests, one after the other and all or none, do to weight and inverse.

    Args:
        product: From rows (n, f) to inverse · rowsᵀ (f, n); called once.
        diagonal: Of the inverse, for the bound on rounding errors.
        state: Whose ``weight``, ``count`` and ``margin`` are those before.
        parts: Rows with the sign 1 to learn, −1 to forget.

    Returns:
        Change; of a refused request the factor is zero and the rest as it was.
    """
    weight, count = state.weight, state.count
    moment = Pair(state.moment, state.moment_low)
    scaled = [scaled_rows(rows, weight, state.l2) for rows, _ in parts]
    inputs = jnp.concatenate([part.inputs for part in scaled])
    code = jnp.asarray(APPLIED, jnp.int32)
    for part, (_, sign) in zip(scaled, parts, strict=True):
        code = first(code, ~part.finite, NOT_FINITE)
        code = first(code, part.large, TOO_LARGE) if sign > 0 else code
        moment, _ = rows_product(moment, part.own, part.answers, sign=sign)
    images = product(jnp.concatenate([inputs, moment.high.T]))
    images, straight = jnp.split(images, [inputs.shape[0]], axis=1)
    inner = inputs @ images
    code = first(code, ~jnp.all(jnp.isfinite(inner)), NOT_FINITE)
    wanted = jnp.concatenate([part.targets for part in scaled]) - inputs @ weight
    bound = rounding(inputs, diagonal)
    judged = Judged(code, count, state.margin, state.error, state.reserve)
    fresh, factors, signs = weight, [], []
    for part, (_, sign) in zip(scaled, parts, strict=True):
        n = part.inputs.shape[0]
        root, pivot = root_of(jnp.eye(n, dtype=inputs.dtype) + sign * inner[:n, :n])
        judged = judge(judged, part, sign, pivot, bound)
        factor = triangular_solve(
            root, images[:, :n], left_side=False, lower=True, transpose_a=True
        )
        # What is left of later parts is as the state after this part sees it.
        ahead = jnp.concatenate([inner[:n, n:], wanted[:n]], axis=1)
        ahead = triangular_solve(root, ahead, left_side=True, lower=True)
        coupling, slope = jnp.split(ahead, [inner.shape[0] - n], axis=1)
        fresh = fresh + sign * (factor @ slope)
        wanted = wanted[n:] - sign * (coupling.T @ slope)
        if coupling.shape[1]:
            images = images[:, n:] - sign * (factor @ coupling)
            inner = inner[n:, n:] - sign * (coupling.T @ coupling)
        factors.append(factor)
        signs.append(jnp.full(n, sign, inputs.dtype))
    factor, signs = jnp.concatenate(factors, axis=1), jnp.concatenate(signs)
    straight = straight - factor @ (signs[:, None] * (factor.T @ moment.high))
    shrunk = diagonal - jnp.sum(factor**2 * signs[None, :], axis=1)
    largest = jnp.maximum(diagonal, shrunk)
    fresh = _nearer(fresh, straight, moment.high, largest, judged.error)
    finite = jnp.all(jnp.isfinite(fresh)) & jnp.all(jnp.isfinite(factor))
    code = first(judged.code, ~finite, NOT_FINITE)
    taken = code == APPLIED
    return Change(
        jnp.where(taken, fresh, weight),
        jnp.where(taken, factor, 0),
        signs,
        jnp.where(taken, judged.count, count),
        jnp.where(taken, judged.margin, state.margin),
        jnp.where(taken, judged.error, state.error),
        code,
        jnp.where(taken, moment.high, state.moment),
        jnp.where(taken, moment.low, state.moment_low),
        jnp.where(taken, judged.reserve, state.reserve),
    )


def _nearer(
    weight: Array, straight: Array, moment: Array, diagonal: Array, error: Array
) -> Array:
    """Column by column: the weights, or inverse · moment where they left it.

    Entries of R are off by ε (Rᵢᵢ Rⱼⱼ)^½, which moves R q by at most
    ε (tr R)^½ Σⱼ Rⱼⱼ^½ |qⱼ|; the factor 8 is for the sums behind it.
    """
    spread = jnp.sqrt(jnp.maximum(diagonal, 0))
    eps = float(jnp.finfo(weight.dtype).eps)
    allowed = 8 * eps * norm(spread) * (spread @ jnp.abs(moment))
    allowed += error * jnp.sqrt(jnp.sum(jnp.square(straight), axis=0))
    gap = jnp.sqrt(jnp.sum(jnp.square(straight - weight), axis=0))
    return jnp.where((gap > allowed)[None, :], straight, weight)


def _request(state: Ridge, parts: list[tuple[Batch, int]]) -> Ridge:
    f, k = state.weight.shape
    for rows, _ in parts:
        check_rows(f, k, state.weight.dtype, rows)
    inverse, diagonal = state.inverse, jnp.diagonal(state.inverse)
    with jax.default_matmul_precision("highest"):
        new = change(lambda rows: inverse @ rows.T, diagonal, state, parts)
        inverse = subtract_product(inverse, new.factor, new.signs)
    return Ridge(
        new.weight,
        inverse,
        new.count,
        new.margin,
        new.error,
        state.l2,
        new.code,
        new.moment,
        new.moment_low,
        new.reserve,
    )


def rounding(inputs: Array, diagonal: Array) -> Array:
    """How far rounding may move the eigenvalues of I − X R Xᵀ.

    Entries of R are off by a relative ε at best, independently, which moves x R x by
    about ε (Σⱼₗ xⱼ² Rⱼₗ² xₗ²)^½ ≤ ε Σⱼ xⱼ² Rⱼⱼ, since Rⱼₗ² ≤ Rⱼⱼ Rₗₗ. Summed over the
    rows it bounds the norm of the error; the factor 8 is for the sums behind it.
    """
    spread = jnp.sum(inputs**2 @ jnp.maximum(diagonal, 0))
    return 8 * jnp.finfo(inputs.dtype).eps * (1 + spread)
