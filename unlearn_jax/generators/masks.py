"""What is hidden as data: a masked autoencoder's loss, exact given its masks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from unlearn_jax.generators.images import check_images, check_shape
from unlearn_jax.models.masked import Masked
from unlearn_jax.options import check_number
from unlearn_jax.train.descent import StepLoss, begin, optimise
from unlearn_jax.train.fit import weighted_mean
from unlearn_jax.train.loss import squared_error
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Array, Batch, PRNGKey, Variables


def masked_objective(autoencoder: Masked, l2: float = 0.0) -> Objective:
    """½ ‖image − completed image‖² of each example of :func:`hidden`."""
    return bind(autoencoder.model, {}, squared_error, l2)


def random_masks(
    key: PRNGKey, autoencoder: Masked, count: int, *, share: float = 0.5
) -> Bool[Array, "n p"]:
    """Which patches are seen, drawn for each image: all but ``share`` of them.

    Raises:
        ValueError: a share that is not between 0 and 1.
    """
    seen = shown_patches(autoencoder, share)
    drawn = jax.random.uniform(key, (count, autoencoder.patches))
    return jnp.argsort(jnp.argsort(drawn, axis=1), axis=1) < seen


def shown_patches(autoencoder: Masked, share: float) -> int:
    """How many patches are seen where that share of them is hidden, rounded.

    Raises:
        ValueError: a share that is not between 0 and 1.
    """
    check_number("share", share, positive=True)
    patches = autoencoder.patches
    seen = patches - round(share * patches)
    if not 0 < seen < patches:
        raise ValueError(
            f"share is {share} of {patches} patches, expected one that hides some and "
            "shows some"
        )
    return seen


def left_half(autoencoder: Masked, count: int) -> Bool[Array, "n p"]:
    """Patches of the left half are seen, those of the right one are not."""
    height, width, _ = autoencoder.image_shape
    shape = height // autoencoder.patch, width // autoencoder.patch
    columns = jnp.broadcast_to(jnp.arange(shape[1]), shape).reshape(1, -1)
    return jnp.broadcast_to(columns < shape[1] // 2, (count, columns.size))


def hidden(autoencoder: Masked, data: Batch, seen: Bool[Array, "n p"]) -> Batch:
    """The examples of an autoencoder: images, what is seen of them, and all of them.

    Args:
        autoencoder: Its shape of images.
        data: Images (n, h, w, c) as inputs; targets are not read.
        seen: From :func:`random_masks` or :func:`left_half`.

    Raises:
        ValueError: images of another shape.
    """
    images = jnp.asarray(data.inputs)
    check_shape(autoencoder.image_shape, data)
    inputs = {"image": images, "seen": seen}
    return Batch(inputs, images.reshape(len(images), -1), data.weights)


def fit_masked(
    key: PRNGKey,
    autoencoder: Masked,
    data: Batch,
    recipe: Recipe,
    *,
    share: float = 0.5,
) -> tuple[Variables, Any]:
    """Train on images whose weight is positive, each step under masks of its own.

    Args:
        key: Draws the initial parameters, the order, the masks.
        autoencoder: What is trained.
        data: As of :func:`hidden`.
        recipe: Optimiser and length; the loop runs on the device.
        share: Of the patches that are hidden.

    Returns:
        (variables, loss): the mean over hidden pixels and the last pass of squares.

    Raises:
        ValueError: as :func:`hidden` and :func:`random_masks`; NaN or no example (these
            not while being traced).

    Cost: epochs × examples gradients.
    """
    check_images(autoencoder.image_shape, data)
    shown_patches(autoencoder, share)
    first, second = jax.random.split(key)
    images = jnp.asarray(data.inputs)
    state = optimise(
        second,
        begin(autoencoder.model.init(first), recipe),
        (images,),
        jnp.asarray(data.weights),
        _step_loss(autoencoder, share),
        recipe,
    )
    return state.variables, state.loss


@functools.lru_cache(maxsize=16)
def _step_loss(autoencoder: Masked, share: float) -> StepLoss:
    objective = masked_objective(autoencoder)
    unseen = autoencoder.patches - shown_patches(autoencoder, share)

    def step_loss(
        key: Any, params: Any, stats: Any, examples: Any, weights: Any
    ) -> Any:
        (images,) = examples
        seen = random_masks(key, autoencoder, len(images), share=share)
        batch = hidden(autoencoder, Batch(images, weights, weights), seen)
        losses = objective.example_losses(params, batch)
        pixels = batch.targets.shape[1] * unseen / autoencoder.patches
        return 2 / pixels * weighted_mean(losses, weights), stats

    return step_loss
