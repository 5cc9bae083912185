"""What to train: a key and weights for every member."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.types import Array, Batch


class Plan(NamedTuple):
    """Value: what to train.

    Attributes:
        keys: (m, 2) uint32, data of random keys.
        weights: (m, n) weights of the training examples, uint8 or floating.
    """

    keys: Any
    weights: Any


def make_plan(seed: int, weights: Any, *, first: int = 0) -> Plan:
    """A plan whose member i draws from ``seed`` and ``first + i`` alone.

    Args:
        seed: Of the ensemble.
        weights: (m, n) weights of the members.
        first: Number of the first member's key.
    """
    numbers = jnp.arange(first, first + len(weights))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)
    return Plan(np.asarray(jax.random.key_data(keys)), weights)


def checked_plan(plan: Plan, data: Batch) -> Plan:
    """The plan with plain key data; refuses what does not fit."""
    keys = plan.keys
    if hasattr(keys, "dtype") and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        keys = jax.random.key_data(keys)
    keys, weights = np.asarray(keys), plan.weights
    n = len(data.targets)
    if not hasattr(weights, "shape"):
        weights = np.asarray(weights)
    if keys.dtype != np.uint32 or keys.ndim != 2 or weights.shape != (len(keys), n):
        raise ValueError(
            f"got keys {keys.dtype} of shape {keys.shape} and weights of shape "
            f"{tuple(weights.shape)}; expected key data, uint32 of shape (m, 2), and "
            f"a weight for each member and each of the {n} examples: see make_plan"
        )
    if len(keys) < 1:
        raise ValueError("an ensemble needs at least one member; the plan has none")
    wrap_keys(keys[:1])
    return Plan(keys, weights)


def wrap_keys(keys: Any) -> Array:
    """Typed keys from their uint32 data."""
    return jax.random.wrap_key_data(jnp.asarray(keys, jnp.uint32))
