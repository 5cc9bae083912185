"""Signs from their hash inside the product, for GPUs: none is written to memory.

XLA for GPUs writes the signs, 2 bytes each, and reads them again; XLA for TPUs makes
them where the matrix unit reads them, so that the reference is enough there.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Float, UInt32

from unlearn_kernels.sign_projection.reference import project_signs_reference
from unlearn_kernels.sign_projection.signs import WORD, hashed, words
from unlearn_kernels.tiles import PROGRAMS, accepted, fitting, sums_like
from unlearn_kernels.varying import vary

BITS = 8
"""Of a word that one program takes: so many sums are held in registers at once."""


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def project_signs_triton(
    seeds: UInt32[Array, " 2"],
    values: Float[Array, "n p"],
    places: UInt32[Array, " p"],
    width: int,
) -> Float[Array, "n r"]:
    """Values · signs; a program owns some words' bits and a part of the parameters.

    Sums in float32; the parts are added in one order. Derivatives are those of
    :func:`~unlearn_kernels.sign_projection.reference.project_signs_reference`.

    Raises:
        NotImplementedError: values that are neither float32 nor half precision.

    Cost: ``2 n p width`` operations, twice for float32; memory ``n width`` numbers for
        each part. A word's hash is computed once for each of its groups of bits.
    """
    return project_signs_tiled(seeds, values, places, width=width)


@project_signs_triton.defjvp
def _derivative(width: int, primals: Any, tangents: Any) -> Any:
    seeds, _, places = primals
    change = project_signs_reference(seeds, tangents[1], places, width)
    return project_signs_triton(*primals, width), change


def project_signs_tiled(
    seeds: UInt32[Array, " 2"],
    values: Float[Array, "n p"],
    places: UInt32[Array, " p"],
    *,
    width: int,
    examples: int = 64,
    parameters: int = 64,
    side: int = 16,
    interpret: bool = False,
) -> Float[Array, "n r"]:
    """:func:`project_signs_triton` with the sizes of its tiles.

    Args:
        seeds: As there.
        values: As there.
        places: As there.
        width: As there.
        examples: Of a tile, at most; a power of two.
        parameters: Multiplied at once, at most; a power of two.
        side: Words of a tile, at most; a power of two.
        interpret: Run the kernel step by step in JAX, on whatever device there is.
    """
    accepted("project_signs", values)
    seeds, values, places = vary((seeds, values, places))
    n, p = values.shape
    count = words(width)
    rows, across = fitting(n, examples), fitting(count, side)
    span, groups = fitting(p, parameters), WORD // BITS
    tiles, steps = -(-count // across), -(-p // span)
    parts = max(1, min(-(-steps // 8), PROGRAMS // (-(-n // rows) * tiles * groups)))
    found = pl.pallas_call(
        functools.partial(
            _project_part,
            shape=(n, p, count),
            tile=(rows, span, across),
            tiles=tiles,
            each=-(-steps // parts),
        ),
        out_shape=sums_like(values, (parts, WORD, n, count)),
        grid=(-(-n // rows), groups * tiles, parts),
        compiler_params=triton.CompilerParams(num_warps=8, num_stages=2),
        interpret=interpret,
        name="project_signs",
    )(seeds, values, places)
    return _ordered(jnp.sum(found, axis=0), width).astype(values.dtype)


def _project_part(
    seeds: Any,
    values: Any,
    places: Any,
    sums: Any,
    *,
    shape: tuple[int, int, int],
    tile: tuple[int, int, int],
    tiles: int,
    each: int,
) -> None:
    """Some examples, some bits of some words, over one part of the parameters."""
    (n, p, count), (rows, span, across) = shape, tile
    top = pl.program_id(0) * jnp.int32(rows)
    group = lax.div(pl.program_id(1), jnp.int32(tiles))
    left = lax.rem(pl.program_id(1), jnp.int32(tiles)) * jnp.int32(across)
    part = pl.program_id(2)
    row = (top + lax.iota(jnp.int32, rows))[:, None] < n
    word = left + lax.iota(jnp.int32, across)
    seed = seeds[0], seeds[1]

    def add(step: Array, totals: tuple[Array, ...]) -> tuple[Array, ...]:
        first = (part * each + step) * jnp.int32(span)
        here = first + lax.iota(jnp.int32, span) < p
        at = pl.ds(first, span)
        block = triton.load(
            values.at[pl.ds(top, rows), at], mask=row & here[None], other=0.0
        )
        number = triton.load(places.at[at], mask=here, other=0)
        drawn = hashed(seed, number[:, None], word.astype(jnp.uint32)[None])
        whole = block.dtype != jnp.float32
        pieces = (block.astype(jnp.float32),) if whole else _halves(block)
        return tuple(
            total
            + sum(_dot(piece, _sign(drawn, group * BITS + bit)) for piece in pieces)
            for bit, total in enumerate(totals)
        )

    zero = jnp.zeros((rows, across), jnp.float32)
    totals = lax.fori_loop(jnp.int32(0), jnp.int32(each), add, (zero,) * BITS)
    for bit, total in enumerate(totals):
        triton.store(
            sums.at[part, group * BITS + bit, pl.ds(top, rows), pl.ds(left, across)],
            total,
            mask=row & (word < count)[None],
        )


def _halves(values: Array) -> tuple[Array, Array]:
    """float32 as a sum of two numbers that bfloat16 holds, up to 16 bits.

    Cut, not rounded: Triton has no ``reduce_precision``, and a cast there and back is
    what a compiler may drop.
    """
    bits = lax.bitcast_convert_type(values, jnp.uint32) & jnp.uint32(0xFFFF_0000)
    high = lax.bitcast_convert_type(bits, jnp.float32)
    return high, values - high


def _dot(values: Array, drawn: Array) -> Array:
    return triton.dot(values.astype(jnp.bfloat16), drawn)


def _sign(drawn: Array, bit: Array) -> Array:
    """±1 in bfloat16 of one bit of each word: as float32 first, whose bits it has."""
    moved = drawn << (jnp.int32(31) - bit).astype(jnp.uint32)
    ones = (moved & jnp.uint32(0x8000_0000)) | jnp.uint32(0x3F80_0000)
    return lax.bitcast_convert_type(ones, jnp.float32).astype(jnp.bfloat16)


def _ordered(found: Float[Array, "32 n w"], width: int) -> Float[Array, "n r"]:
    """Bits of words in the order of columns that ``signs`` has."""
    _, n, count = found.shape
    parts = found.reshape(2, 16, n, count)[:, ::-1]  # h, s, n, w
    return parts.transpose(2, 1, 3, 0).reshape(n, WORD * count)[:, :width]
