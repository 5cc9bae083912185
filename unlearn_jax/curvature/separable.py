"""A damped inverse of an eigenvalue table as a short sum of row times column."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from unlearn_jax.types import Array
from unlearn_kernels.precision import exact_product

OVERSAMPLE = 8
ITERATIONS = 2


class Separable(NamedTuple):
    """Value: 1 / (Λ + damping) ≈ Σᵣ leftᵣ ⊗ rightᵣ for the table Λ of one layer.

    Attributes:
        left: Over the input directions, for each group.
        right: Over the output directions.
        spectrum: Singular values of the weighted table, falling.
        tail: Share of the weighted table's Frobenius norm that is left out.
    """

    left: Float[Array, "g r i"]
    right: Float[Array, "g r o"]
    spectrum: Float[Array, "g r"]
    tail: Float[Array, " g"]


def separable_inverse(
    values: Float[Array, "g i o"], *, damping: Any, rank: int = 8
) -> Separable:
    """The best sum of ``rank`` products, weighted by the energy of gradients.

    Minimises Σ (αᵢ βₒ (1 / (Λᵢₒ + damping) - Σᵣ uᵣᵢ vᵣₒ))², with α and β the roots of
    the row and column sums of Λ: entries count as far as gradients reach them. Without
    weights the many directions without curvature, where the inverse is largest, would
    take all the rank.

    Args:
        values: Λ ≥ 0, of each group.
        damping: Positive.
        rank: Terms; from min(i, o) on the table is exact up to rounding.

    Returns:
        Factors, and what they leave out; the same table gives the same numbers.

    Raises:
        ValueError: ``rank`` below 1.

    Cost: about 12 i o (rank + 8) operations a group by subspace iteration from a fixed
        start, or a full SVD where rank + 8 reaches min(i, o).
    Source: Halko, Martinsson & Tropp 2011, arXiv 0909.4061, alg. 4.4; the use of it is
        ours.
    """
    if rank < 1:
        raise ValueError(f"separable_inverse got rank={rank}, expected at least 1")

    def one(table: Array) -> Separable:
        rows, columns = _root(jnp.sum(table, axis=1)), _root(jnp.sum(table, axis=0))
        inverse = 1 / (table + jnp.asarray(damping, table.dtype))
        weighted = rows[:, None] * inverse * columns[None]
        u, s, v = _leading(weighted, min(rank, *table.shape))
        total = jnp.sum(jnp.square(weighted))
        left_out = jnp.maximum(total - jnp.sum(jnp.square(s)), 0)
        root = jnp.sqrt(s)[:, None]
        return Separable(
            root * u.T / rows[None],
            root * v / columns[None],
            s,
            jnp.sqrt(left_out / total),
        )

    return jax.vmap(one)(values)


def _root(energy: Array) -> Array:
    """√energy over its largest, kept from zero so that it can be divided by."""
    largest = jnp.max(energy)
    share = energy / jnp.where(largest > 0, largest, 1)
    least = jnp.finfo(energy.dtype).eps
    return jnp.sqrt(jnp.maximum(share, least))


def _leading(matrix: Array, rank: int) -> tuple[Array, Array, Array]:
    """The first ``rank`` singular triplets: (i, r), (r,), (r, o)."""
    width = rank + OVERSAMPLE
    if width >= min(matrix.shape):
        u, s, v = jnp.linalg.svd(matrix, full_matrices=False)
        return u[:, :rank], s[:rank], v[:rank]
    start = jax.random.normal(jax.random.key(0), (matrix.shape[1], width), matrix.dtype)

    def iterate(_: Any, basis: Array) -> Array:
        return jnp.linalg.qr(exact_product(matrix, exact_product(matrix.T, basis)))[0]

    basis = jnp.linalg.qr(exact_product(matrix, start))[0]
    basis = lax.fori_loop(0, ITERATIONS, iterate, basis)
    u, s, v = jnp.linalg.svd(exact_product(basis.T, matrix), full_matrices=False)
    return exact_product(basis, u)[:, :rank], s[:rank], v[:rank]
