"""What of a model's outputs is explained: one number per example."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.types import Array


def margin(outputs: Any, targets: Any) -> Array:
    """Correct logit minus log-sum-exp of the others: the log-odds of the label.

    Its gradient g gives that of the cross-entropy, −(1 − p) g.
    """
    k = outputs.shape[-1]
    correct = jnp.arange(k)[None] == targets[:, None]
    chosen = jnp.sum(jnp.where(correct, outputs, 0), axis=-1)
    others = jnp.where(correct, -jnp.inf, outputs)
    return chosen - jax.nn.logsumexp(others, axis=-1)


def correct_logit(outputs: Any, targets: Any) -> Array:
    """The output of the label."""
    return jnp.take_along_axis(outputs, targets[:, None], axis=-1)[:, 0]


def component(index: int) -> Callable[[Any, Any], Array]:
    """Output number ``index``, whatever the label; for regression and for logits."""

    def output(outputs: Any, targets: Any) -> Array:
        del targets
        return outputs[:, index]

    return output


OUTPUT_FUNCTIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "margin": margin,
    "loss": cross_entropy,
    "logit": correct_logit,
}
"""Name -> function, for classification."""
