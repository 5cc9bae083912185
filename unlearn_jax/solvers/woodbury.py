"""The inverse of a diagonal plus a matrix of low rank, WoodFisher among them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from unlearn_jax import tree
from unlearn_jax.curvature.operator import check_like
from unlearn_jax.loop import fori_loop, tracing
from unlearn_jax.solvers.preconditioner import check_damping
from unlearn_jax.solvers.stacked import combine, gram, project, put, take
from unlearn_jax.types import Array, Params
from unlearn_kernels.precision import exact_product


class Woodbury(NamedTuple):
    """Value: the matrix D⁻¹ − D⁻¹ Vᵀ K V D⁻¹, an inverse ready to be applied.

    Attributes:
        diagonal: D, like the parameters.
        rows: V, r vectors stacked along the first axis.
        core: K.
        definite: Whether the matrix that was inverted is positive definite.
    """

    diagonal: Params
    rows: Params
    core: Float[Array, "r r"]
    definite: Bool[Array, ""]


def woodbury(diagonal: Any, rows: Params, scale: Any = 1.0) -> Woodbury:
    """Prepare the inverse of D + Uᵀ C U, C = diag(scale).

    With V = √|C| U and S the signs of C, K = (S + V D⁻¹ Vᵀ)⁻¹: zero entries of C are
    harmless (what their rows hold is never seen), and negative ones take rows away.

    Args:
        diagonal: D, positive: a tree like one row, or one number for D = δ I.
        rows: U, r vectors stacked along the first axis.
        scale: C, one number or (r,).

    Returns:
        Woodbury; ``definite`` is False when rows were taken away that were never in.

    Raises:
        ValueError: D is not like one row, or holds a concrete entry that is not
            positive.

    Cost: r² inner products and r³; the r × r inverse in float64 when x64 is on. In
        float32 the relative error grows with ‖C U D⁻¹ Uᵀ‖ times 1e-7.
    Source: Woodbury 1950. Differs: the symmetric form with signs.
    """
    shape = jax.eval_shape(lambda r: tree.member(r, 0), rows)
    if jax.tree_util.all_leaves([diagonal]) and np.ndim(diagonal) == 0:
        check_damping(diagonal, "low-rank matrix")
        diagonal = jax.tree.map(lambda s: jnp.full(s.shape, diagonal, s.dtype), shape)
    check_like(shape, diagonal, "diagonal")
    if not tracing(diagonal):
        lowest = min(float(np.min(d)) for d in jax.tree.leaves(diagonal) if d.size)
        if not lowest > 0:
            raise ValueError(
                f"the diagonal holds {lowest:g}, expected positive entries; add damping"
            )
    count = tree.leading_axis(rows)
    wide = jnp.zeros((), float).dtype  # float64 when x64 is on
    scale = jnp.broadcast_to(jnp.asarray(scale, wide), (count,))
    rows = _scaled(rows, jnp.sqrt(jnp.abs(scale)))
    signs = jnp.where(scale < 0, -1, 1).astype(wide)
    inner = gram(rows, _divide(rows, diagonal)).astype(wide)
    values, vectors = jnp.linalg.eigh(jnp.diag(signs) + (inner + inner.T) / 2)
    core = exact_product(vectors / values[None, :], vectors.T)
    # Haynsworth: D + Vᵀ S V is positive definite just when S + V D⁻¹ Vᵀ has as many
    # negative eigenvalues as S.
    definite = jnp.sum(values < 0) == jnp.sum(signs < 0)
    return Woodbury(diagonal, rows, core, definite & jnp.all(jnp.isfinite(core)))


def woodbury_apply(state: Woodbury, vector: Params) -> Params:
    """The prepared inverse times a vector.

    Raises:
        ValueError: the vector is not like the diagonal.

    Cost: 2 r inner products.
    """
    check_like(state.diagonal, vector)
    outside = jax.tree.map(jnp.divide, vector, state.diagonal)
    inner = project(state.rows, outside).astype(state.core.dtype)
    share = exact_product(state.core, inner)
    inside = combine(share, state.rows)
    inside = jax.tree.map(jnp.divide, inside, state.diagonal)
    return tree.subtract(outside, inside)


def woodfisher(rows: Params, *, damping: Any, weights: Any = None) -> Woodbury:
    """The inverse of δ I + Σᵢ wᵢ gᵢ gᵢᵀ / Σᵢ wᵢ, from the n × n Gram matrix.

    A published unlearning code keeps, in place of the inverse, one vector that starts
    at the first gradient and is only rescaled afterwards. All of its corrections are
    multiples of that gradient, and the answer is not the inverse product. Every
    correction needs the inverse of all before it applied to a new gradient, as in
    :func:`woodfisher_recursion`, or the Gram matrix, as here.

    Args:
        rows: Gradients of single examples, stacked along the first axis.
        damping: δ.
        weights: One for each row; zero leaves a row out. All one if None.

    Returns:
        Woodbury.

    Raises:
        ValueError: a concrete ``damping`` that is not positive.

    Cost: n² inner products and n³; memory for the n rows.
    Source: Singh & Alistarh 2020, arXiv 2004.14340. Differs: the Gram matrix
        in place of the recursion; the same matrix.
    """
    return woodbury(damping, rows, _shares(rows, weights))


def woodfisher_recursion(
    rows: Params, *, damping: Any, weights: Any = None
) -> Woodbury:
    """The same inverse as :func:`woodfisher`, one gradient after the other.

    F⁻¹ᵢ = F⁻¹ᵢ₋₁ − uᵢ uᵢᵀ / (1/cᵢ + gᵢ·uᵢ) with uᵢ = F⁻¹ᵢ₋₁ gᵢ and cᵢ = wᵢ / Σ w. Each
    uᵢ must be stored, since the next one needs all of them: as much memory as the rows
    themselves. No n × n matrix is inverted, but errors of float32 accumulate over the
    rows, and the steps run one after the other; prefer the Gram form.

    Args:
        rows: Gradients of single examples, stacked along the first axis.
        damping: δ.
        weights: One for each row; zero leaves a row out. All one if None.

    Returns:
        Woodbury with a diagonal core.

    Raises:
        ValueError: a concrete ``damping`` that is not positive.

    Cost: 2 n² inner products, n steps; memory twice the rows.
    Source: Singh & Alistarh 2020, arXiv 2004.14340. As published, with weights.
    """
    check_damping(damping, "empirical Fisher matrix")
    count = tree.leading_axis(rows)
    shares = _shares(rows, weights)
    rows = _scaled(rows, jnp.sqrt(shares))

    def step(i: Any, state: Any) -> Any:
        directions, pivots = state
        row = take(rows, i)
        share = project(directions, row).astype(pivots.dtype) / pivots
        u = tree.subtract(tree.scale(1 / damping, row), combine(share, directions))
        pivot = 1 + tree.dot(row, u).astype(pivots.dtype)
        return put(directions, i, u), pivots.at[i].set(pivot)

    zero = tree.zeros_like(rows)
    directions, pivots = fori_loop(
        0, count, step, (zero, jnp.ones(count, shares.dtype))
    )
    diagonal = jax.tree.map(lambda r: jnp.full(r.shape[1:], damping, r.dtype), rows)
    scaled = tree.scale(damping, directions)
    return Woodbury(diagonal, scaled, jnp.diag(1 / pivots), jnp.all(pivots > 0))


def _shares(rows: Params, weights: Any) -> Array:
    """Weights that sum to one; all zero where no row has weight."""
    wide = jnp.zeros((), float).dtype
    if weights is None:
        weights = jnp.ones(tree.leading_axis(rows), wide)
    weights = jnp.asarray(weights, wide)
    mass = jnp.sum(weights)
    return weights / jnp.where(mass > 0, mass, 1)


def _scaled(rows: Params, factors: Array) -> Params:
    """Each row times its factor; zero for a factor of zero, whatever the row holds."""

    def one(row: Params, factor: Array) -> Params:
        return tree.where(factor != 0, tree.scale(factor, row), tree.zeros_like(row))

    return jax.vmap(one)(rows, factors)


def _divide(rows: Params, diagonal: Params) -> Params:
    """Every row over the diagonal."""
    return jax.vmap(lambda row: jax.tree.map(jnp.divide, row, diagonal))(rows)
