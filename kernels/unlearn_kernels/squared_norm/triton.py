"""A program of a GPU for each example and tile: squared before it leaves registers.

Inner products with other gradients have no kernel here. With one direction, products
from the right need no gradient (``inputs · direction``, then with ``slopes``); with
many, each example's tile would meet every query's, read again for every example, while
one matrix product of formed gradients reads both sides a few times only. By an H100's
bandwidth the kernel is ahead for two to four queries at most (an estimate), which is no
use of this library.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Float

from unlearn_kernels.squared_norm.forms import squared_norm_streamed
from unlearn_kernels.tiles import (
    Tiles,
    accepted,
    product_tile,
    sums_like,
    tiles_of,
)
from unlearn_kernels.varying import vary


@jax.custom_jvp
def squared_norm_triton(
    inputs: Float[Array, "n g t i"], slopes: Float[Array, "n g t o"]
) -> Float[Array, " n"]:
    """‖Σₜ inputsₙₜ ⊗ slopesₙₜ‖² without any gradient in memory.

    Sums in float32 whatever the operands, and gives the operands' dtype. Derivatives
    are those of :func:`~unlearn_kernels.squared_norm.forms.squared_norm_streamed`.

    Raises:
        NotImplementedError: operands that are neither float32 nor half precision.

    Cost: ``2 n g t i o`` operations; each operand is read once for each tile of the
        other; one number for each example and tile is written.
    """
    return squared_norm_tiled(inputs, slopes)


@squared_norm_triton.defjvp
def _derivative(primals: Any, tangents: Any) -> Any:
    _, change = jax.jvp(squared_norm_streamed, primals, tangents)
    return squared_norm_triton(*primals), change


def squared_norm_tiled(
    inputs: Float[Array, "n g t i"],
    slopes: Float[Array, "n g t o"],
    *,
    side: int = 64,
    span: int = 32,
    interpret: bool = False,
) -> Float[Array, " n"]:
    """:func:`squared_norm_triton` with the sizes of its tiles; no derivatives.

    Args:
        inputs: As there.
        slopes: As there.
        side: Of a tile of the weight, at most; a power of two.
        span: Positions that are multiplied at once, at most; a power of two.
        interpret: Run the kernel step by step in JAX, on whatever device there is.
    """
    accepted("squared_norm", inputs, slopes)
    inputs, slopes = vary((inputs, slopes))
    n, g = inputs.shape[:2]
    tiles = tiles_of(inputs, slopes, side, span)
    parts = pl.pallas_call(
        functools.partial(_square_part, tiles=tiles, groups=g),
        out_shape=sums_like(inputs, (tiles.number, n)),
        grid=(tiles.number, n),
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=3),
        interpret=interpret,
        name="squared_norm",
    )(inputs, slopes)
    return jnp.sum(parts, axis=0).astype(jnp.result_type(inputs, slopes))


def _square_part(
    inputs: Any, slopes: Any, parts: Any, *, tiles: Tiles, groups: int
) -> None:
    """One tile of one example, squared and summed over all groups."""
    tile, example = pl.program_id(0), pl.program_id(1)

    def add(group: Array, total: Array) -> Array:
        # Beyond the weight's edge a tile is zero, since its operands are.
        gradient = product_tile(tiles, tile, (example, group), inputs, slopes)
        return total + jnp.sum(gradient * gradient)

    zero = jnp.zeros((), jnp.float32)
    total = lax.fori_loop(jnp.int32(0), jnp.int32(groups), add, zero)
    triton.store(parts.at[(tile, example)], total)
