"""Noise as data: given its draws, a diffusion loss is a loss like any other.

The loss of a denoiser is an expectation over times, noise and dropped captions. Here
these are drawn first and become part of the examples: the noisy image, its time and its
caption are inputs, the noise is the target, and half the squared distance is the loss.
So Fisher diagonals, Gauss-Newton products, K-FAC and EK-FAC of the library are those of
the diffusion loss, exact given the draws; :func:`over_draws` says what the draws add.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from unlearn_jax.diffusion.schedule import Schedule, shares
from unlearn_jax.loop import scan
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.options import check_whole
from unlearn_jax.train.loss import squared_error
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.types import Array, Batch, Estimate, PRNGKey


class Draws(NamedTuple):
    """Value: what a loss draws for each example.

    Attributes:
        times: From 1 to T.
        noise: Like the images.
        silent: Whether the caption is left out (the null prompt takes its place).
    """

    times: Int[Array, " n"]
    noise: Float[Array, "n h w c"]
    silent: Bool[Array, " n"]


def draw(
    key: PRNGKey,
    schedule: Schedule,
    images: Float[Array, "n h w c"],
    *,
    drop: Any = 0.1,
) -> Draws:
    """Times from 1 to T all alike, standard normal noise, captions that are dropped.

    Args:
        key: Draws them.
        schedule: Its T.
        images: Whose shape is drawn.
        drop: Probability that a caption is left out, which guidance needs.
    """
    time_key, noise_key, drop_key = jax.random.split(key, 3)
    count = images.shape[:1]
    times = jax.random.randint(time_key, count, 1, schedule.steps + 1)
    noise = jax.random.normal(noise_key, images.shape, images.dtype)
    return Draws(times, noise, jax.random.uniform(drop_key, count) < drop)


def noised(schedule: Schedule, data: Batch, draws: Draws, *, end: int = 0) -> Batch:
    """The examples of a denoiser: what it sees, and the noise that it should tell.

    Args:
        schedule: How much of each image is left.
        data: Images (n, h, w, c) as inputs, captions (n, t) as targets.
        draws: For the same n.
        end: Token that the null prompt consists of.

    Returns:
        Batch of inputs "image", "time" and "tokens", and of targets (n, h·w·c), with
        the weights of ``data``.

    Raises:
        ValueError: draws for other images.
    """
    images, tokens = jnp.asarray(data.inputs), jnp.asarray(data.targets)
    if draws.noise.shape != images.shape:
        raise ValueError(
            f"got noise {draws.noise.shape} for images {images.shape}: draw it for "
            "these images"
        )
    kept, lost = shares(schedule, draws.times)
    seen = kept.astype(images.dtype) * images + lost.astype(images.dtype) * draws.noise
    inputs = {
        "image": seen,
        "time": draws.times,
        "tokens": jnp.where(draws.silent[:, None], end, tokens),
    }
    return Batch(inputs, draws.noise.reshape(len(images), -1), data.weights)


def diffusion_objective(denoiser: Denoiser, l2: float = 0.0) -> Objective:
    """½ ‖noise − predicted noise‖² of each example of :func:`noised`.

    The negative log-likelihood of noise of unit variance, so that Gauss-Newton matrix
    and Fisher are the same. A mean over pixels, in which papers tell losses and weigh
    them against one another, is 2 / (h·w·c) times this.
    """
    return bind(denoiser.model, {}, squared_error, l2)


def over_draws(
    key: PRNGKey,
    schedule: Schedule,
    data: Batch,
    function: Callable[[Batch], Any],
    *,
    count: int,
    drop: float = 0.0,
    end: int = 0,
) -> Estimate:
    """The mean of ``function(noised(...))`` over independent draws, and its noise.

    Args:
        key: Draws them.
        schedule: How much of each image is left.
        data: Images and captions.
        function: Noised batch → tree of arrays, such as a Fisher diagonal.
        count: Independent draws, at least 2.
        drop: Share of dropped captions.
        end: See :func:`noised`.

    Returns:
        Value and standard error, each like what the function gives: exact functions of
        one draw differ by what this tells.

    Raises:
        ValueError: fewer than two draws, which leave no error to be told.

    Cost: ``count`` times that of the function, one after another.
    """
    check_whole("count", count, least=2)
    images = jnp.asarray(data.inputs)
    data = jax.tree.map(jnp.asarray, data)

    def one(carry: Any, step: Any) -> tuple[Any, None]:
        (mean, squares), (number, key) = carry, step
        draws = draw(key, schedule, images, drop=drop)
        found = function(noised(schedule, data, draws, end=end))
        # Welford, so that a small spread of large numbers is not lost.
        gap = jax.tree.map(jnp.subtract, found, mean)
        mean = jax.tree.map(lambda m, g: m + g / number, mean, gap)
        rest = jax.tree.map(jnp.subtract, found, mean)
        more = jax.tree.map(lambda s, a, b: s + a * b, squares, gap, rest)
        return (mean, more), None

    draws = jax.eval_shape(lambda k: draw(k, schedule, images), key)
    like = jax.eval_shape(lambda d: function(noised(schedule, data, d)), draws)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    numbers = jnp.arange(1, count + 1)
    steps = (numbers, jax.random.split(key, count))
    (mean, squares), _ = scan(one, (zeros, zeros), steps, (data, schedule))
    error = jax.tree.map(lambda s: jnp.sqrt(s / ((count - 1) * count)), squares)
    return Estimate(mean, error)
