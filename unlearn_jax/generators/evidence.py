"""The evidence of a variational autoencoder: given its noise, a loss like any other.

As in ``diffusion.draws``, what the loss draws is part of the examples: the noise of the
code is an input, the image is input and target. The negative evidence is convex in what
the model puts out (logits of pixels, mean and logarithm of the variance of the code),
so that Gauss-Newton matrices are those of the bound itself.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from unlearn_jax.generators.images import check_images, check_shape
from unlearn_jax.models.variational import Variational
from unlearn_jax.train.descent import StepLoss, begin, optimise
from unlearn_jax.train.fit import weighted_mean
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Array, Batch, PRNGKey, Variables


def divergence(means: Array, logs: Array) -> Array:
    """(n,) KL(N(mean, exp(log)) ‖ N(0, 1)) summed over the codes [nats]."""
    return 0.5 * jnp.sum(jnp.exp(logs) + jnp.square(means) - 1 - logs, axis=1)


def negative_evidence(
    outputs: Float[Array, "n o"], targets: Float[Array, "n p"]
) -> Float[Array, " n"]:
    """−log p(image | code, label) + KL(code ‖ N(0, 1)) of each example [nats].

    Args:
        outputs: p logits, z means, z logarithms of variances.
        targets: Pixels from 0 to 1: a grey one is white with that probability.
    """
    pixels = targets.shape[1]
    logits = outputs[:, :pixels]
    means, logs = jnp.split(outputs[:, pixels:], 2, axis=1)
    told = jnp.sum(jax.nn.softplus(logits) - targets * logits, axis=1)
    return told + divergence(means, logs)


def evidence_objective(autoencoder: Variational, l2: float = 0.0) -> Objective:
    """:func:`negative_evidence` of each example of :func:`coded`."""
    return bind(autoencoder.model, {}, negative_evidence, l2)


def coded(key: PRNGKey, autoencoder: Variational, data: Batch) -> Batch:
    """The examples of an autoencoder: images and labels with the noise of their codes.

    Args:
        key: Draws the noise.
        autoencoder: Its number of codes.
        data: Images (n, h, w, c) from -1 to 1 as inputs, labels (n,) as targets.

    Raises:
        ValueError: images of another shape.
    """
    images = jnp.asarray(data.inputs)
    check_shape(autoencoder.image_shape, data)
    noise = jax.random.normal(key, (len(images), autoencoder.codes), images.dtype)
    inputs = {"image": images, "label": jnp.asarray(data.targets), "noise": noise}
    white = (images.reshape(len(images), -1) + 1) / 2
    return Batch(inputs, white, data.weights)


def fit_variational(
    key: PRNGKey,
    autoencoder: Variational,
    data: Batch,
    recipe: Recipe,
    *,
    start: Variables | None = None,
) -> tuple[Variables, Any]:
    """Train on labelled images whose weight is positive.

    Args:
        key: Draws the initial parameters, the order, the noise of codes.
        autoencoder: What is trained.
        data: As of :func:`coded`.
        recipe: Optimiser and length; the loop runs on the device.
        start: Variables to start from instead of a fresh initialisation.

    Returns:
        (variables, loss): the mean negative evidence over the last pass [nats].

    Raises:
        ValueError: images of another shape; pixels or labels out of range, NaN, no
            example (these not while being traced).

    Cost: epochs × examples gradients.
    """
    shape, classes = autoencoder.image_shape, autoencoder.classes
    check_images(shape, data, classes=classes, bounded=True)
    first, second = jax.random.split(key)
    start = autoencoder.model.init(first) if start is None else start
    examples = jnp.asarray(data.inputs), jnp.asarray(data.targets)
    state = optimise(
        second,
        begin(start, recipe),
        examples,
        jnp.asarray(data.weights),
        _step_loss(autoencoder),
        recipe,
    )
    return state.variables, state.loss


def decoded(
    key: PRNGKey,
    autoencoder: Variational,
    variables: Variables,
    labels: Int[Array | np.ndarray, " n"],
) -> Float[Array, "n h w c"]:
    """An image for each label, as the mean of its pixels, from -1 to 1.

    The same key gives the same code to label i, whatever the model.
    """
    labels = jnp.asarray(labels)
    kind = jax.tree.leaves(variables.params)[0].dtype
    code = jax.random.normal(key, (len(labels), autoencoder.codes), kind)
    logits = autoencoder.decode(variables, code, labels)
    return (2 * jax.nn.sigmoid(logits) - 1).reshape(-1, *autoencoder.image_shape)


@functools.lru_cache(maxsize=16)
def _step_loss(autoencoder: Variational) -> StepLoss:
    objective = evidence_objective(autoencoder)

    def step_loss(
        key: Any, params: Any, stats: Any, examples: Any, weights: Any
    ) -> Any:
        images, labels = examples
        batch = coded(key, autoencoder, Batch(images, labels, weights))
        return weighted_mean(objective.example_losses(params, batch), weights), stats

    return step_loss
