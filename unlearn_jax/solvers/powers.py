"""Exponents and powers of two, exact on every platform.

``jnp.frexp`` reads the bits of a number, which float64 does not have on TPUs, where it
is a pair of float32; ``jnp.ldexp`` raises two to a power in floating point, which is
rounded where a device computes powers by logarithms.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import DTypeLike, Float, Int

from unlearn_kernels.varying import vary

_STEPS = tuple(2**place for place in reversed(range(10)))


def exponent(values: Float[Array, "*s"]) -> Int[Array, "*s"]:
    """The integer e of each number with 2ᵉ⁻¹ ≤ |number| < 2ᵉ.

    Returns:
        int32; 0 where the number is zero or not finite.

    Cost: some operations a number; some sixty on TPUs.
    """
    return jax.lax.platform_dependent(values, tpu=_by_halving, default=_by_bits)


# Traced and lowered once a shape: a step with exact sums holds hundreds.
@functools.partial(jax.jit, static_argnames="dtype")
def power_of_two(exponents: Int[Array, "*s"], dtype: DTypeLike) -> Float[Array, "*s"]:
    """2ᵉ from a table, so that nothing is rounded and little is compiled.

    Args:
        exponents: So that 2ᵉ is a normal number of the dtype, and its inverse too.
        dtype: Of the answer.
    """
    told = jnp.finfo(dtype)
    least, most = int(told.minexp), int(told.maxexp)
    table = np.ldexp(1.0, np.arange(least, most)).astype(dtype)
    return jnp.take(jnp.asarray(table), exponents - least, mode="clip")


def _by_bits(values: Array) -> Array:
    usable = jnp.isfinite(values) & (values != 0)
    found = jnp.frexp(jnp.where(usable, values, 0.5))[1]
    return vary(found, values)  # JAX 0.12 forgets that the exponents differ


def _by_halving(values: Array) -> Array:
    """The same by comparisons and products with powers of two."""
    usable = jnp.isfinite(values) & (values != 0)
    rest = jnp.where(usable, jnp.abs(values), 0.5)
    found = jnp.zeros(values.shape, jnp.int32)
    for step in _steps(values.dtype):
        large = rest >= 2.0**step
        rest = jnp.where(large, rest * 0.5**step, rest)
        found = jnp.where(large, found + step, found)
    for step in _steps(values.dtype):
        small = rest < 2.0 ** (1 - step)
        rest = jnp.where(small, rest * 2.0**step, rest)
        found = jnp.where(small, found - step, found)
    return jnp.where(usable, found + 1, 0)


def _steps(dtype: DTypeLike) -> tuple[int, ...]:
    """Powers of two up to the largest exponent, the largest first."""
    return tuple(step for step in _STEPS if step < jnp.finfo(dtype).maxexp)
