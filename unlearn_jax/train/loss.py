"""Output losses: one value per example, no mean; the caller reduces in view."""

import functools
from collections.abc import Mapping
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from unlearn_jax.types import Array, OutputLoss, Outputs, PerExample, Targets


def cross_entropy(
    outputs: Outputs, targets: Int[Array | np.ndarray, " n"]
) -> PerExample:
    """Negative log-likelihood of the true class [nats], from logits (n, k)."""
    picked = jnp.take_along_axis(outputs, targets[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(outputs, axis=1) - picked


def squared_error(outputs: Outputs, targets: Targets) -> PerExample:
    """Half the squared distance between outputs and targets, both (n, k)."""
    return 0.5 * jnp.sum(jnp.square(outputs - targets), axis=-1)


def sequence_nll(
    outputs: Outputs, targets: Int[Array | np.ndarray, "n t"]
) -> PerExample:
    """Mean negative log-likelihood per token [nats]; targets below zero are ignored.

    A short answer weighs as much as a long one. Methods that were published with the
    sum take :func:`sequence_nll_sum`: their temperatures are of the other size.
    """
    total = sequence_nll_sum(outputs, targets)
    return total / jnp.maximum(jnp.sum(targets >= 0, axis=-1), 1)


def sequence_nll_sum(
    outputs: Outputs, targets: Int[Array | np.ndarray, "n t"]
) -> PerExample:
    """Negative log-likelihood of a sequence [nats]; targets below zero are ignored."""
    kept = targets >= 0
    logp = jax.nn.log_softmax(outputs, axis=-1)
    picked = jnp.take_along_axis(logp, jnp.where(kept, targets, 0)[..., None], axis=-1)
    return -jnp.sum(jnp.where(kept, picked[..., 0], 0.0), axis=-1)


SEQUENCE_LOSSES = (sequence_nll, sequence_nll_sum)
"""Of the tokens of an example that are not ignored: their mean, and their sum."""


def squared_norm(outputs: Outputs, targets: Targets) -> PerExample:
    """‖outputs‖²: a loss that needs no labels (label-free importances)."""
    del targets
    return jnp.sum(jnp.square(outputs.reshape(outputs.shape[0], -1)), axis=1)


def kl_divergence(
    outputs: Outputs, target_log_probabilities: Outputs, *, temperature: float = 1.0
) -> PerExample:
    """KL(target ‖ softmax(outputs / T)) [nats]; the target is given as log-softmax.

    A class of target probability 0 adds nothing (0 log 0 = 0), whatever its output.
    """
    logp = jax.nn.log_softmax(outputs / temperature, axis=-1)
    target = jnp.exp(target_log_probabilities)
    ruled_out = target == 0  # masked before the product, for the derivatives' sake too
    gap = jnp.where(ruled_out, 0, target_log_probabilities) - jnp.where(
        ruled_out, 0, logp
    )
    return jnp.sum(jnp.where(ruled_out, 0, target) * gap, axis=-1)


TargetKind: TypeAlias = Literal[
    "classes", "tokens", "numbers", "log_probabilities", "anything"
]
TARGETS: Mapping[OutputLoss, TargetKind] = {
    cross_entropy: "classes",
    sequence_nll: "tokens",
    sequence_nll_sum: "tokens",
    squared_error: "numbers",
    kl_divergence: "log_probabilities",
    squared_norm: "anything",
}
"""Loss -> the targets that it takes, for outputs (n, k) or (n, t, k).

"classes": integers (n,) from 0 to k - 1; "tokens": integers (n, t) below k, those
below zero ignored; "numbers": shaped like the outputs; "log_probabilities": the same,
and -inf is one of them; "anything": not read, or of a loss that is not known here.
"""


def target_kind(loss: OutputLoss) -> TargetKind:
    """Which targets a loss takes; a partial application takes those of its function."""
    return TARGETS.get(_function(loss), "anything")


def is_known(loss: OutputLoss) -> bool:
    """Whether a loss is one of this file; all of them are convex in the outputs."""
    return _function(loss) in TARGETS


def _function(loss: OutputLoss) -> OutputLoss:
    while isinstance(loss, functools.partial):
        loss = loss.func
    return loss
