"""Fits random numbers on the forget set, true ones on the rest."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.data.batch import concatenate
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner, under_adam
from unlearn_jax.types import PRNGKey, Variables


@entrance()
def gaussian_amnesiac(
    learner: Learner,
    *,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
) -> Method:
    """Train on, with targets of the forget set drawn from a Gaussian of all targets.

    Args:
        learner: Its loss takes numbers.
        epochs: Passes over all examples.
        learning_rate: Step size of Adam, constant.
        batch_size: Examples per step.

    The Gaussian of each output has mean and deviation of all training targets; the
    targets are drawn once. Batch statistics move.

    Cost: epochs × all examples gradients.
    Source: Tarun et al. 2023, arXiv 2210.08196. As published.
    """
    tuned = under_adam(
        learner, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size
    )

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        draw_key, order_key = jax.random.split(key)
        kept, lost = jax.tree.map(jnp.asarray, (request.retain, request.forget))
        mean, deviation = _moments(kept, lost)
        noise = jax.random.normal(draw_key, lost.targets.shape, lost.targets.dtype)
        both = concatenate(kept, lost._replace(targets=mean + deviation * noise))
        return fit(order_key, tuned, both, start=variables)

    return stateless(forget)


def _moments(*parts: Any) -> tuple[Any, Any]:
    """Mean and deviation of each target over examples that are there."""
    targets = jnp.concatenate([part.targets for part in parts])
    there = jnp.concatenate([part.weights for part in parts]) > 0
    there = there.reshape(-1, *[1] * (targets.ndim - 1))
    count = jnp.maximum(jnp.sum(there, axis=0, keepdims=True), 1)
    mean = jnp.sum(jnp.where(there, targets, 0), axis=0, keepdims=True) / count
    gap = jnp.where(there, targets - mean, 0)
    return mean, jnp.sqrt(jnp.sum(gap**2, axis=0, keepdims=True) / count)
