"""Classes in feature space: their means, who is nearest, and when to stop moving."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.attribution.trace import left_out
from unlearn_jax.data.accumulate import collect, present
from unlearn_jax.methods.method import Request
from unlearn_jax.methods.potion import label_agreement
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, PRNGKey, Scalar, Variables
from unlearn_kernels.precision import EXACT

CLASS_GOAL = 0.01
"""Accuracy on a class that nothing retained is of, below which one stops."""


def features_of(learner: Learner, variables: Variables, data: Batch) -> Array:
    """(n, f) inputs of the last linear map, in evaluation mode; absent rows unseen."""

    def look(inputs: Any, at: Variables) -> Array:
        return learner.model.features(at, inputs)

    return collect(look, present(data).inputs, variables)


def class_weights(data: Batch, classes: int) -> Array:
    """(n, k) weight of each example under its own class, 0 elsewhere."""
    labels = jax.nn.one_hot(jnp.asarray(data.targets), classes, dtype=jnp.float32)
    return labels * jnp.asarray(data.weights)[:, None]


def class_means(features: Array, weights: Array) -> tuple[Array, Array]:
    """Mean features (k, f) of each class, and which classes there are, (k,).

    Args:
        features: (n, f).
        weights: (n, k), of :func:`class_weights`.
    """
    total = jnp.matmul(weights.astype(features.dtype).T, features, precision=EXACT)
    size = jnp.sum(weights, axis=0)
    there = size > 0
    return total / jnp.where(there, size, 1).astype(features.dtype)[:, None], there


def nearest_other(distances: Array, labels: Array, there: Array) -> Array:
    """(n,) the class of least distance that is there and is not the example's own.

    Classes go by their label. Released code of DUCK and SCAR numbers those that are
    left from zero and compares these numbers with labels, so that it takes the second
    nearest for the class after a removed one.

    Args:
        distances: (n, k).
        labels: (n,) of the examples.
        there: (k,) classes that may be chosen.
    """
    own = jax.nn.one_hot(labels, distances.shape[1], dtype=bool)
    return jnp.argmin(jnp.where(own | ~there[None], jnp.inf, distances), axis=1)


def unit(rows: Array) -> Array:
    """Rows of length one; a row of zeros stays, with slope zero."""
    squares = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
    none = squares == 0
    return jnp.where(none, 0, rows / jnp.sqrt(jnp.where(none, 1, squares)))


def gone_classes(request: Request, classes: int) -> Array:
    """(k,) classes of the forget set that nothing retained is of."""
    lost, kept = (jnp.sum(class_weights(part, classes), axis=0) for part in request)
    return (lost > 0) & (kept == 0)


def unseen_accuracy(key: PRNGKey, learner: Learner, train: Batch) -> Scalar:
    """Share of right answers on a tenth of the examples, of a model without them.

    Cost: a training run on nine tenths.
    """
    model, out = left_out(key, learner, train)
    return label_agreement(learner, model, out)
