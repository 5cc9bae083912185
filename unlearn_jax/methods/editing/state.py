"""Edits that add up: the carried Gram matrix, from which the edit is solved anew.

What is kept is G = Σ w c cᵀ and Q = Σ w c sᵀ over all requests that stand
(``GramRidge`` of the change D = W − W₀). So a sequence of requests is the batch of
them, and one that is withdrawn leaves no trace. The published loops forget G between
requests, and every request then undoes the ones before it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.data.accumulate import present
from unlearn_jax.methods.editing.maps import stacked, unstacked
from unlearn_jax.solvers.extended import digits as digits_of
from unlearn_jax.solvers.powers import exponent, power_of_two
from unlearn_jax.solvers.refusal import APPLIED, INDEFINITE, settle
from unlearn_jax.solvers.ridge_gram import (
    GramRidge,
    gram_add,
    gram_add_sums,
    gram_remove,
    gram_remove_sums,
    gram_start,
)
from unlearn_jax.types import Array, Batch, Params
from unlearn_kernels.precision import exact_product

DIGITS = 20
"""Digits of a key, counted from the row's largest number; shifts have twice as many."""


class EditState(NamedTuple):
    """Value: linear maps, and all requests that stand as sums.

    Attributes:
        maps: W₀, before any request.
        basis: (d, m), orthonormal columns that the change is confined to; None: all.
        ridge: Of the change in the basis, m × K; read its ``code`` and ``exact``.
    """

    maps: Params
    basis: Float[Array, "d m"] | None
    ridge: GramRidge


def edit_start(maps: Params, *, l2: float, basis: Any = None) -> EditState:
    """No request yet.

    Args:
        maps: W₀, a tree of kernels (d, k).
        l2: λ of λ ‖W − W₀‖².
        basis: From ``null_space``; None: any change.

    Raises:
        ValueError: kernels that do not belong together, λ not positive, a basis of
            another width.
    """
    matrix = stacked(maps)
    d, k = matrix.shape
    if basis is not None:
        basis = as_basis(basis, matrix)
        d = basis.shape[1]
    return EditState(maps, basis, gram_start(d, k, l2=l2, dtype=matrix.dtype))


def edit_add(
    state: EditState,
    rows: Batch,
    *,
    digits: int | None = DIGITS,
    slices: int = 2,
    refine: bool = True,
) -> EditState:
    """One more request.

    Args:
        state: Before.
        rows: From ``rows``, made with the maps of the state.
        digits: In float64, to how many binary digits of its largest number a weighted
            key is rounded (its shift to twice as many), so that sums have no rounding
            and no order: 20 moves an edited output by about 1e-6 of its change. None,
            and float32: as they are, and ``ridge.exact`` is False.
        slices: See ``gram_add``; 0 for plain sums where nothing is ever withdrawn.
        refine: False: one solve in the dtype, whose error nobody measures (``residual``
            and ``error`` are NaN) and no condition refuses; a function of the sums
            still, so that bits have no history. It costs what BLAS costs; refinement
            with twice the digits 13 to 40 times that, where outputs are thousands.

    Returns:
        The state after. A refused request (NaN, a key that outweighs λ by the digits of
        the dtype) changes ``ridge.code`` alone: see ``refusal.check_applied``.

    Raises:
        ValueError: rows that do not fit the maps.

    Cost: n m² and m³/3, whatever the number of maps; m K for the solve's products.
    """
    entered = _entered(state, rows, digits)
    changed = gram_add(state.ridge, entered, slices=slices, solve=refine)
    if not refine:
        changed = _solved(state.ridge, changed)
    return state._replace(ridge=changed)


def edit_remove(
    state: EditState,
    rows: Batch,
    *,
    digits: int | None = DIGITS,
    slices: int = 2,
    refine: bool = True,
) -> EditState:
    """Withdraw a request: the state is the one that never had it.

    Bit for bit where ``ridge.exact``. Args as of :func:`edit_add`, the rows and options
    as they were added; what was never added is refused where the sums can tell.
    """
    entered = _entered(state, rows, digits)
    changed = gram_remove(state.ridge, entered, slices=slices, solve=refine)
    if not refine:
        changed = _solved(state.ridge, changed)
    return state._replace(ridge=changed)


def edit_add_sums(state: EditState, other: EditState) -> EditState:
    """All requests of another state of the same maps: the Gram matrix of many captions.

    Cost: m³/3, whatever the number of rows behind the sums.
    """
    return state._replace(ridge=gram_add_sums(state.ridge, other.ridge))


def edit_remove_sums(state: EditState, other: EditState) -> EditState:
    """Withdraw all requests of another state."""
    return state._replace(ridge=gram_remove_sums(state.ridge, other.ridge))


def edited(state: EditState) -> Params:
    """The maps after all requests that stand, each in its dtype."""
    change = state.ridge.weight
    if state.basis is not None:
        change = exact_product(state.basis, change)
    return unstacked(stacked(state.maps) + change, state.maps)


def weighted_rows(rows: Batch, basis: Array | None) -> Batch:
    """Rows times √w, keys in the basis; of weight 1, or 0 where absent."""
    keys, shifts, weights = present(rows)
    root = jnp.sqrt(weights)[:, None]
    keys = root * keys if basis is None else exact_product(root * keys, basis)
    there = jnp.where(weights == 0, weights, jnp.ones_like(weights))
    # A negative weight has no root: NaN, which the sums refuse.
    return Batch(keys, root * shifts, there)


def as_basis(basis: Any, matrix: Float[Array, "d k"]) -> Float[Array, "d m"]:
    """A basis in the dtype of the maps.

    Raises:
        ValueError: of another width.
    """
    if jnp.ndim(basis) != 2 or jnp.shape(basis)[0] != matrix.shape[0]:
        raise ValueError(
            f"expected a basis ({matrix.shape[0]}, m), got {jnp.shape(basis)}: make it "
            f"from keys that these maps read"
        )
    return jnp.asarray(basis, matrix.dtype)


def _solved(before: GramRidge, after: GramRidge) -> GramRidge:
    """The weights from the sums by one Cholesky factor; else the state before."""
    d = after.gram.shape[0]
    places = jnp.arange(d)
    square = after.gram.at[places, places].add(after.l2)
    factor = jnp.linalg.cholesky(square, symmetrize_input=False)
    weight = jax.scipy.linalg.cho_solve((factor, True), after.moment)
    definite = jnp.all(jnp.isfinite(jnp.diagonal(factor)))
    code = jnp.where(definite, APPLIED, INDEFINITE)
    code = jnp.where(after.code == APPLIED, code, after.code)
    nothing = jnp.full_like(after.l2, jnp.nan)
    solved = after._replace(weight=weight, residual=nothing, error=nothing)
    return settle(before, solved, code)


def _entered(state: EditState, rows: Batch, digits: int | None) -> Batch:
    keys, shifts, there = weighted_rows(rows, state.basis)
    if digits is not None and digits_of(keys.dtype) == 53:
        keys, shifts = _rounded(keys, digits), _rounded(shifts, 2 * digits)
    return Batch(keys, shifts, there)


def _rounded(values: Array, digits: int) -> Array:
    """To so many binary digits of the largest number of each row."""
    largest = jnp.max(jnp.abs(values), axis=1, keepdims=True)
    fine = (largest > 1e-100) & (largest < 1e100)  # else powers of two may not exist
    place = digits - exponent(jnp.where(fine, largest, 1))
    up, down = (power_of_two(e, values.dtype) for e in (place, -place))
    return jnp.where(fine, jnp.round(values * up) * down, values)
