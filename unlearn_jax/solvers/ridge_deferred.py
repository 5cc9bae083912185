"""Ridge regression whose weights change at once and whose inverse changes later."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import dynamic_slice, dynamic_update_slice
from jaxtyping import Float, Int

from unlearn_jax.solvers.refusal import APPLIED, FULL
from unlearn_jax.solvers.ridge_checks import check_rows
from unlearn_jax.solvers.ridge_inverse import Ridge, change
from unlearn_jax.solvers.symmetric_update import subtract_product
from unlearn_jax.types import Array, Batch, Scalar


class DeferredRidge(NamedTuple):
    """Value: a ridge regression, and what its inverse still has to take up.

    The true inverse is inverse − factor · diag(signs) · factorᵀ. The factor is R Pᵀ of
    the pending rows P times a triangle, and no row is kept; but factor and inverse
    together determine P up to an orthogonal mixing of the rows of one request, and a
    single row up to its sign. So a deletion is complete at rest only after
    :func:`deferred_refresh`, and when the old inverse is overwritten.

    Attributes:
        weight: The solution, always up to date.
        inverse: As of the latest refresh.
        count: Total weight of the rows within.
        margin: As in ``Ridge``.
        error: As in ``Ridge``.
        l2: As in ``Ridge``.
        code: As in ``Ridge``; ``FULL`` where the request needs a refresh first.
        moment: As in ``Ridge``.
        moment_low: As in ``Ridge``.
        reserve: As in ``Ridge``.
        factor: Columns in use first, zero behind them.
        signs: 1 for a learned column, −1 for a removed one, 0 for a free one.
        used: Columns in use.
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
    factor: Float[Array, "f r"]
    signs: Float[Array, " r"]
    used: Int[Array, ""]


def deferred_start(state: Ridge, *, capacity: int) -> DeferredRidge:
    """Room for requests of ``capacity`` rows in all, padding included.

    Raises:
        ValueError: no capacity.
    """
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}, expected room for at least one row")
    f, dtype = state.weight.shape[0], state.inverse.dtype
    return DeferredRidge(
        *state,
        jnp.zeros((f, capacity), dtype),
        jnp.zeros(capacity, dtype),
        jnp.zeros((), jnp.int32),
    )


def deferred_add(state: DeferredRidge, rows: Batch) -> DeferredRidge:
    """Learn rows: weights now, inverse later. See :func:`deferred_remove`."""
    return _request(state, rows, 1)


def deferred_remove(state: DeferredRidge, rows: Batch) -> DeferredRidge:
    """Forget rows: weights now, inverse later; exact for any number in a row.

    The equations of ``inverse_remove`` with R = inverse − F S Fᵀ: the inverse is read
    once and not written, which is what a small request costs.

    Args:
        state: From :func:`deferred_start`; compile with
            ``ridge_inverse.donating``, or the inverse is copied.
        rows: As for ``inverse_remove``; padding takes room too.

    Returns:
        The new state; or the old one with a ``code``, those of ``inverse_remove`` or
        ``FULL``.

    Raises:
        ValueError: rows do not fit the state, or are more than its whole capacity.

    Cost: 2 f² n + 4 f r n; reads the inverse once.
    Source: Woodbury 1950. Differs: the correction is kept as a factor.
    """
    return _request(state, rows, -1)


def deferred_refresh(state: DeferredRidge) -> Ridge:
    """The inverse brought up to date; in place with ``ridge_inverse.donating``.

    Start anew with :func:`deferred_start`. Run it from time to time, in the
    background or whenever there is no request.

    Cost: f² r; no factorisation, so it cannot fail.
    """
    with jax.default_matmul_precision("highest"):
        inverse = subtract_product(state.inverse, state.factor, state.signs)
    code = jnp.where(state.code == FULL, APPLIED, state.code)
    return Ridge(
        state.weight,
        inverse,
        state.count,
        state.margin,
        state.error,
        state.l2,
        code.astype(jnp.int32),
        state.moment,
        state.moment_low,
        state.reserve,
    )


def _request(state: DeferredRidge, rows: Batch, sign: int) -> DeferredRidge:
    f, k = state.weight.shape
    check_rows(f, k, state.weight.dtype, rows)
    capacity = state.signs.shape[0]
    size = min(rows.weights.shape[0], f)
    if size > capacity:
        raise ValueError(
            f"a request of {size} rows does not fit a capacity of {capacity}; raise "
            f"the capacity, or refresh and update the inverse at once"
        )

    def product(inputs: Array) -> Array:
        seen = (inputs @ state.factor) * state.signs[None, :]
        return state.inverse @ inputs.T - state.factor @ seen.T

    pending = jnp.sum(state.factor**2 * state.signs[None, :], axis=1)
    diagonal = jnp.diagonal(state.inverse) - pending
    with jax.default_matmul_precision("highest"):
        result = change(product, diagonal, state, [(rows, sign)])
    full = state.used + size > capacity
    code = jnp.where(full & (result.code == APPLIED), FULL, result.code)
    taken = code == APPLIED
    at, zero = state.used, jnp.zeros_like(state.used)
    old = dynamic_slice(state.factor, (zero, at), (f, size))
    factor = jnp.where(taken, result.factor, old)
    old = dynamic_slice(state.signs, (at,), (size,))
    signs = jnp.where(taken, result.signs, old)
    return DeferredRidge(
        jnp.where(taken, result.weight, state.weight),
        state.inverse,
        jnp.where(taken, result.count, state.count),
        jnp.where(taken, result.margin, state.margin),
        jnp.where(taken, result.error, state.error),
        state.l2,
        code.astype(jnp.int32),
        jnp.where(taken, result.moment, state.moment),
        jnp.where(taken, result.moment_low, state.moment_low),
        jnp.where(taken, result.reserve, state.reserve),
        dynamic_update_slice(state.factor, factor, (zero, at)),
        dynamic_update_slice(state.signs, signs, (at,)),
        state.used + jnp.where(taken, size, 0).astype(jnp.int32),
    )
