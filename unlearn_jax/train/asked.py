"""What outputs say about the labels asked for; a class is a sequence of one token."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from unlearn_jax.types import Array


class Asked(NamedTuple):
    """Value: outputs beside what should have followed.

    Attributes:
        outputs: (n, t, k) logits; t is 1 for classes.
        tokens: (n, t) labels, 0 where none is asked for.
        kept: (n, t) whether one is asked for.
    """

    outputs: Float[Array, "n t k"]
    tokens: Int[Array, "n t"]
    kept: Bool[Array, "n t"]

    @property
    def log_likelihoods(self) -> Any:
        """(n, t) log-probability of each label [nats], 0 where none is asked for."""
        logp = jax.nn.log_softmax(self.outputs, axis=-1)
        picked = jnp.take_along_axis(logp, self.tokens[..., None], axis=-1)[..., 0]
        return jnp.where(self.kept, picked, 0)

    @property
    def length(self) -> Any:
        """(n,) labels asked for, at least 1 so that it divides."""
        return jnp.maximum(jnp.sum(self.kept, axis=-1), 1)

    def mean(self, values: Any) -> Any:
        """(n,) mean over what is asked for of (n, t) values."""
        return jnp.sum(jnp.where(self.kept, values, 0), axis=-1) / self.length

    @property
    def nll(self) -> Any:
        """(n,) negative log-likelihood of the whole answer [nats], a sum."""
        return -jnp.sum(self.log_likelihoods, axis=-1)


def asked(outputs: Any, targets: Any) -> Asked:
    """Outputs (n, k) with classes (n,), or (n, t, k) with tokens (n, t).

    Raises:
        ValueError: other shapes, such as those of regression.
    """
    targets = jnp.asarray(targets)
    if outputs.ndim != targets.ndim + 1 or outputs.shape[:-1] != targets.shape:
        raise ValueError(
            f"got outputs {outputs.shape} and targets {targets.shape}, expected (n, k) "
            "and classes (n,), or (n, t, k) and tokens (n, t): regression has no labels"
        )
    if targets.ndim == 1:
        outputs, targets = outputs[:, None], targets[:, None]
    kept = targets >= 0
    return Asked(outputs, jnp.where(kept, targets, 0), kept)
