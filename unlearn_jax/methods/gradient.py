"""The gradient of a risk over a whole data set, in batches."""

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.data.accumulate import accumulate, present
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch, Params


def risk_gradient(
    objective: Objective, params: Params, data: Batch, *, batch_size: int = 256
) -> Params:
    """∇ of ``objective.risk``: Σ wᵢ ∇ℓᵢ / Σ wᵢ + l2 · params.

    Args:
        objective: Loss bound to frozen batch statistics.
        params: Where the gradient is taken.
        data: Examples with weights; of weight zero they are never seen.
        batch_size: Examples whose activations are held at once.

    Returns:
        Tree like ``params``, in its dtypes; without any weight, the l2 term alone.

    Cost: one gradient per example.
    """

    def part(batch: Batch, at: Params) -> Params:
        return jax.grad(objective.total)(at, present(batch))

    total = accumulate(part, data, params, batch_size=batch_size)
    mass = jnp.sum(data.weights)
    mean = tree.scale(1.0 / jnp.where(mass > 0, mass, 1), total)
    return tree.axpy(objective.l2, params, mean) if objective.l2 else mean
