"""A tile of the weight for each program of a GPU, squared before it leaves registers.

Written in Pallas for its Triton backend, which NVIDIA's and AMD's GPUs run. XLA for
GPUs writes every example's gradient to memory and reads it again for the square.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Float

from unlearn_kernels.fisher_diagonal.streamed import square_sum_streamed
from unlearn_kernels.tiles import (
    PROGRAMS,
    Tiles,
    accepted,
    place_of,
    product_tile,
    sums_like,
    tiles_of,
)
from unlearn_kernels.varying import vary


@jax.custom_jvp
def square_sum_triton(
    inputs: Float[Array, "n g t i"],
    slopes: Float[Array, "n g t o"],
    weights: Float[Array, " n"],
) -> Float[Array, "g i o"]:
    """Σₙ wₙ (Σₜ inputsₙₜ ⊗ slopesₙₜ)² without any gradient in memory.

    Sums in float32 whatever the operands, and gives the operands' dtype. Examples of
    weight zero are masked, whatever they hold. Derivatives are those of
    :func:`~unlearn_kernels.fisher_diagonal.streamed.square_sum_streamed`.

    Raises:
        NotImplementedError: operands that are neither float32 nor half precision.

    Cost: ``2 n g t i o`` operations; memory ``g i o`` numbers for each of a few parts
        of the examples, beside the operands; each operand is read once for each tile
        of the other.
    """
    return square_sum_tiled(inputs, slopes, weights)


@square_sum_triton.defjvp
def _derivative(primals: Any, tangents: Any) -> Any:
    _, change = jax.jvp(square_sum_streamed, primals, tangents)
    return square_sum_triton(*primals), change


def square_sum_tiled(
    inputs: Float[Array, "n g t i"],
    slopes: Float[Array, "n g t o"],
    weights: Float[Array, " n"],
    *,
    side: int = 128,
    span: int = 32,
    parts: int | None = None,
    interpret: bool = False,
) -> Float[Array, "g i o"]:
    """:func:`square_sum_triton` with the sizes of its tiles; no derivatives.

    Args:
        inputs: As there.
        slopes: As there.
        weights: As there.
        side: Of a tile of the weight, at most; a power of two.
        span: Positions that are multiplied at once, at most; a power of two.
        parts: Into which the examples are cut, since a small layer has fewer tiles
            than a GPU has processors; None chooses. Their sums are added in one order,
            so that the result is the same in every bit each time.
        interpret: Run the kernel step by step in JAX, on whatever device there is.
    """
    accepted("square_sum", inputs, slopes)
    inputs, slopes, weights = vary((inputs, slopes, weights))
    n, g, _, i = inputs.shape
    o = slopes.shape[3]
    tiles = tiles_of(inputs, slopes, side, span)
    if parts is None:
        parts = max(1, min(n, PROGRAMS // (tiles.number * g)))
    sums = pl.pallas_call(
        functools.partial(_sum_part, tiles=tiles, examples=n, each=-(-n // parts)),
        out_shape=sums_like(inputs, (parts, g, i, o)),
        grid=(tiles.number, g, parts),
        compiler_params=triton.CompilerParams(num_warps=8, num_stages=3),
        interpret=interpret,
        name="square_sum",
    )(weights.astype(jnp.float32), inputs, slopes)
    total = jnp.sum(sums, axis=0) if parts > 1 else sums[0]
    return total.astype(jnp.result_type(inputs, slopes))


def _sum_part(
    weights: Any,
    inputs: Any,
    slopes: Any,
    sums: Any,
    *,
    tiles: Tiles,
    examples: int,
    each: int,
) -> None:
    """One tile of one group, summed over one part of the examples."""
    tile, group, part = (pl.program_id(axis) for axis in range(3))

    def add(step: Array, total: Array) -> Array:
        example = part * each + step
        here = example < examples
        example = jnp.minimum(example, examples - 1)
        gradient = product_tile(tiles, tile, (example, group), inputs, slopes)
        weight = jnp.where(here, triton.load(weights.at[example]), 0.0)
        return total + jnp.where(weight == 0, 0.0, weight * gradient * gradient)

    zero = jnp.zeros((tiles.rows, tiles.columns), jnp.float32)
    total = lax.fori_loop(jnp.int32(0), jnp.int32(each), add, zero)
    place, inside = place_of(tiles, tile)
    triton.store(sums.at[(part, group, *place)], total, mask=inside)
