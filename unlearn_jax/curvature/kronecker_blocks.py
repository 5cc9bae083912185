"""The blocks of a Kronecker-factored matrix, and what all of them can do."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.curvature.rearrangement import Places
from unlearn_jax.types import Array, Scalar

ROTATED = 2048
"""Rows up to which a TPU takes rotations: some 2 s there, by its memory's bandwidth (an
estimate, n² numbers read and written in n rounds of a dozen sweeps; not measured)."""


class Factors(NamedTuple):
    """Value: the blocks A ⊗ G of a weight's groups, A of inputs and G of slopes."""

    inputs: Float[Array, "g i i"]
    slopes: Float[Array, "g o o"]


class RowFactors(NamedTuple):
    """Value: the block diag(rows) ⊗ G of a table whose rows are looked up."""

    rows: Float[Array, " v"]
    slopes: Float[Array, "d d"]


class Full(NamedTuple):
    """Value: the block itself, of a small parameter that is no layer's weight."""

    matrix: Float[Array, "s s"]


class Diagonal(NamedTuple):
    """Value: the diagonal of the block of a large parameter that is no layer's."""

    entries: Float[Array, " s"]


class Rotated(NamedTuple):
    """Value: (left ⊗ right) diag(values) (left ⊗ right)ᵀ, for each group."""

    left: Float[Array, "g i i"]
    right: Float[Array, "g o o"]
    values: Float[Array, "g i o"]


class RotatedRows(NamedTuple):
    """Value: (I ⊗ right) diag(values) (I ⊗ right)ᵀ, of a table."""

    right: Float[Array, "d d"]
    values: Float[Array, "v d"]


class Spectral(NamedTuple):
    """Value: vectors diag(values) vectorsᵀ."""

    vectors: Float[Array, "s s"]
    values: Float[Array, " s"]


Block: TypeAlias = (
    Factors | RowFactors | Full | Diagonal | Rotated | RotatedRows | Spectral
)


class Kronecker(NamedTuple):
    """Value: a block-diagonal matrix on parameter space, a block for each leaf.

    Attributes:
        blocks: In the order of the leaves, in at least float32.
        places: How a leaf is brought to the form its block acts on; no arrays.
    """

    blocks: tuple[Block, ...]
    places: Places


def eigendecompose(state: Kronecker) -> Kronecker:
    """The same matrix by its eigenvectors, rounding below zero cut off.

    Args:
        state: Any blocks; those that are decomposed already stay.

    Cost: about 9 (i³ + o³) operations a layer.
    """
    return state._replace(blocks=tuple(map(decompose, state.blocks)))


def decompose(block: Block) -> Block:
    """One block by its eigenvectors."""
    if isinstance(block, Factors):
        a, left = _eigh(block.inputs)
        g, right = _eigh(block.slopes)
        return Rotated(left, right, a[:, :, None] * g[:, None, :])
    if isinstance(block, RowFactors):
        g, right = _eigh(block.slopes)
        return RotatedRows(right, block.rows[:, None] * g[None])
    if isinstance(block, Full):
        values, vectors = _eigh(block.matrix)
        return Spectral(vectors, values)
    return block


def mean_eigenvalue(state: Kronecker) -> Scalar:
    """Trace over size, the natural unit of a damping."""
    pairs = [_trace(block) for block in state.blocks]
    values = [value for value, _ in pairs]
    return sum(values[1:], values[0]) / max(sum(size for _, size in pairs), 1)


def block_means(state: Kronecker) -> tuple[Scalar, ...]:
    """:func:`mean_eigenvalue` of each block alone."""
    return tuple(value / max(size, 1) for value, size in map(_trace, state.blocks))


def _trace(block: Block) -> tuple[Array, int]:
    """Trace and size."""
    if isinstance(block, Factors):
        a, g = (jnp.trace(f, axis1=1, axis2=2) for f in block)
        groups, i, o = *block.inputs.shape[:2], block.slopes.shape[1]
        return jnp.sum(a * g), groups * i * o
    if isinstance(block, RowFactors):
        size = block.rows.size * len(block.slopes)
        return jnp.sum(block.rows) * jnp.trace(block.slopes), size
    if isinstance(block, Full):
        return jnp.trace(block.matrix), len(block.matrix)
    values = block.entries if isinstance(block, Diagonal) else block.values
    return jnp.sum(values), values.size


def _eigh(matrices: Array) -> tuple[Array, Array]:
    """Eigenvalues, rounding below zero cut off, and eigenvectors.

    On TPUs matrices of more than 256 rows are split by polar decompositions, which are
    long to compile: for a v5e 18 s of CPU time at 288 rows. Rotations (Jacobi) are one
    small loop: 5 s at 576 rows, 6 s at 2,304. Which runs faster was not measured.
    """
    if matrices.shape[-1] > ROTATED:
        values, vectors = jnp.linalg.eigh(matrices)
    else:
        values, vectors = jax.lax.platform_dependent(
            matrices, tpu=_by_rotations, default=_by_default
        )
    return jnp.maximum(values, 0), vectors


def _by_default(matrices: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrices)
    return values, vectors


def _by_rotations(matrices: Array) -> tuple[Array, Array]:
    way = jax.lax.linalg.EighImplementation.JACOBI
    vectors, values = jax.lax.linalg.eigh(matrices, implementation=way)
    return values, vectors
