"""Linear algebra on trees whose leaves are stacked along a first axis.

Products are asked for at full precision: accelerators otherwise round float32 factors
to ten bits, which is too little for orthogonality.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from unlearn_jax import tree
from unlearn_jax.loop import fori_loop
from unlearn_jax.solvers.refinement import epsilon
from unlearn_jax.types import Array, Params
from unlearn_kernels.precision import EXACT


def gram(a: Params, b: Params) -> Float[Array, "k l"]:
    """Real inner products of k stacked vectors with l, in at least float32."""
    leaves = (*jax.tree.leaves(a), *jax.tree.leaves(b))
    wide = np.result_type(np.float32, *(leaf.dtype for leaf in leaves))
    dtype = jnp.finfo(wide).dtype

    def products(x: Array, y: Array) -> Array:
        axes = tuple(range(1, x.ndim))
        kind = np.result_type(dtype, x.dtype, y.dtype)
        return jnp.real(
            jnp.tensordot(
                *(jnp.conj(x), y),
                axes=(axes, axes),
                precision=EXACT,
                preferred_element_type=kind,
            )
        )

    shape = (tree.leading_axis(a), tree.leading_axis(b))
    return jax.tree.reduce(
        jnp.add, jax.tree.map(products, a, b), jnp.zeros(shape, dtype)
    )


def project(stack: Params, vector: Params) -> Float[Array, " k"]:
    """Inner products of k stacked vectors with one."""
    return gram(stack, jax.tree.map(lambda leaf: leaf[None], vector))[:, 0]


def combine(coefficients: Any, stack: Params) -> Params:
    """Σᵢ c[..., i] · stack[i], in the dtypes of the stack.

    One vector for coefficients (k,), a stack of l for coefficients (l, k).
    """

    def weighted(leaf: Array) -> Array:
        factors = coefficients.astype(np.result_type(np.float32, leaf.dtype))
        total = jnp.tensordot(factors, leaf, axes=1, precision=EXACT)
        return total.astype(leaf.dtype)

    return jax.tree.map(weighted, stack)


def take(stack: Params, index: Any) -> Params:
    """The vector in place ``index``, which may be traced."""
    return jax.tree.map(lambda leaf: leaf[index], stack)


def put(stack: Params, index: Any, vector: Params) -> Params:
    """The stack with the vector in place ``index``."""
    return jax.tree.map(lambda s, v: s.at[index].set(v.astype(s.dtype)), stack, vector)


def orthonormalise(
    vectors: Params, duals: Params | None = None, *, floor: float = 0.0
) -> tuple[Params, Params, Float[Array, "k k"]]:
    """Factor stacked vectors into an orthonormal basis times coefficients.

    ``vectors[j] = Σᵢ basis[i] coefficients[i, j]``. A vector that depends on those
    before it, up to rounding, leaves a zero in its place of the basis and of the
    coefficients' diagonal.

    Args:
        vectors: k vectors stacked along the first axis.
        duals: ``M vectors`` for a positive definite M: the basis is then orthonormal
            in the inner product uᵀ M v.
        floor: Vectors shorter than this times rounding count as zero.

    Returns:
        (basis, ``M basis``, coefficients).

    Cost: 4 k² inner products' worth of memory traffic: Gram-Schmidt done twice.
    """
    k = tree.leading_axis(vectors)
    wide = (leaf.dtype for leaf in jax.tree.leaves(vectors))
    dtype = jnp.finfo(np.result_type(np.float32, *wide)).dtype
    drop = 10 * k * epsilon(vectors)
    plain = duals is None

    def place(j: Any, state: Any) -> Any:
        basis, dual_basis, coefficients = state
        vector = take(vectors, j)
        dual = vector if plain else take(duals, j)
        size = jnp.sqrt(jnp.maximum(tree.dot(vector, dual), 0))
        column = jnp.zeros(k, dtype)
        for _ in range(2):
            share = project(basis if plain else dual_basis, vector)
            vector = tree.subtract(vector, combine(share, basis))
            dual = vector if plain else tree.subtract(dual, combine(share, dual_basis))
            column += share
        left = jnp.sqrt(jnp.maximum(tree.dot(vector, dual), 0))
        keep = left > drop * jnp.maximum(size, floor)
        shrink = jnp.where(keep, 1 / jnp.where(keep, left, 1), 0)
        basis = put(basis, j, tree.scale(shrink, vector))
        if not plain:
            dual_basis = put(dual_basis, j, tree.scale(shrink, dual))
        column = column.at[j].set(jnp.where(keep, left, 0))
        return basis, dual_basis, coefficients.at[:, j].set(column)

    nothing = tree.zeros_like(vectors)
    start = (nothing, () if plain else nothing, jnp.zeros((k, k), dtype))
    basis, dual_basis, coefficients = fori_loop(0, k, place, start)
    return basis, basis if plain else dual_basis, coefficients
