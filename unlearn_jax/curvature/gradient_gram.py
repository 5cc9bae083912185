"""Inner products of the gradients of all pairs of examples of one set."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.curvature.contractions import formed_rows, gram, pairs_pay
from unlearn_jax.curvature.per_example import (
    Gradient,
    Gradients,
    Outer,
    Whole,
    block_size,
    loss_gradients,
)
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.data.accumulate import collect, present
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import entered
from unlearn_jax.train.objective import Objective
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Array, Batch, Params


@automatic
def gradient_gram(
    objective: Objective, params: Params, data: Batch, *, batch_size: int | None = None
) -> Float[Array, "n n"]:
    """Re ⟨∇ℓₙ, ∇ℓₘ⟩ for all pairs of examples, weights and ``l2`` left out.

    The model sees few examples at a time, so that on CPU they stay in the cache until
    their gradients are made. A layer with several positions has its gradients formed
    then and kept, where that is less work than pairs of positions; others keep their
    factors.

    Args:
        objective: Loss bound to frozen batch statistics.
        params: Where the gradients are taken.
        data: The examples; rows and columns of those of weight zero are zero.
        batch_size: Examples whose activations are held at once; None takes what the
            cache or, elsewhere, a gigabyte holds.

    Raises:
        ValueError: what is not of the form that ``train.door`` tells.

    Cost: one gradient of each example and 2 n² numbers of a formed layer, or as
        :func:`unlearn_jax.curvature.contractions.gram` tells of the others. Memory: n
        gradients of the layers that are formed, n × factors of the others.
    """
    params, data = entered("gradient_gram", objective, params, data, alone=True)
    n = leading_axis(data)
    if batch_size is None:
        taped = tape(objective.predict, params, data.inputs)
        batch_size = block_size(taped, n)

    def kept(batch: Batch, at: Params) -> Gradients:
        _, gradients = loss_gradients(objective, at, batch)

        def one(gradient: Gradient) -> Any:
            if not isinstance(gradient, Outer) or gradient.inputs.shape[2] == 1:
                return gradient
            if pairs_pay(gradient, gradient, n, n):
                return gradient
            return Whole(formed_rows(gradient))

        return tuple(map(one, gradients))

    rows = collect(kept, present(data), params, batch_size=batch_size)
    there = jnp.asarray(data.weights) != 0
    return jnp.where(there[:, None] & there[None], gram(rows, rows), 0)
