"""EK-FAC: the eigenvectors of K-FAC with the true variances along them."""

from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_blocks import (
    Block,
    Kronecker,
    Rotated,
    RotatedRows,
    eigendecompose,
)
from unlearn_jax.curvature.label_slopes import Plan, mean_over_labels
from unlearn_jax.curvature.moments import row_squares
from unlearn_jax.curvature.per_example import Gradient, Gradients, Outer, Rows
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params, PRNGKey
from unlearn_kernels.fisher_diagonal import square_sum
from unlearn_kernels.precision import EXACT


@automatic
def ekfac(
    key: PRNGKey | None,
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    labels: str = "true",
    samples: int = 1,
    shared: str = "expand",
    max_block: int = 512,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Kronecker:
    """K-FAC whose eigenvalues are measured: Λ = E[(Q_Aᵀ g Q_G)²], Q those of A and G.

    The diagonal of the Fisher block in the eigenbasis of K-FAC, hence the best matrix
    in Frobenius norm with these eigenvectors. Positions are summed within an example,
    whatever ``shared`` is; that only chooses the basis.

    Args:
        key: As in :func:`kfac`, as are all others.
        objective: Loss bound to frozen batch statistics; ``l2`` is left out.
        params: Where the gradients are taken.
        data: Examples with weights.
        labels: "true", "sampled" or "exact".
        samples: Draws for each example under "sampled"; the same in both passes.
        shared: "expand" or "reduce".
        max_block: Largest size of a full block.
        batch_size: Examples whose inputs and slopes are held at once.
        mesh: Split the examples over its devices.

    Returns:
        Value with ``Rotated``, ``RotatedRows``, ``Spectral`` and ``Diagonal`` blocks.

    Raises:
        ValueError: as :func:`kfac`.

    Cost: two passes of :func:`kfac`, eigenproblems of about 9 (i³ + o³) operations a
        layer, and 2 n T i o for the squares; never examples × parameters.
    Source: George et al. 2018, arXiv 1806.03884, eq. 6. As published.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "mesh": mesh}
    state = eigendecompose(
        kfac(
            key,
            objective,
            params,
            data,
            labels=labels,
            samples=samples,
            shared=shared,
            max_block=max_block,
            **options,
        )
    )
    plan = Plan(labels, samples, lambda *_: (), squares_along)
    blocks = state.blocks
    _, found = mean_over_labels(
        key, objective, params, data, blocks, plan=plan, **options
    )
    corrected = [
        block if values is None else block._replace(values=jnp.maximum(values, 0))
        for block, values in zip(blocks, found, strict=True)
    ]
    return state._replace(blocks=tuple(corrected))


def rotate(block: Block, gradient: Gradient) -> Gradient:
    """Gradients in the eigenbasis of their block; parameters of their own stay."""
    if isinstance(block, Rotated) and isinstance(gradient, Outer):
        left = _turned(gradient.inputs, block.left)
        return Outer(left, _turned(gradient.slopes, block.right))
    if isinstance(block, RotatedRows) and isinstance(gradient, Rows):
        indices, slopes = gradient
        flat = slopes.reshape(*indices.shape, -1).astype(block.right.dtype)
        return Rows(indices, jnp.matmul(flat, block.right, precision=EXACT))
    return gradient


def squares_along(
    gradients: Gradients, weights: Array, blocks: tuple[Block, ...]
) -> list[Array | None]:
    """Σₙ wₙ (Q_Aᵀ gₙ Q_G)² of each block; None where there is nothing to rotate."""

    def one(block: Block, gradient: Gradient) -> Array | None:
        turned = rotate(block, gradient)
        if isinstance(turned, Outer):
            return square_sum(*turned, weights.astype(turned.slopes.dtype))
        if isinstance(turned, Rows) and isinstance(block, RotatedRows):
            return row_squares(turned, weights, len(block.values))
        return None

    return [one(*pair) for pair in zip(blocks, gradients, strict=True)]


def _turned(values: Array, vectors: Array) -> Array:
    """(n, g, t, i) times (g, i, i)."""
    values = values.astype(vectors.dtype)
    if len(vectors) == 1:
        return jnp.matmul(values, vectors[0], precision=EXACT)
    return jnp.einsum("ngti,gij->ngtj", values, vectors, precision=EXACT)
