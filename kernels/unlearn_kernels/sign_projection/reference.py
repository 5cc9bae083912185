"""Numbers times signs that are made for the product, as plainly as can be."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, UInt32

from unlearn_kernels.sign_projection.signs import signs


def project_signs_reference(
    seeds: UInt32[Array, " 2"],
    values: Float[Array, "n p"],
    places: UInt32[Array, " p"],
    width: int,
) -> Float[Array, "n r"]:
    """Values · signs, the signs in memory.

    Signs are exact in bfloat16, whose products are several times faster than those of
    float32 on most devices: float32 values are cut into two bfloat16 halves.

    Cost: ``2 n p width`` operations, twice for float32; memory ``p width`` half words.
    """
    drawn = signs(seeds, places, width)
    if values.dtype != jnp.float32:
        exact = lax.Precision.HIGHEST
        return jnp.matmul(values, drawn.astype(values.dtype), precision=exact)
    one = lax.Precision.DEFAULT  # one pass of bfloat16 factors is exact
    high, low = (
        jnp.matmul(half, drawn, precision=one, preferred_element_type=jnp.float32)
        for half in halves(values)
    )
    return high + low


def halves(values: Float[Array, "*any"]) -> tuple[Array, Array]:
    """float32 as a sum of two numbers in bfloat16: 16 bits, an error of some 3e-6."""
    # Not a cast there and back, which a compiler may drop.
    high = lax.reduce_precision(values, exponent_bits=8, mantissa_bits=7)
    return high.astype(jnp.bfloat16), (values - high).astype(jnp.bfloat16)
