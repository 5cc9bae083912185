"""Second moments of layer inputs and of slopes, from factored gradients."""

import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.curvature.per_example import Gradient, Outer, Rows
from unlearn_jax.curvature.rearrangement import View, table_rows
from unlearn_jax.types import Array
from unlearn_kernels.precision import EXACT, exact_product, summed, wide


def input_moment(
    gradient: Gradient, weights: Array, shared: str, view: View
) -> Array | None:
    """Σₙ wₙ Aₙ: (g, i, i) of a product, the diagonal (v,) of a table, else nothing."""
    if isinstance(gradient, Outer):
        inputs = gradient.inputs
        if shared == "reduce":
            inputs = jnp.mean(inputs, axis=2, keepdims=True)
        return covariance(inputs, weights / inputs.shape[2])
    if isinstance(gradient, Rows):
        indices = gradient.indices
        positions = indices.shape[1]
        shares = jnp.ones(indices.shape, wide(weights)) / positions
        if shared == "reduce":
            same = indices[:, :, None] == indices[:, None, :]
            shares = shares * jnp.mean(same, axis=2, dtype=shares.dtype)
        zero = jnp.zeros((table_rows(view),), shares.dtype)
        # Row numbers outside of the table are dropped, as a lookup gives nothing.
        return zero.at[indices].add(weights[:, None] * shares, mode="drop")
    return None


def slope_moment(
    gradient: Gradient, weights: Array, shared: str, max_block: int
) -> Array:
    """Σₙ wₙ Gₙ: (g, o, o) of a product, (d, d) of a table, (s, s) or (s,) of others."""
    if isinstance(gradient, Outer | Rows):
        slopes = gradient.slopes
        if isinstance(gradient, Rows):
            slopes = slopes.reshape(slopes.shape[0], 1, slopes.shape[1], -1)
        if shared == "reduce":
            slopes = jnp.sum(slopes, axis=2, keepdims=True)
        found = covariance(slopes, weights)
        return found[0] if isinstance(gradient, Rows) else found
    values = gradient.values.reshape(len(gradient.values), -1)
    if values.shape[1] <= max_block:
        return covariance(values[:, None, None], weights)[0]
    values = values.astype(wide(values))
    return exact_product(weights.astype(values.dtype), jnp.square(values))


def covariance(
    values: Float[Array, "n g t i"], weights: Float[Array, " n"]
) -> Float[Array, "g i i"]:
    """Σₙ wₙ Σₜ v vᵀ, in at least float32.

    Cost: 2 n g t i² operations.
    """
    n, g, t, i = values.shape
    values = values.astype(wide(values))
    scaled = values * weights.astype(values.dtype)[:, None, None, None]
    if g == 1:
        rows, others = values.reshape(n * t, i), scaled.reshape(n * t, i)
        return exact_product(rows.T, others)[None]
    return jnp.einsum("ngti,ngtj->gij", values, scaled, precision=EXACT)


def row_squares(
    gradient: Rows, weights: Float[Array, " n"], rows: int
) -> Float[Array, "v d"]:
    """Σₙ wₙ gₙ² of a table; positions of an example that name a row are summed first.

    Each position takes the total of its row, squared and shared among them.
    """
    indices, slopes = gradient
    slopes = slopes.reshape(*indices.shape, -1)
    same = (indices[:, :, None] == indices[:, None, :]).astype(slopes.dtype)
    totals = jnp.einsum("nts,nsd->ntd", same, slopes, precision=summed())
    shares = jnp.square(totals) / jnp.sum(same, axis=2)[..., None]
    scaled = weights.astype(slopes.dtype)[:, None, None] * shares
    zero = jnp.zeros((rows, slopes.shape[2]), slopes.dtype)
    return zero.at[indices].add(scaled, mode="drop")
