"""The primitive: move the outputs of some keys, the maps as little as that takes."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.methods.editing.maps import stacked, unstacked
from unlearn_jax.methods.editing.state import (
    as_basis,
    edit_add,
    edit_start,
    edited,
    weighted_rows,
)
from unlearn_jax.solvers.refusal import APPLIED
from unlearn_jax.solvers.ridge_checks import check_rows, check_start
from unlearn_jax.types import Batch, Params
from unlearn_kernels.precision import exact_product

ROADS = ("auto", "primal", "dual")


def edit(
    maps: Params,
    rows: Batch,
    *,
    l2: float,
    road: str = "auto",
    basis: Any = None,
    refine: bool = True,
) -> Params:
    """Minimise Σ wᵢ ‖cᵢ W − vᵢ‖² + λ ‖W − W₀‖².

    With C the weighted keys and S = V − C W₀ the weighted shifts, the minimiser is
    W₀ + (CᵀC + λ)⁻¹ Cᵀ S (primal, d × d) and W₀ + Cᵀ (C Cᵀ + λ)⁻¹ S (dual, n × n).
    Preserved keys among the rows (shift 0) make λ I + their Gram matrix the metric of
    the change.

    Args:
        maps: W₀, a tree of kernels (d, k) without bias that read the same keys.
        rows: Keys (n, d), shifts (n, K), weights (n,); see ``rows``.
        l2: λ, beside sums over rows, not means. As it goes to 0, the outputs of keys
            that are linearly independent go to their targets.
        road: "primal", refined with twice the digits; "dual"; "auto": dual where rows
            are fewer than the dimensions.
        basis: Orthonormal columns (d, m) that the change is confined to, from
            ``null_space``: keys orthogonal to all of them keep their outputs.
        refine: Of the primal road; see ``edit_add``.

    Returns:
        W, like ``maps``; NaN where it cannot be told: rows that are not finite, or a
        λ too small for the dtype.

    Raises:
        ValueError: λ not positive, rows or a basis that do not fit, an unknown road.

    Cost: primal n d² + d³/3, dual n² d + n³/3, and the maps once. See ``state`` for
        requests that come one after another.
    """
    if road not in ROADS:
        raise ValueError(f"road is {road!r}; choose from {', '.join(ROADS)}")
    matrix = stacked(maps)
    d, k = matrix.shape
    check_start(d, k, l2, matrix.dtype)
    check_rows(d, k, matrix.dtype, rows)
    if basis is not None:
        basis = as_basis(basis, matrix)
    few = rows.weights.shape[0] < (d if basis is None else basis.shape[1])
    if road == "primal" or (road == "auto" and not few):
        start = edit_start(maps, l2=l2, basis=basis)
        state = edit_add(start, rows, digits=None, slices=0, refine=refine)
        told = state.ridge.code == APPLIED
        return jax.tree.map(lambda w: jnp.where(told, w, jnp.nan), edited(state))
    keys, shifts, there = weighted_rows(rows, basis)
    keys, shifts = (there[:, None] * each for each in (keys, shifts))
    square = exact_product(keys, keys.T) + l2 * jnp.eye(len(there), dtype=keys.dtype)
    factor = jnp.linalg.cholesky(square, symmetrize_input=False)
    change = exact_product(keys.T, jax.scipy.linalg.cho_solve((factor, True), shifts))
    if basis is not None:
        change = exact_product(basis, change)
    return unstacked(matrix + change, maps)
