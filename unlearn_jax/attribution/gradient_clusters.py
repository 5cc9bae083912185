"""What examples are clustered by: sketched gradients of their losses, or embeddings."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_jax.curvature.sketches import sketch
from unlearn_jax.data.accumulate import collect, present
from unlearn_jax.models.model import Model
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import checked_batch, entered
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables


@automatic
def gradient_features(
    key: PRNGKey,
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    width: int = 256,
    batch_size: int = 64,
) -> Float[Array, "n r"]:
    """Sketches of each example's gradient; inner products are kept without bias.

    Their principal directions (``data.hard_sets.clustered_set``) are about those of
    the gradients: examples that pull the parameters the same way lie together.

    Args:
        key: Draws the sketch.
        objective: Loss bound to frozen batch statistics; ``l2`` is left out, it is the
            same for every example.
        params: Where gradients are taken.
        data: Examples; those of weight zero are not seen and get zeros.
        width: Numbers kept for each example; relative errors of inner products fall
            as 1/√width.
        batch_size: Examples whose layer inputs and slopes are held at once.

    Raises:
        ValueError: a width below 1, or what is not of the form that ``train.door``
            tells.

    Cost: one gradient per example and its sketch. Memory: examples × width, and the
        factors of one batch.
    """
    if width < 1:
        raise ValueError(f"width is {width}, expected at least 1: raise it")

    params, data = entered("gradient_features", objective, params, data)

    def part(batch: Batch, at: Params, key: PRNGKey) -> Array:
        tape, gradients = loss_gradients(objective, at, present(batch))
        rows = sketch(key, tape, gradients, width=width)
        return jnp.where((batch.weights != 0)[:, None], rows, 0)

    data = jax.tree.map(jnp.asarray, data)
    return collect(part, data, params, key, batch_size=batch_size)


def embeddings(
    model: Model, variables: Variables, data: Batch, *, batch_size: int = 256
) -> Float[Array, "n f"]:
    """The input of the last linear map for each example, in one row each.

    Args:
        model: As trained.
        variables: Of the model; evaluation mode.
        data: Examples; those of weight zero are not seen and get zeros.
        batch_size: Examples per forward pass.

    Raises:
        ValueError: no example, or lengths that differ.

    Cost: one forward pass per example.
    """
    data = checked_batch("embeddings", data)

    def part(batch: Batch, at: Any) -> Array:
        found = model.features(at, present(batch).inputs)
        rows = found.reshape(len(batch.weights), -1)
        return jnp.where((batch.weights != 0)[:, None], rows, 0)

    data = jax.tree.map(jnp.asarray, data)
    return collect(part, data, variables, batch_size=batch_size)
