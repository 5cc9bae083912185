"""Gaussian shapes of classes in feature space, as SCAR measures distance by them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.methods.centres import class_means, features_of, nearest_other, unit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Variables
from unlearn_kernels.precision import EXACT


class Shapes(NamedTuple):
    """Value: one Gaussian for each class.

    Attributes:
        means: (k, f) of the transformed features.
        inverses: (k, f, f) pseudo-inverses of their shrunk correlation matrices.
        there: (k,) whether the class has examples.
    """

    means: Array
    inverses: Array
    there: Array


def transformed(features: Array, power: float) -> Array:
    """Features to a power, with slope zero where they are zero; NaN below zero."""
    if power == 1:
        return features
    none = features == 0
    return jnp.where(none, 0, jnp.where(none, 1, features) ** power)


def class_shapes(
    features: Array, weights: Array, *, shrinkage: float, rounds: int = 2
) -> Shapes:
    """Mean and inverse correlation of each class.

    With S the covariance of a class, a round makes it S + γ V₁ I + γ V₂ (1 − I), V₁ the
    mean of its diagonal and V₂ of what is not zero beside it.

    Args:
        features: (n, f), transformed.
        weights: (n, k), each example's under its class.
        shrinkage: γ (no unit).
        rounds: How often.

    Cost: n f² k products and k eigenproblems of size f.
    """
    means, there = class_means(features, weights)

    def shape(mean: Array, own: Array) -> Array:
        apart = features - mean[None]
        scaled = apart * own.astype(features.dtype)[:, None]
        spare = jnp.maximum(jnp.sum(own) - 1, 1).astype(features.dtype)
        covariance = jnp.matmul(scaled.T, apart, precision=EXACT) / spare
        eye = jnp.eye(covariance.shape[0], dtype=covariance.dtype)
        for _ in range(rounds):
            beside = covariance * (1 - eye)
            filled = jnp.maximum(jnp.sum(beside != 0), 1)
            within = jnp.mean(jnp.diagonal(covariance))
            across = jnp.sum(beside) / filled
            covariance = covariance + shrinkage * (within * eye + across * (1 - eye))
        spread = jnp.sqrt(jnp.maximum(jnp.diagonal(covariance), 0))
        scale = 1 / jnp.where(spread > 0, spread, 1)
        correlation = covariance * scale[:, None] * scale[None]
        return jnp.linalg.pinv(correlation, hermitian=True)

    return Shapes(
        means, jax.lax.map(lambda pair: shape(*pair), (means, weights.T)), there
    )


def shape_distances(features: Array, shapes: Shapes) -> Array:
    """(n, k) quadratic forms of unit features less unit means, without a root."""
    apart = unit(features)[:, None] - unit(shapes.means)[None]
    seen = jnp.einsum("nkf,kfg->nkg", apart, shapes.inverses, precision=EXACT)
    return jnp.einsum("nkg,nkg->nk", seen, apart, precision=EXACT)


class Sent(NamedTuple):
    """Value: examples to forget and the class that each is sent to.

    Attributes:
        inputs: Of the examples.
        labels: (n,) their classes.
        chosen: (n,) where they are sent.
        weights: (n,); zero where there is nowhere to go.
        pull: (n,) weights times what the class counts.
    """

    inputs: Any
    labels: Array
    chosen: Array
    weights: Array
    pull: Array


def send(
    learner: Learner,
    variables: Variables,
    lost: Batch,
    shapes: Shapes,
    stays: Array,
    *,
    power: float,
) -> Sent:
    """Each example with the nearest class that stays and is not its own."""
    lost = jax.tree.map(jnp.asarray, lost)
    features = transformed(features_of(learner, variables, lost), power)
    there = shapes.there & stays
    far = shape_distances(features, shapes)
    chosen = nearest_other(far, lost.targets, there)
    other = there[chosen] & (chosen != lost.targets)
    weights = jnp.where(other, lost.weights, 0)
    return Sent(lost.inputs, lost.targets, chosen, weights, weights)
