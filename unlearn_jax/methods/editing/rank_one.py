"""Edits of rank one: an exact target for one key, and adapters that add up."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.methods.editing.maps import as_keys, outputs, stacked, unstacked
from unlearn_jax.methods.editing.state import EditState
from unlearn_jax.types import Array, Params
from unlearn_kernels.precision import exact_product


class RankOne(NamedTuple):
    """Value: the change left · rightᵀ of all maps.

    Attributes:
        left: (d, 1).
        right: A tree like the maps, each (1, k).
    """

    left: Float[Array, "d 1"]
    right: Params


def rank_one(state: EditState, key: Any, targets: Any) -> RankOne:
    """The least change with c W = v exactly, in the metric λ I + G of the state.

    argmin ‖(G + λ)^½ D‖² with c D = v − c W₀ is D = u (v − c W₀) with
    u = (G + λ)⁻¹ c / (cᵀ (G + λ)⁻¹ c): rows within the state, preserved keys above all,
    move least. With an empty state it is the plain projection.

    Args:
        state: Its maps and sums are read; the answer is a change of its *maps*, as
            they were before any request.
        key: c, (1, d).
        targets: v, (1, K).

    Raises:
        ValueError: shapes that do not fit; a state confined to a basis.

    Cost: d³/3.
    Source: the rank-one member of the family of ``edit``, its limit where the row's
        weight goes to infinity.
    """
    if state.basis is not None:
        raise ValueError(
            "the state is confined to a basis, expected one of all directions: start "
            "it without basis="
        )
    matrix = stacked(state.maps)
    d, k = matrix.shape
    key = as_keys(key, matrix)
    if key.shape[0] != 1 or jnp.shape(targets) != (1, k):
        raise ValueError(
            f"expected one key (1, {d}) and its targets (1, {k}), got {key.shape} and "
            f"{jnp.shape(targets)}"
        )
    square = state.ridge.gram + state.ridge.l2 * jnp.eye(d, dtype=matrix.dtype)
    left = jax.scipy.linalg.solve(square, key.T, assume_a="pos")
    shift = jnp.asarray(targets, matrix.dtype) - outputs(state.maps, key)
    left = left / exact_product(key, left)
    return RankOne(left, unstacked(shift, state.maps))


def with_rank_ones(
    maps: Params, edits: Sequence[RankOne], gains: Sequence[float] | None = None
) -> Params:
    """W₀ + Σ mᵢ uᵢ vᵢᵀ: each adapter beside the others, none through another.

    Args:
        maps: W₀.
        edits: At least none.
        gains: m, one for each; None: 1.

    Raises:
        ValueError: not one gain for each edit.
    """
    gains = [1.0] * len(edits) if gains is None else list(gains)
    if len(gains) != len(edits):
        raise ValueError(f"expected {len(edits)} gains, one an edit, got {len(gains)}")
    total = stacked(maps)
    for gain, change in zip(gains, edits, strict=True):
        total = total + gain * exact_product(change.left, stacked(change.right))
    return unstacked(total, maps)
