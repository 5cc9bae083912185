"""Diagonals of the empirical Fisher, and its batch-mean relative."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.data.accumulate import accumulate
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params


def empirical_fisher_diagonal(
    objective: Objective, params: Params, data: Batch, *, batch_size: int = 128
) -> Params:
    """Weighted mean over examples of squared per-example gradients.

    F[i] = Σₙ wₙ (∂ℓₙ/∂θᵢ)² / Σₙ wₙ, labels as given, ``l2`` left out.

    Args:
        objective: Loss bound to frozen batch statistics.
        params: Where the gradients are taken.
        data: Examples with weights; zero weight leaves an example out.
        batch_size: Examples whose gradients are held at once.

    Returns:
        Tree like ``params``, in its dtypes; zero when no example has weight.

    Cost: one gradient per example; memory batch_size × parameters.
    Source: the diagonal of the empirical Fisher as in Kunstner et al. 2019,
        arXiv 1905.12558, eq. 3. As published.
    """

    def squares(batch: Batch, at: Params) -> Params:
        batch = _present(batch)

        def loss(p: Params, x: Array, y: Array) -> Array:
            return objective.loss(objective.predict(p, x[None]), y[None])[0]

        slopes = jax.vmap(jax.grad(loss), (None, 0, 0))(at, batch.inputs, batch.targets)
        return jax.tree.map(
            lambda g: jnp.tensordot(
                batch.weights.astype(g.dtype), jnp.square(g), axes=1
            ),
            slopes,
        )

    total = accumulate(squares, data, params, batch_size=batch_size)
    mass = jnp.sum(data.weights)
    return tree.scale(1.0 / jnp.where(mass > 0, mass, 1), total)


def batch_gradient_moment(
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    batch_size: int,
    moment: Callable[[Any], Any] = jnp.square,
) -> Params:
    """Mean over batches of ``moment`` of the gradient of the batch's mean loss.

    Not a Fisher diagonal: averaging b examples before squaring shrinks the part of the
    square that comes from their scatter by about 1/b. Values from different batch sizes
    are different quantities.

    Args:
        objective: Loss bound to frozen batch statistics.
        params: Where the gradients are taken.
        data: Examples with weights, in the order given; a batch without weight is left
            out of the mean, a partly filled one counts fully.
        batch_size: Examples per gradient (part of the definition, not of the memory).
        moment: ``jnp.square`` or ``jnp.abs``.

    Returns:
        Tree like ``params``.

    Cost: one gradient per example.
    Source: the importance of Foster et al. 2024, arXiv 2308.07707, as their released
        code computes it.
    """
    bare = objective._replace(l2=0.0)

    def one_batch(batch: Batch, at: Params) -> tuple[Params, Array]:
        slope = jax.grad(bare.risk)(at, _present(batch))
        counts = (jnp.sum(batch.weights) > 0).astype(jnp.int32)
        return jax.tree.map(moment, slope), counts

    total, batches = accumulate(one_batch, data, params, batch_size=batch_size)
    return tree.scale(1.0 / jnp.maximum(batches, 1), total)


def _present(batch: Batch) -> Batch:
    """Zeros in place of the examples of weight zero: what they hold is never seen.

    Weights alone would not do: the derivative of 0 times NaN is NaN.
    """

    def kept(leaf: Any) -> Array:
        mask = (batch.weights > 0).reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(mask, leaf, jnp.zeros_like(leaf))

    return Batch(kept(batch.inputs), kept(batch.targets), batch.weights)
