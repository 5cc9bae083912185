"""Gradient flow under a Kronecker-factored curvature: what SOURCE does in a segment."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.curvature.eigen_kronecker import squares_along
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_blocks import (
    Block,
    Diagonal,
    Kronecker,
    Rotated,
    RotatedRows,
    Spectral,
    eigendecompose,
)
from unlearn_jax.curvature.kronecker_inverse import kronecker_operator
from unlearn_jax.curvature.label_slopes import Plan, mean_over_labels
from unlearn_jax.curvature.operator import LinearOperator
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables
from unlearn_kernels.precision import EXACT


def divide(pieces: Any, segments: int) -> tuple[Array, Array, Variables]:
    """Checkpoints of a run in segments: shares (l, c), rates (l,), points (l, c, …).

    Args:
        pieces: Checkpoints with a leading axis of l · c points, their rates, steps.
        segments: l.

    Returns:
        Shares of the points in their segment, by rates (equal where it has none);
        the sum of each segment's rates; the points.

    Raises:
        ValueError: the points do not divide among the segments.
    """
    checkpoints, rates, _ = pieces
    rates = jnp.asarray(rates)
    if len(rates) % segments:
        raise ValueError(
            f"the trajectory has {len(rates)} points for {segments} segments, "
            "expected a multiple; keep other points or choose other segments"
        )
    by_segment = rates.reshape(segments, -1)
    totals = jnp.sum(by_segment, axis=1)
    equal = jnp.full_like(by_segment, 1 / by_segment.shape[1])
    moved = (totals > 0)[:, None]
    shares = by_segment / jnp.where(moved, totals[:, None], 1)
    shares = jnp.where(moved, shares, equal)
    points = jax.tree.map(
        lambda x: x.reshape(*by_segment.shape, *x.shape[1:]), checkpoints
    )
    return shares, totals, points


def mean_ekfac(
    key: PRNGKey | None,
    objective_at: Callable[[Variables], Objective],
    points: Variables,
    shares: Array,
    data: Batch,
    *,
    labels: str = "exact",
) -> Kronecker:
    """EK-FAC of the mean curvature at several points.

    The factors of K-FAC are averaged, then the variances along their eigenvectors.

    Args:
        key: Draws labels, the same at all points.
        objective_at: The loss bound to the statistics of a point.
        points: Variables with a leading axis.
        shares: Of each point; they sum to one.
        data: Examples with weights.
        labels: As in ``ekfac``.

    Returns:
        As ``ekfac``; for one point the same.

    Cost: as ``ekfac`` at every point, with one set of eigenproblems.
    """

    def mean(function: Callable[[Variables], Any]) -> Any:
        found = jax.lax.map(function, points)
        return jax.tree.map(
            lambda leaf: jnp.tensordot(
                shares.astype(leaf.dtype), leaf, 1, precision=EXACT
            ),
            found,
        )

    def factors(at: Variables) -> Kronecker:
        return kfac(key, objective_at(at), at.params, data, labels=labels)

    state = eigendecompose(mean(factors))
    plan = Plan(labels, 1, lambda *_: (), squares_along)

    def variances(at: Variables) -> Any:
        given = (key, objective_at(at), at.params, data, state.blocks)
        return mean_over_labels(*given, plan=plan)[1]

    blocks = [
        block if values is None else block._replace(values=jnp.maximum(values, 0))
        for block, values in zip(state.blocks, mean(variances), strict=True)
    ]
    return state._replace(blocks=tuple(blocks))


def propagators(
    curvature: Kronecker, rate: Any, like: Params, *, decay: float = 0.0
) -> tuple[LinearOperator, LinearOperator]:
    """Products with exp(−ρ H) and (I − exp(−ρ H)) H⁻¹, H = curvature + decay · I.

    Args:
        curvature: From ``ekfac``; eigenvectors are computed if it has none.
        rate: ρ, non-negative.
        like: The parameters.
        decay: Added to the eigenvalues.

    Cost: as ``kronecker_operator``.
    """

    def exponents(values: Array) -> Array:
        return jnp.asarray(rate, values.dtype) * (values + decay)

    def stay(values: Array) -> Array:
        return jnp.exp(-exponents(values))

    def pull(values: Array) -> Array:
        exponent = exponents(values)
        # (1 − e⁻ˣ) / x is 1 − x / 2 where x is next to nothing.
        small = exponent < 1e-6
        safe = jnp.where(small, 1, exponent)
        ratio = jnp.where(small, 1 - exponent / 2, -jnp.expm1(-safe) / safe)
        return jnp.asarray(rate, values.dtype) * ratio

    def product(function: Callable[[Array], Array]) -> LinearOperator:
        def one(block: Block) -> Block:
            if isinstance(block, Diagonal):
                return Diagonal(function(block.entries))
            if isinstance(block, Rotated | RotatedRows | Spectral):
                return block._replace(values=function(block.values))
            raise AssertionError("blocks are decomposed first")

        blocks = tuple(map(one, eigendecompose(curvature).blocks))
        return kronecker_operator(curvature._replace(blocks=blocks), like)

    return product(stay), product(pull)
