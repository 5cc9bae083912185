"""Ridge regression kept twice: fast inverse, exact sums to measure and repair it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import DTypeLike, Float, Int

from unlearn_jax.loop import fori_loop
from unlearn_jax.solvers.extended import Pair, digits, norm, residual
from unlearn_jax.solvers.refusal import APPLIED, INDEFINITE, settle
from unlearn_jax.solvers.ridge_gram import (
    GramRidge,
    gram_add,
    gram_remove,
    gram_solve,
    gram_start,
)
from unlearn_jax.solvers.ridge_inverse import Ridge, inverse_add, inverse_remove
from unlearn_jax.types import Batch, Scalar
from unlearn_kernels.precision import exact_product

_DRIFT, _PROBES = 0.01, 8
"""Drift from which the inverse is made anew; vectors that it is tried on."""


class KeptRidge(NamedTuple):
    """Value: ridge regression whose inverse is checked against its sums.

    Attributes:
        weight: The solution, refined against ``sums``.
        inverse: (G + l2)⁻¹ up to the drift of Woodbury's updates.
        sums: Exact sums; their own ``weight`` is not kept up to date.
        count: Total weight of the rows within.
        error: Relative error left in ``weight``: the last correction over ‖W‖.
        drift: How much of an error a correction by ``inverse`` leaves, measured on the
            weights and on random vectors; 0 is exact, at 1 nothing is gained.
        repairs: How often ``inverse`` was made anew from ``sums``.
        code: Index into ``refusal.REFUSALS``, of the latest request.
    """

    weight: Float[Array, "f k"]
    inverse: Float[Array, "f f"]
    sums: GramRidge
    count: Scalar  # pyright: ignore[reportIncompatibleMethodOverride]
    error: Scalar
    drift: Scalar
    repairs: Int[Array, ""]
    code: Int[Array, ""]


def kept_start(
    f: int, k: int, *, l2: float, dtype: DTypeLike = jnp.float64
) -> KeptRidge:
    """Nothing learnt; arguments and errors as of ``ridge_gram.gram_start``."""
    sums = gram_start(f, k, l2=l2, dtype=dtype)
    zero = partial(jnp.zeros, (), dtype)
    return KeptRidge(
        jnp.zeros((f, k), dtype),
        jnp.eye(f, dtype=dtype) / jnp.asarray(l2, dtype),
        sums,
        zero(),
        zero(),
        zero(),
        jnp.zeros((), jnp.int32),
        jnp.asarray(APPLIED, jnp.int32),
    )


def kept_add(state: KeptRidge, rows: Batch, *, slices: int = 3) -> KeptRidge:
    """Learn rows by Woodbury, measure the error against the sums, repair if need be.

    Args:
        state: Before.
        rows: Features (n, f), targets (n, k), weights; weight 0 means absent.
        slices: See ``ridge_gram.gram_add``.

    Returns:
        The state after. ``inverse`` is made anew when corrections by it leave more
        than a hundredth of an error, or ``error`` would pass 1e-12 (1e-5 in float32),
        long before the bound at which a solve is refused.

    Raises:
        ValueError: shapes or dtypes that do not fit the state.

    Cost: 5 n f² and 40 k f², without f³ but for the repair (about 1.3 f³).
    """
    return _change(state, rows, 1, slices)


def kept_remove(state: KeptRidge, rows: Batch, *, slices: int = 3) -> KeptRidge:
    """Forget rows; refused where ``gram_remove`` refuses. As :func:`kept_add`."""
    return _change(state, rows, -1, slices)


def kept_replace(
    state: KeptRidge, old: Batch, new: Batch, *, slices: int = 3
) -> KeptRidge:
    """Forget ``old`` and learn ``new``; both or neither."""
    between = kept_remove(state, old, slices=slices)
    after = kept_add(between, new, slices=slices)
    code = jnp.where(between.code == APPLIED, after.code, between.code)
    return settle(state, after, code)


def repair(state: KeptRidge) -> KeptRidge:
    """Weight and inverse anew from the sums; refused if these cannot be solved.

    Cost: about 1.3 f³.
    """
    solved = gram_solve(state.sums)
    f = solved.gram.shape[0]
    eye = jnp.eye(f, dtype=solved.gram.dtype)
    root = jnp.linalg.cholesky(
        (solved.gram + solved.l2 * eye).T, symmetrize_input=False
    )
    half = jax.scipy.linalg.solve_triangular(root, eye, lower=True)
    inverse = exact_product(half.T, half)
    fine = jnp.all(jnp.isfinite(jnp.diagonal(inverse)))
    code = jnp.where(fine, solved.code, INDEFINITE).astype(jnp.int32)
    return state._replace(
        weight=solved.weight,
        inverse=(inverse + inverse.T) / 2,
        error=solved.error,
        drift=jnp.zeros_like(state.drift),
        repairs=state.repairs + 1,
        code=code,
    )


def _change(state: KeptRidge, rows: Batch, sign: int, slices: int) -> KeptRidge:
    change = gram_add if sign > 0 else gram_remove
    sums = change(state.sums, rows, slices=slices, solve=False)
    update = inverse_add if sign > 0 else inverse_remove
    zero, one = jnp.zeros_like(state.count), jnp.ones_like(state.count)
    fast = update(
        Ridge(
            state.weight,
            state.inverse,
            state.count,
            one,
            zero,
            state.sums.l2,
            state.code,
            state.sums.moment,
            state.sums.moment_low,
            zero,
        ),
        rows,
    )
    with jax.default_matmul_precision("highest"):
        moved = _refined(state._replace(sums=sums, count=sums.count), fast)
    limit = 1e-12 if digits(state.inverse.dtype) == 53 else 1e-5
    good = (moved.error <= limit) & (moved.drift <= _DRIFT) & (fast.code == APPLIED)
    good |= sums.code != APPLIED
    moved = jax.lax.cond(good, lambda s: s, repair, moved)
    code = jnp.where(sums.code == APPLIED, moved.code, sums.code)
    return settle(state, moved, code)


def _refined(state: KeptRidge, fast: Ridge) -> KeptRidge:
    """Three corrections of the weights by the fast inverse, and what they tell."""
    sums = state.sums
    matrix = Pair(sums.gram, sums.gram_low)
    rhs = Pair(sums.moment, sums.moment_low)

    def step(_: Any, carry: Any) -> Any:
        weight, size, _, _ = carry
        move = fast.inverse @ residual(matrix, sums.l2, weight, rhs)
        length = norm(move)
        shrunk = length / jnp.where(size > 0, size, 1)
        whole = norm(weight)
        return weight + move, length, length / jnp.where(whole > 0, whole, 1), shrunk

    zero = jnp.zeros_like(state.error)
    start = step(0, (fast.weight, zero, zero, zero))
    weight, _, error, shrunk = fori_loop(0, 2, step, start)
    # Corrections near the rounding of W say nothing of the inverse any more.
    rounded = error <= 8 * jnp.finfo(weight.dtype).eps
    shrunk = jnp.where(rounded, 0, shrunk)
    return state._replace(
        weight=weight,
        inverse=fast.inverse,
        error=error,
        drift=jnp.maximum(shrunk, _probed(fast.inverse, sums)),
        code=jnp.asarray(APPLIED, jnp.int32),
    )


def _probed(inverse: Array, sums: GramRidge) -> Array:
    """Largest ‖(G + l2) R v − v‖ / ‖v‖ of a few signs v.

    Where R has lost a direction, corrections by R vanish there, and their size tells
    nothing; this product does.
    """
    f = inverse.shape[0]
    signs = jax.random.rademacher(jax.random.key(0), (f, _PROBES), inverse.dtype)
    image = inverse @ signs
    back = sums.gram @ image + sums.l2 * image
    lost = jnp.sqrt(jnp.sum(jnp.square(back - signs), axis=0))
    return jnp.max(jnp.nan_to_num(lost, nan=jnp.inf)) / jnp.sqrt(1.0 * f)
