"""Signs that no memory holds: bits of a hash of the parameter's number and the column.

Column c of the matrix is the sign of bit 15 − s + 16 h of the word w of its parameter,
with s, w, h = c // (2 W), c % (2 W) // 2, c % 2 and W = ceil(width / 32) words: the
order in which two bfloat16 numbers leave one word of 32 bits. All forms of the
projection agree in every sign.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, UInt32

WORD = 32
"""Signs in one word."""


def words(width: int) -> int:
    """Words of a row of so many signs."""
    return -(-width // WORD)


def hashed(
    seeds: tuple[Array, Array],
    places: UInt32[Array, "p 1"],
    word: UInt32[Array, "1 w"],
) -> UInt32[Array, "p w"]:
    """Words of signs of parameters of these numbers."""
    rows = mixed(mixed(places ^ seeds[0]) + seeds[1])
    return mixed(rows + word * jnp.uint32(0x9E3779B9))


def mixed(value: Array) -> Array:
    """A bijection of 32 bits, each bit of which depends on all."""
    value = (value ^ (value >> 16)) * jnp.uint32(0x7FEB352D)
    value = (value ^ (value >> 15)) * jnp.uint32(0x846CA68B)
    return value ^ (value >> 16)


def signs(
    seeds: UInt32[Array, " 2"], places: UInt32[Array, " p"], width: int
) -> Float[Array, "p r"]:
    """Independent signs for parameters of these numbers, in bfloat16.

    Thirty-two bits of a hash of (parameter, word) are the signs of thirty-two columns,
    so that one costs a few integer operations for the word and one for itself.
    """
    word = jnp.arange(words(width), dtype=jnp.uint32)[None]
    # Else the hash is computed again for each sign.
    found = jax.lax.optimization_barrier(
        hashed((seeds[0], seeds[1]), places[:, None], word)
    )
    shifts = jnp.arange(16, dtype=jnp.uint32)[None, :, None]
    bits = (found[:, None] << shifts) & jnp.uint32(0x8000_8000)
    ones = bits | jnp.uint32(0x3F80_3F80)  # two numbers ±1 in bfloat16
    pairs = jax.lax.bitcast_convert_type(ones, jnp.bfloat16)
    return pairs.reshape(len(places), -1)[:, :width]
