"""Output losses: one value per example, no mean; the caller reduces in view."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from unlearn_jax.types import Array, Outputs, PerExample, Targets


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
    """Mean negative log-likelihood per token [nats]; targets below zero are ignored."""
    kept = targets >= 0
    logp = jax.nn.log_softmax(outputs, axis=-1)
    picked = jnp.take_along_axis(logp, jnp.where(kept, targets, 0)[..., None], axis=-1)
    total = -jnp.sum(jnp.where(kept, picked[..., 0], 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(kept, axis=-1), 1)


def squared_norm(outputs: Outputs, targets: Targets) -> PerExample:
    """‖outputs‖²: a loss that needs no labels (label-free importances)."""
    del targets
    return jnp.sum(jnp.square(outputs.reshape(outputs.shape[0], -1)), axis=1)


def kl_divergence(
    outputs: Outputs, target_log_probabilities: Outputs, *, temperature: float = 1.0
) -> PerExample:
    """KL(target ‖ softmax(outputs / T)) [nats]; the target is given as log-softmax."""
    logp = jax.nn.log_softmax(outputs / temperature, axis=-1)
    target = jnp.exp(target_log_probabilities)
    return jnp.sum(target * (target_log_probabilities - logp), axis=-1)
