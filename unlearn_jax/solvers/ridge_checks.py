"""What every form of ridge regression refuses before anything is computed."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike

from unlearn_jax.types import Array, Batch, Scalar


def check_start(f: int, k: int, l2: float, dtype: DTypeLike) -> None:
    """Refuse impossible sizes of a ridge regression.

    Raises:
        ValueError: see ``ridge_gram.gram_start``.
    """
    if not (l2 > 0 and math.isfinite(l2)):
        raise ValueError(f"l2 is {l2}; the solution is unique for a positive one only")
    if f < 1 or k < 0:
        raise ValueError(f"expected features and outputs, got {f} and {k}")
    if jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
        raise ValueError(
            f"{jnp.dtype(dtype)} needs 64-bit mode: jax.config.update("
            f"'jax_enable_x64', True), or take float32"
        )


def check_rows(features: int, outputs: int, dtype: Any, rows: Batch) -> None:
    """Refuse rows that do not fit a state.

    Raises:
        ValueError: no rows, or shapes or dtypes that do not fit; says what was given.
    """
    inputs, targets, weights = rows
    n = inputs.shape[0]
    expected = ((n, features), (n, outputs), (n,))
    given = (inputs.shape, targets.shape, weights.shape)
    if given != expected or n < 1:
        raise ValueError(
            f"expected rows (n, {features}), targets (n, {outputs}) and weights (n,) "
            f"with n at least 1, got {given}"
        )
    kinds = {str(jnp.asarray(leaf).dtype) for leaf in rows}
    if kinds != {str(dtype)}:
        raise ValueError(
            f"the state is {dtype}, the rows are {', '.join(sorted(kinds))}; convert "
            f"them first (targets as one column per class)"
        )


def too_large(inputs: Array, targets: Array, l2: Scalar) -> Array:
    """Whether a row could not be taken out of sums again, as a scalar boolean.

    Sums of 2 · 53 digits (48 in float32) lose 2⁻¹⁰⁴ (2⁻⁴⁶) of the largest number that
    was ever in them. With targets up to 2⁴⁰ (2¹⁶), numbers down to 2⁻⁴⁰ (2⁻¹⁶) keep 24
    (14) digits afterwards. A row of ‖x‖² up to 2⁴⁸ l2 (2²⁰ l2) leaves a matrix whose
    condition stays below 1 / ε, so that the solves can bear it whatever else goes.

    Args:
        inputs: √w x of the rows, (n, f); absent ones are 0.
        targets: √w y, (n, k).
        l2: The ridge.
    """
    wide = jnp.dtype(inputs.dtype) == jnp.float64
    most, longest = (2.0**40, 2.0**48) if wide else (2.0**16, 2.0**20)
    rows = jnp.sum(jnp.square(inputs), axis=1)
    return jnp.any(jnp.abs(targets) > most) | jnp.any(rows > longest * l2)
