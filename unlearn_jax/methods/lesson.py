"""What a net says of examples whose label it does without: a lesson for a descent.

Where nobody retains a label, a retrained net gives its examples to other labels, and
nothing in their loss says to which. The odds among those others are in what a net says
once the label has lost its lead, and in what a net says that never had it.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from unlearn_jax.attribution.unseen import Unseen
from unlearn_jax.data.batch import concatenate
from unlearn_jax.methods.distil import lesson
from unlearn_jax.methods.method import Request
from unlearn_jax.train.loss import kl_divergence
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, OutputLoss, Variables


def without_label(said: Any, labels: Any, losses: Any) -> Array:
    """Log-probabilities with one label put at a loss, the odds of the others kept.

    Args:
        said: (n, k) log-probabilities.
        labels: (n,) which label of each example.
        losses: (n,) its -log p afterwards; positive.

    Returns:
        (n, k) log-probabilities; p(label) = exp(-loss).
    """
    own = jnp.arange(said.shape[1])[None] == labels[:, None]
    others = jax.nn.log_softmax(jnp.where(own, -jnp.inf, said), axis=1)
    left = jnp.log1p(-jnp.exp(-losses))
    return jnp.where(own, -losses[:, None], others + left[:, None])


def with_lesson(
    learner: Learner,
    teachers: Sequence[Variables],
    unseen: Unseen,
    request: Request,
    lost: Bool[Array, " n"],
) -> tuple[Learner, Batch]:
    """The retain set with its labels, and lost examples with what a teacher says.

    Args:
        learner: Of labels.
        teachers: Say what lost examples are, but for their label; the mean of their
            probabilities is taught.
        unseen: Of the original: its ``foreign`` losses are the label's.
        request: Forget and retain set.
        lost: Of the forget set, which examples take part.

    Returns:
        A learner whose targets are (label, log-probabilities, whether these count),
        and its examples, retained ones first.
    """
    forget, retain = request
    losses = unseen.foreign[forget.targets]
    each = [
        without_label(
            lesson(learner, teacher, forget.inputs, temperature=1.0),
            *(forget.targets, losses),
        )
        for teacher in teachers
    ]
    told = jax.nn.logsumexp(jnp.stack(each), axis=0) - math.log(len(each))
    count = retain.weights.shape[0]
    first = jnp.zeros((count, told.shape[1]), told.dtype), jnp.zeros(count, bool)
    weights = jnp.where(lost, forget.weights, 0)
    data = concatenate(
        retain._replace(targets=(retain.targets, *first)),
        Batch(forget.inputs, (forget.targets, told, lost), weights),
    )
    return learner._replace(loss=_taught(learner.loss)), data


@functools.lru_cache(maxsize=16)
def _taught(loss: OutputLoss) -> OutputLoss:
    """One function for each loss, since compiled steps are remembered by it."""

    def value(outputs: Any, targets: Any) -> Any:
        labels, told, counts = targets
        return jnp.where(counts, kl_divergence(outputs, told), loss(outputs, labels))

    return value
