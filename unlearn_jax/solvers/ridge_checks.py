"""What every form of ridge regression refuses before anything is computed."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike

from unlearn_jax.types import Batch


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
