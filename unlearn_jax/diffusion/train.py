"""Training a denoiser: every step draws times, noise and captions to leave out."""

import functools
from typing import Any

import jax

from unlearn_jax.data.values import check_values
from unlearn_jax.diffusion.draws import diffusion_objective, draw, noised
from unlearn_jax.diffusion.schedule import Schedule
from unlearn_jax.loop import tracing
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.train.descent import StepLoss, begin, optimise
from unlearn_jax.train.fit import weighted_mean
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Batch, PRNGKey, Variables


def fit_denoiser(
    key: PRNGKey,
    denoiser: Denoiser,
    schedule: Schedule,
    data: Batch,
    recipe: Recipe,
    *,
    drop: float = 0.1,
    start: Variables | None = None,
) -> tuple[Variables, Any]:
    """Train on captioned images whose weight is positive.

    Args:
        key: Draws the initial parameters, the order, times, noise, silent captions.
        denoiser: What is trained.
        schedule: How much of an image is left at each time.
        data: Images (n, h, w, c) as inputs, captions (n, t) as targets.
        recipe: Optimiser and length; the loop runs on the device.
        drop: Probability that a caption is left out.
        start: Variables to start from instead of a fresh initialisation.

    Returns:
        (variables, loss): the loss is the mean over pixels and over the last pass, of
        the steps as they were taken.

    Raises:
        ValueError: images or captions that the denoiser cannot take, or NaN; not inside
            ``jit``.

    Cost: epochs × examples gradients.
    """
    _check(denoiser, data)
    first, second = jax.random.split(key)
    start = denoiser.model.init(first) if start is None else start
    # The schedule is data, and rides where the steps carry what they do not differ by.
    start = Variables(start.params, {"signal": schedule.signal})
    state = optimise(
        second,
        begin(start, recipe),
        (data.inputs, data.targets),
        data.weights,
        denoising_loss(denoiser, drop),
        recipe,
    )
    return Variables(state.variables.params, {}), state.loss


@functools.lru_cache(maxsize=16)
def denoising_loss(denoiser: Denoiser, drop: float) -> StepLoss:
    """The loss of one step, per pixel: mean of (noise − predicted noise)².

    Its stats hold the schedule's "signal".
    """
    objective = diffusion_objective(denoiser)

    def step_loss(
        key: Any, params: Any, stats: Any, examples: Any, weights: Any
    ) -> Any:
        images, tokens = examples
        schedule = Schedule(stats["signal"])
        draws = draw(key, schedule, images, drop=drop)
        batch = noised(schedule, Batch(images, tokens, weights), draws)
        losses = objective.example_losses(params, batch)
        pixels = batch.targets.shape[1]
        return 2 / pixels * weighted_mean(losses, weights), stats

    return step_loss


def _check(denoiser: Denoiser, data: Batch) -> None:
    if tracing(data):
        return
    shapes = (data.inputs.shape[1:], data.targets.shape[1:])
    expected = (denoiser.image_shape, (denoiser.tokens,))
    if shapes != expected:
        raise ValueError(
            f"got images {shapes[0]} with captions {shapes[1]}, expected "
            f"{expected[0]} and {expected[1]}: build the denoiser for these"
        )
    check_values(data, targets="anything", outputs=None, name="training set")
