"""Random ReLU features of frozen features, on a grid: the same bits everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import DTypeLike, Float

from unlearn_jax.types import Inputs, PRNGKey

LARGEST_WIDTH = 16_384
_FEATURE_STEP = 2.0**-22
_KERNEL_STEP = 2.0**-18
_LARGEST_KERNEL = 8.0
ROW_STEP = 2.0**-16
"""Grid of the rows: with ``LARGEST_ROW``, 20 digits, so products are exact sums."""
LARGEST_ROW = 16.0


def random_kernel(
    key: PRNGKey, d: int, width: int, *, dtype: DTypeLike = jnp.float64
) -> Float[Array, "d f"]:
    """Standard normal numbers on a grid of 2⁻¹⁸, clipped at ±8.

    Raises:
        ValueError: ``d`` or ``width`` not positive, or the width above 16,384, where
            the Gram matrix alone takes 2 GiB.
    """
    if d < 1 or not 1 <= width <= LARGEST_WIDTH:
        raise ValueError(
            f"expected at least 1 feature and a width of 1 to {LARGEST_WIDTH}, got {d} "
            f"and {width}"
        )
    drawn = jax.random.normal(key, (d, width), dtype)
    drawn = jnp.clip(drawn, -_LARGEST_KERNEL, _LARGEST_KERNEL)
    return jnp.round(drawn / _KERNEL_STEP) * _KERNEL_STEP


def directions(
    features: Inputs, *, dtype: DTypeLike = np.float64
) -> Float[np.ndarray, "n d"]:
    """Features scaled to norm 1, on a grid of 2⁻²²: what a head may know of an example.

    Numbers are cut to 21 digits of the row's largest before their squares are summed:
    for up to 2,048 features that sum has no rounding, and no order.

    Args:
        features: (n, …), any array; flattened. A row of zeros stays zero.
        dtype: Of the result; the grid is that of float64 or float32 alike.

    Returns:
        In numpy, so that requests of any size need no program of their own.
    """
    rows = np.asarray(features, np.float64)
    rows = rows.reshape(len(rows), int(np.prod(rows.shape[1:])))
    largest = np.max(np.abs(rows), axis=1, keepdims=True, initial=0)
    rows = np.round(rows / np.where(largest > 0, largest, 1) * 2.0**21)
    length = np.sqrt(np.sum(np.square(rows), axis=1, keepdims=True))
    unit = rows / np.where(length > 0, length, 1)
    return (np.round(unit / _FEATURE_STEP) * _FEATURE_STEP).astype(dtype)


def expand(
    unit: Float[Array | np.ndarray, "n d"], kernel: Float[Array, "d f"]
) -> Float[Array, "n f"]:
    """Rows max(0, u B), rounded to multiples of 2⁻¹⁶ and clipped at 16.

    In float64 the product is free of rounding (its terms are multiples of 2⁻⁴⁰, its
    sums stay below 2¹³ for d up to a million), so a row has the same bits in any batch,
    in any order, on any device: what was added can be removed. For unit rows, u B is
    standard normal, and the clip is never met by chance.

    Args:
        unit: From :func:`directions`.
        kernel: From :func:`random_kernel`.

    Source: ReLU random features as in Zhuang et al. 2022, ACIL, arXiv 2205.14922.
        Differs: unit rows and the grid.
    """
    product = jnp.matmul(unit, kernel, precision="highest")
    rows = jnp.round(jnp.clip(product, 0, LARGEST_ROW) / ROW_STEP) * ROW_STEP
    return rows.astype(kernel.dtype)
