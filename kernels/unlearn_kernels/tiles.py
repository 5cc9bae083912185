"""Tiles of a layer's weight, as the kernels for GPUs walk over them.

An example's gradient is Σₜ inputsₜ ⊗ slopesₜ. A program of a GPU makes one tile of it,
rows of inputs by columns of slopes, a span of positions at a time.

The kernels are written for Pallas's Triton backend: it serves NVIDIA's GPUs from
Ampere on and AMD's. JAX 0.12 announces its end in favour of Mosaic GPU, which serves
Hopper and later alone; where Pallas no longer has it, ``"reference"`` stays.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from unlearn_kernels.precision import summed

PROGRAMS = 264
"""Programs that fill a large GPU, twice its processors (an H100 has 132)."""
SMALLEST = 16
"""Of a side that Triton multiplies."""
DTYPES = ("float32", "bfloat16", "float16")
MOST_POSITIONS = 256
"""With more, forming a gradient costs so much more than writing it that XLA's batched
product, which is tuned to each device, comes out ahead (an estimate from an H100's
bandwidth and arithmetic; not measured)."""


class Tiles(NamedTuple):
    """Description: how a weight of i × o numbers is cut, and its positions too.

    Attributes:
        inputs: i, numbers in.
        outputs: o, numbers out.
        positions: t.
        rows: Of a tile, a power of two.
        columns: Of a tile, a power of two.
        span: Positions multiplied at once, a power of two.
    """

    inputs: int
    outputs: int
    positions: int
    rows: int
    columns: int
    span: int

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return -(-self.outputs // self.columns)

    @property
    def number(self) -> int:
        """Tiles of one weight."""
        return -(-self.inputs // self.rows) * self.across


def tiles_of(inputs: Array, slopes: Array, side: int, span: int) -> Tiles:
    """Tiles for (n, g, t, i) and (n, g, t, o), no wider than they need to be."""
    _, _, positions, taken = inputs.shape
    given = slopes.shape[3]
    return Tiles(
        taken,
        given,
        positions,
        fitting(taken, side),
        fitting(given, side),
        fitting(positions, span),
    )


def fitting(size: int, most: int) -> int:
    """A power of two that covers a size, or ``most``; at least ``SMALLEST``."""
    return min(most, max(SMALLEST, 1 << (size - 1).bit_length()))


def able(*operands: Array) -> bool:
    """Whether a kernel for GPUs can multiply these: one dtype, float32 or half."""
    dtypes = {operand.dtype.name for operand in operands}
    return len(dtypes) == 1 and dtypes <= set(DTYPES)


def accepted(operation: str, *operands: Array) -> None:
    """Refuse what a kernel for GPUs cannot multiply.

    Raises:
        NotImplementedError: see :func:`able`.
    """
    if not able(*operands):
        dtypes = [operand.dtype.name for operand in operands]
        raise NotImplementedError(
            f"the Triton form of {operation} takes operands of one dtype out of "
            f"{', '.join(DTYPES)}, got {', '.join(dtypes)}; take 'reference'"
        )


def sums_like(operand: Array, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """float32 of this shape, over the mesh axes that an operand varies over."""
    kind = getattr(jax.typeof(operand), "manual_axis_type", None)
    return jax.ShapeDtypeStruct(shape, jnp.float32, manual_axis_type=kind)


def place_of(tiles: Tiles, tile: Array) -> tuple[tuple[Any, Any], Array]:
    """Where a tile lies in its weight, and which of its entries the weight has."""
    top, left = _corner(tiles, tile)
    row, column = _from(top, tiles.rows), _from(left, tiles.columns)
    inside = (row < tiles.inputs)[:, None] & (column < tiles.outputs)[None]
    return (pl.ds(top, tiles.rows), pl.ds(left, tiles.columns)), inside


def product_tile(
    tiles: Tiles, tile: Array, at: tuple[Array, Array], inputs: Any, slopes: Any
) -> Array:
    """One tile of the gradient of example and group ``at``, in float32.

    Products of float32 are those that ``precision.summed`` asks for.
    """
    top, left = _corner(tiles, tile)
    row, column = _from(top, tiles.rows), _from(left, tiles.columns)

    def add(step: Array, total: Array) -> Array:
        first = step * tiles.span
        here = (_from(first, tiles.span) < tiles.positions)[:, None]
        when = pl.ds(first, tiles.span)
        a = triton.load(
            inputs.at[(*at, when, pl.ds(top, tiles.rows))],
            mask=here & (row < tiles.inputs)[None],
            other=0.0,
        )
        d = triton.load(
            slopes.at[(*at, when, pl.ds(left, tiles.columns))],
            mask=here & (column < tiles.outputs)[None],
            other=0.0,
        )
        precision = summed() if a.dtype == jnp.float32 else None
        return total + triton.dot(a, d, trans_a=True, precision=precision)

    steps = jnp.int32(-(-tiles.positions // tiles.span))
    zero = jnp.zeros((tiles.rows, tiles.columns), jnp.float32)
    return lax.fori_loop(jnp.int32(0), steps, add, zero)


def _corner(tiles: Tiles, tile: Array) -> tuple[Array, Array]:
    """First row and first column of a tile."""
    across = jnp.int32(tiles.across)
    return (
        lax.div(tile, across) * jnp.int32(tiles.rows),
        lax.rem(tile, across) * jnp.int32(tiles.columns),
    )


def _from(first: Array, size: int) -> Array:
    return first + jax.lax.iota(jnp.int32, size)
