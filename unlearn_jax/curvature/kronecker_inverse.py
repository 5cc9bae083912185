"""Products with a Kronecker-factored matrix and with its damped inverse."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.curvature.kronecker_blocks import (
    Block,
    Diagonal,
    Factors,
    Full,
    Kronecker,
    Rotated,
    RotatedRows,
    RowFactors,
    Spectral,
    decompose,
)
from unlearn_jax.curvature.operator import LinearOperator, linear_operator
from unlearn_jax.curvature.rearrangement import from_forms, to_forms
from unlearn_jax.loop import tracing
from unlearn_jax.types import Array, Params
from unlearn_kernels.precision import exact_product, exactly


def kronecker_operator(state: Kronecker, like: Params) -> LinearOperator:
    """The approximated matrix itself, as a product.

    Args:
        state: From ``kfac`` or ``ekfac``.
        like: The parameters, for shapes and dtypes.

    Cost: 2 i o (i + o) operations a layer, twice that for decomposed blocks.
    """
    return linear_operator(_by_blocks(state, [_product(b) for b in state.blocks]), like)


def kronecker_inverse(
    state: Kronecker, *, damping: Any, split: str = "exact"
) -> Callable[[Any], Any]:
    """The map v -> (F + damping · I)⁻¹ v, F block-diagonal; also a preconditioner.

    Args:
        state: From ``kfac`` or ``ekfac``.
        damping: Positive, in the units of F; ``mean_eigenvalue(state)`` is a scale. A
            tuple holds one for each block; :func:`block_means` are its scales.
        split: "exact" by eigenvectors. "factored", for ``kfac`` only:
            (A + π √damping I)⁻¹ ⊗ (G + √damping / π I)⁻¹ with π² the ratio of the mean
            eigenvalues of A and G; cheaper to build, more damping than asked for.
            Blocks that are no products are damped exactly.

    Returns:
        Function from vectors like the parameters to vectors of the same dtypes; build
        it inside ``jit``. It raises ValueError for another tree.

    Raises:
        ValueError: a concrete damping that is not positive and finite, an unknown
            ``split``, or "factored" for decomposed blocks.

    Cost: eigenproblems (unless the blocks are decomposed) or two inverses a layer when
        built; then 4 or 2 i o (i + o) operations a layer.
    Source: Martens & Grosse 2015, arXiv 1503.05671, §6.3; George et al. 2018,
        arXiv 1806.03884. As published.
    """
    check_damping(damping, "kronecker_inverse")
    if split == "exact":
        blocks = tuple(map(decompose, state.blocks))
        each = zip(blocks, block_dampings(state, damping), strict=True)
        return _by_blocks(state, [_inverse(*pair) for pair in each])
    if split != "factored":
        raise ValueError(
            f"kronecker_inverse got split={split!r}, expected 'exact' or 'factored'"
        )
    if any(isinstance(block, Rotated | RotatedRows) for block in state.blocks):
        raise ValueError(
            "kronecker_inverse got split='factored' for eigenvectors, expected the "
            "factors of kfac; take split='exact'"
        )
    each = zip(state.blocks, block_dampings(state, damping), strict=True)
    return _by_blocks(state, [_factored(*pair) for pair in each])


def check_damping(damping: Any, what: str) -> None:
    """Refuse a damping that is known and not a positive number.

    Raises:
        ValueError: the value and what to change.
    """
    if tracing(damping):
        return
    values = np.asarray(damping, np.float64).ravel()
    if not np.all((values > 0) & np.isfinite(values)):
        raise ValueError(
            f"{what} got damping={damping}, expected a positive finite number: the "
            f"matrix may be singular; take a fraction of mean_eigenvalue(state)"
        )


def block_dampings(state: Kronecker, damping: Any) -> tuple[Any, ...]:
    """One damping for each block, of one for all or of a tuple.

    Raises:
        ValueError: a tuple of another length.
    """
    count = len(state.blocks)
    if not isinstance(damping, tuple):
        return (damping,) * count
    if len(damping) != count:
        raise ValueError(
            f"got {len(damping)} dampings for {count} blocks, expected one for each"
        )
    return damping


def damped_values(values: Array, damping: Any) -> Array:
    """1 / (values + damping)."""
    return 1 / (values + jnp.asarray(damping, values.dtype))


def _by_blocks(
    state: Kronecker, maps: list[Callable[[Array], Array]]
) -> Callable[[Any], Any]:
    @exactly
    def apply(vector: Params) -> Params:
        forms = to_forms(state.places, vector)
        results = [
            product(form).astype(form.dtype)
            for product, form in zip(maps, forms, strict=True)
        ]
        return from_forms(state.places, results)

    return apply


def _product(block: Block) -> Callable[[Array], Array]:
    if isinstance(block, Factors):
        return lambda v: _between(block.inputs, v, block.slopes)
    if isinstance(block, RowFactors):
        return lambda v: block.rows[:, None] * (v @ block.slopes)
    if isinstance(block, Full):
        return lambda v: block.matrix @ v
    if isinstance(block, Diagonal):
        return lambda v: block.entries * v
    return _spectral(block, block.values)


def _inverse(block: Block, damping: Any) -> Callable[[Array], Array]:
    if isinstance(block, Diagonal):
        entries = damped_values(block.entries, damping)
        return lambda v: entries * v
    if isinstance(block, Rotated | RotatedRows | Spectral):
        return _spectral(block, damped_values(block.values, damping))
    raise AssertionError("factors are decomposed first")


def _spectral(
    block: Rotated | RotatedRows | Spectral, values: Array
) -> Callable[[Array], Array]:
    if isinstance(block, RotatedRows):
        return lambda v: (values * (v @ block.right)) @ block.right.T
    if isinstance(block, Spectral):
        return lambda v: block.vectors @ (values * (block.vectors.T @ v))
    left, right = block.left, block.right
    turned = left.transpose(0, 2, 1), right.transpose(0, 2, 1)

    def apply(v: Array) -> Array:
        inside = _between(turned[0], v, right)
        return _between(left, values * inside, turned[1])

    return apply


def _factored(block: Block, damping: Any) -> Callable[[Array], Array]:
    if isinstance(block, Factors):
        a, g = block
        root, pi = _split(_mean_diagonal(a), _mean_diagonal(g), damping)
        left = _inverted(a, (pi * root)[:, None, None])
        right = _inverted(g, (root / pi)[:, None, None])
        return lambda v: _between(left, v, right)
    if isinstance(block, RowFactors):
        rows, g = block
        root, pi = _split(jnp.mean(rows), _mean_diagonal(g[None])[0], damping)
        right = _inverted(g[None], (root / pi)[None, None, None])[0]
        return lambda v: (v @ right) / (rows + pi * root)[:, None]
    return _inverse(decompose(block), damping)


def _mean_diagonal(matrices: Array) -> Array:
    return jnp.mean(jnp.diagonal(matrices, axis1=1, axis2=2), axis=1)


def _split(a: Array, g: Array, damping: Any) -> tuple[Array, Array]:
    """√damping and π = √(a / g), 1 where a factor is zero."""
    positive = (a > 0) & (g > 0)
    ratio = jnp.where(positive, a, 1) / jnp.where(positive, g, 1)
    return jnp.sqrt(jnp.asarray(damping, a.dtype)), jnp.sqrt(ratio)


def _inverted(matrices: Array, damping: Array) -> Array:
    eye = jnp.eye(matrices.shape[1], dtype=matrices.dtype)[None]
    factor = jnp.linalg.cholesky(matrices + damping * eye)
    half = jax.lax.linalg.triangular_solve(
        factor, jnp.broadcast_to(eye, factor.shape), left_side=True, lower=True
    )
    return exact_product(half.transpose(0, 2, 1), half)


def _between(left: Array, middle: Array, right: Array) -> Array:
    """Left · middle · right for each group."""
    return left @ (middle.astype(left.dtype) @ right)
