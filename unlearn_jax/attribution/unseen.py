"""The loss that labels would have if they had not been learned, without retraining.

For a label that retained examples have, it is as many times the original's own loss as
examples that a model never saw have there of what one that saw them gives them. A
forget set of hard examples is held to more than one of easy ones, and it counts less
which examples happened to be left out: under nets trained without them, random tenths
of digits have losses between 0.03 and 0.20; the loss on what is left out in general
misses these by 0.06 (root of the mean square), this by 0.04. A label that nobody
retains is one that no net puts on what it knows: there it is what the original gives to
the label on examples of others, −log p on average. (Chance, log k, would be far less: a
net without any example of a class is pushed off it by all the others.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from unlearn_jax.curvature.label_slopes import are_labels
from unlearn_jax.data.accumulate import accumulate, present
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params, Scalar


class Unseen(NamedTuple):
    """Value: losses of what has not been learned.

    Attributes:
        held_out: Mean loss on examples that were never trained on.
        learned: Mean loss of the original on the same ones or their like, learned.
        foreign: For each label the original's mean −log p of it on training examples
            of another one; empty where targets are no labels.
    """

    held_out: Scalar
    learned: Scalar
    foreign: Array


def unseen_loss(
    unseen: Unseen, forget: Batch, retain: Batch, own: Array
) -> tuple[Scalar, Array]:
    """The mean loss at which a forget set counts as never learned.

    Args:
        unseen: Of the original.
        forget: The forget set.
        retain: What stays; its targets and weights are read.
        own: (n,) losses of the forget set before the removal.

    Returns:
        The loss, and whether the forget set has a label that nobody retains.
    """
    weights, targets = forget.weights, forget.targets
    # Where nothing is left of a loss there is no ratio.
    some = unseen.learned > 0
    ratio = unseen.held_out / jnp.where(some, unseen.learned, 1)
    goals = jnp.where(some, ratio * own, unseen.held_out)
    lost = unretained(unseen, forget, retain)
    if unseen.foreign.size:
        goals = jnp.where(lost, unseen.foreign[targets], goals)
    mass = jnp.sum(weights)
    alone = jnp.any(lost & (weights > 0))
    return jnp.sum(weights * goals) / jnp.where(mass > 0, mass, 1), alone


def unretained(unseen: Unseen, forget: Batch, retain: Batch) -> Bool[Array, " n"]:
    """Which examples of a forget set have a label that nobody retains."""
    if not unseen.foreign.size:
        return jnp.zeros(forget.weights.shape, bool)
    kept = jnp.zeros_like(unseen.foreign)
    kept = kept.at[retain.targets].add(retain.weights.astype(kept.dtype))
    return kept[forget.targets] <= 0


def foreign_losses(objective: Objective, params: Params, data: Batch) -> Array:
    """(k,) mean −log p(y) over examples of another label; (0,) without labels."""
    data = jax.tree.map(jnp.asarray, data)
    outputs = jax.eval_shape(objective.predict, params, data.inputs)
    if len(outputs.shape) != 2 or not are_labels(data.targets, outputs):
        return jnp.zeros((0,), outputs.dtype)
    labels = jnp.arange(outputs.shape[1])

    def part(batch: Batch, at: Params) -> tuple[Array, Array]:
        batch = present(batch)
        logp = jax.nn.log_softmax(objective.predict(at, batch.inputs), axis=-1)
        other = batch.targets[:, None] != labels[None]
        weights = (batch.weights[:, None] * other).astype(logp.dtype)
        return -jnp.sum(weights * logp, axis=0), jnp.sum(weights, axis=0)

    total, mass = accumulate(part, data, params)
    return total / jnp.where(mass > 0, mass, 1)
