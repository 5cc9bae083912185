"""Random keys of both kinds, typed and raw, and what they seed outside of JAX."""

from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_key(value: Any) -> bool:
    """Whether this is one key: of ``jax.random.key``, or raw of ``PRNGKey``."""
    return leading_keys(value) == ()


def leading_keys(value: Any) -> tuple[int, ...] | None:
    """The shape of an array of keys, typed or raw; None where it holds no keys."""
    dtype, shape = getattr(value, "dtype", None), np.shape(value)
    if dtype is None:
        return None
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return shape
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
    raw = dtype == np.uint32 and shape[len(shape) - len(words) :] == words
    return shape[: len(shape) - len(words)] if raw else None


def seed_words(key_or_seed: Any) -> list[int]:
    """Non-negative integers that seed a NumPy generator.

    Args:
        key_or_seed: A random key, typed or raw (both of one seed give the same words),
            or a non-negative integer.

    Raises:
        ValueError: neither of them.
    """
    if is_key(key_or_seed):
        data = jax.random.key_data(key_or_seed)
        return [int(word) for word in np.asarray(data).ravel()]
    seed: Any = key_or_seed
    if hasattr(seed, "dtype") and np.ndim(seed) == 0:
        seed = np.asarray(seed).item()
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        shape = np.shape(key_or_seed)
        what = f"an array of shape {shape}" if shape else repr(key_or_seed)
        raise ValueError(
            f"got {what} as seed, expected a non-negative integer or a single key: "
            "take one such as jax.random.key(0)"
        )
    return [int(seed)]
