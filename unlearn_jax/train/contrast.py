"""Training a contrastive pair: each image finds its caption among those of its step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.data.values import check_values
from unlearn_jax.loop import tracing
from unlearn_jax.models.contrastive import Contrastive
from unlearn_jax.train.descent import StepLoss, begin, optimise
from unlearn_jax.train.fit import weighted_mean
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Array, Batch, PRNGKey, Scalar, Variables

_ABSENT = -1e9
LARGEST = 100.0
"""Of the inverse temperature."""


def fit_contrastive(
    key: PRNGKey, pair: Contrastive, data: Batch, recipe: Recipe
) -> tuple[Variables, Any]:
    """Train on captioned images whose weight is positive.

    Args:
        key: Draws the initial parameters and the order.
        pair: What is trained.
        data: Images as inputs, captions (n, t) as targets.
        recipe: Optimiser and length.

    Returns:
        (variables, loss): the mean over the last pass [nats].

    Raises:
        ValueError: images or captions of another shape; NaN, or a token beyond the
            vocabulary, which would be read as NaN: not inside ``jit``.

    Cost: epochs × examples gradients of both towers.
    """
    shapes = data.inputs.shape[1:], data.targets.shape[1:]
    if shapes != (pair.image_shape, (pair.tokens,)):
        raise ValueError(
            f"got images {shapes[0]} with captions {shapes[1]}, expected "
            f"{pair.image_shape} and {(pair.tokens,)}: build the pair for these"
        )
    if not tracing(data):
        asked = (pair.tokens, pair.vocabulary)
        check_values(data, targets="tokens", outputs=asked, name="training set")
    first, second = jax.random.split(key)
    examples = jnp.asarray(data.inputs), jnp.asarray(data.targets)
    state = optimise(
        second,
        begin(pair.init(first), recipe),
        examples,
        jnp.asarray(data.weights),
        _step_loss(pair),
        recipe,
    )
    return state.variables, state.loss


def contrast(
    pictured: Float[Array, "n d"],
    said: Float[Array, "n d"],
    scale: Float[Array, ""],
    weights: Float[Array, " n"],
) -> Scalar:
    """Half of −log softmax of each image's own caption, and of each caption's image.

    Two images of one step may have captions that mean the same; they are told apart all
    the same, as published.

    Args:
        pictured: Directions of images.
        said: Of their captions, in the same order.
        scale: Log of the inverse temperature, which stays below :data:`LARGEST`.
        weights: Examples of weight zero are not there: nothing is told apart from them.
    """
    there = weights > 0
    sharp = jnp.minimum(jnp.exp(scale), LARGEST)
    near = sharp * jnp.matmul(pictured, said.T, precision="highest")
    own = jnp.diagonal(near)
    by_image = jax.nn.logsumexp(jnp.where(there[None], near, _ABSENT), axis=1)
    by_text = jax.nn.logsumexp(jnp.where(there[:, None], near, _ABSENT), axis=0)
    return weighted_mean((by_image + by_text) / 2 - own, weights)


@functools.lru_cache(maxsize=16)
def _step_loss(pair: Contrastive) -> StepLoss:
    def step_loss(
        key: Any, params: Any, stats: Any, examples: Any, weights: Any
    ) -> Any:
        del key
        images, tokens = examples
        now = Variables(params, {})
        towers = pair.pictured(now, images), pair.said(now, tokens)
        return contrast(*towers, params["scale"], weights), stats

    return step_loss
