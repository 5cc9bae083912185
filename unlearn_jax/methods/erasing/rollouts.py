"""Images on their way: what a denoiser is asked while it draws.

Erasing needs no images of a concept, only points where the generator passes when it is
prompted for it. A rollout keeps all of them, and both predictions that guidance needs
there: the targets of most methods are sums of these two.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from unlearn_jax.diffusion.schedule import Schedule
from unlearn_jax.loop import fori_loop, scan
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.options import check_whole
from unlearn_jax.types import Array, Batch, PRNGKey, Variables


class Prompts(NamedTuple):
    """Value: what is erased, what takes its place, and what stays.

    Attributes:
        forget: (f, t).
        anchor: (f, t), one for each of ``forget``.
        retain: (r, t).
    """

    forget: Int[Array | np.ndarray, "f t"]
    anchor: Int[Array | np.ndarray, "f t"]
    retain: Int[Array | np.ndarray, "r t"]


class Generator(NamedTuple):
    """Description: a denoiser and how it draws.

    Attributes:
        denoiser: What is asked.
        schedule: The one that it was trained under.
        steps: Of sampling, evenly spaced.
        guidance: Of sampling.
        end: Token that the null prompt consists of.
    """

    denoiser: Denoiser
    schedule: Schedule
    steps: int = 25
    guidance: float = 3.0
    end: int = 0

    def null(self, count: int = 1) -> Int[Array, "n t"]:
        """The null prompt."""
        return jnp.full((count, self.denoiser.tokens), self.end, jnp.int32)


class Rollouts(NamedTuple):
    """Value: the points of n ways from noise to an image, s each.

    Attributes:
        image: (s·n, h, w, c), all at T first.
        time: (s·n,).
        prompt: (s·n,) which of the prompts.
        told: (s·n, p) noise as predicted under the prompt.
        silent: (s·n, p) under the null prompt.
    """

    image: Float[Array, "m h w c"]
    time: Int[Array, " m"]
    prompt: Int[Array, " m"]
    told: Float[Array, "m p"]
    silent: Float[Array, "m p"]


def grid(schedule: Schedule, steps: int) -> Int[np.ndarray, " s"]:
    """The times that a sampler visits: T, and ``steps`` further down to 0.

    Raises:
        ValueError: no step, or more than there are times.
    """
    check_whole("steps", steps)
    if steps > schedule.steps:
        raise ValueError(
            f"got {steps} steps, expected at most the {schedule.steps} times of the "
            "schedule: take fewer"
        )
    return np.round(np.linspace(schedule.steps, 0, steps + 1)).astype(np.int32)


def rollouts(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    tokens: Int[Array | np.ndarray, "n t"],
) -> Rollouts:
    """Every point that the sampler passes on its way to an image for each prompt.

    Args:
        key: Draws the noise that they begin with.
        generator: Its sampler is DDIM (``sampler.generate`` with eta 0).
        variables: Of its denoiser.
        tokens: Prompts.

    Cost: 2 × steps forward passes for each prompt; the predictions are those of the
        sampler itself.
    """
    tokens = jnp.asarray(tokens)
    step = _step(generator, variables, tokens)
    times = grid(generator.schedule, generator.steps)

    def one(image: Array, pair: Any) -> tuple[Array, Any]:
        following, told, silent = step(image, *pair)
        return following, (image, told, silent)

    start = _start(key, generator, tokens)
    pairs = jnp.asarray(times[:-1]), jnp.asarray(times[1:])
    _, (images, told, silent) = scan(one, start, pairs, variables, tokens)
    count = len(tokens)
    return Rollouts(
        images.reshape(-1, *images.shape[2:]),
        jnp.repeat(jnp.asarray(times[:-1]), count),
        jnp.tile(jnp.arange(count, dtype=jnp.int32), generator.steps),
        told.reshape(-1, told.shape[-1]),
        silent.reshape(-1, silent.shape[-1]),
    )


def rolled(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    tokens: Int[Array, "n t"],
    stop: Any,
) -> Float[Array, "n h w c"]:
    """The point of each way after ``stop`` steps, at the time ``grid[stop]``.

    Args:
        key: As of :func:`rollouts`, with the same points.
        generator: As there.
        variables: As there.
        tokens: Prompts.
        stop: Steps, may be traced.

    Cost: 2 × ``stop`` forward passes for each prompt.
    """
    step = _step(generator, variables, tokens)
    times = jnp.asarray(grid(generator.schedule, generator.steps))

    def one(i: Any, image: Array) -> Array:
        return step(image, times[i], times[i + 1])[0]

    start = _start(key, generator, tokens)
    return fori_loop(0, stop, one, start, variables, tokens)


def predicted(
    denoiser: Denoiser,
    variables: Variables,
    image: Float[Array, "m h w c"],
    time: Int[Array, " m"],
    tokens: Int[Array, "m t"],
    *,
    batch_size: int = 256,
) -> Float[Array, "m p"]:
    """The noise that a denoiser tells, for many points."""

    def one(row: Any) -> Array:
        image, time, tokens = (each[None] for each in row)
        inputs = {"image": image, "time": time, "tokens": tokens}
        return denoiser.model.apply(variables, inputs)[0]

    rows = image, time, tokens
    return jax.lax.map(one, rows, batch_size=min(batch_size, len(time)))


def regression(
    rolls: Rollouts, tokens: Int[Array, "n t"], targets: Float[Array, "m p"]
) -> Batch:
    """Points, the prompts that they stem from, and what should be told there.

    The form of ``diffusion.draws.noised``, so that ``diffusion_objective`` and all
    curvature of the library take it.
    """
    inputs = {"image": rolls.image, "time": rolls.time, "tokens": tokens[rolls.prompt]}
    return Batch(inputs, targets, jnp.ones(len(rolls.time), rolls.image.dtype))


def repeated(tokens: Any, count: int) -> Int[Array, "n ..."]:
    """``count`` prompts or labels, those given in turn."""
    tokens = jnp.asarray(tokens)
    return tokens[jnp.arange(count) % len(tokens)]


def _start(key: PRNGKey, generator: Generator, tokens: Array) -> Array:
    shape = (len(tokens), *generator.denoiser.image_shape)
    kind = jnp.result_type(generator.schedule.signal)
    return jax.random.normal(key, shape, kind)


def _step(generator: Generator, variables: Variables, tokens: Array) -> Callable:
    """(image, now, then) → the image then, and what was told on the way."""
    denoiser, schedule = generator.denoiser, generator.schedule
    text = denoiser.encode(variables, tokens)
    empty = denoiser.encode(variables, generator.null())
    words = jnp.concatenate([text, jnp.broadcast_to(empty, text.shape)])

    def step(image: Array, now: Any, then: Any) -> tuple[Array, Array, Array]:
        times = jnp.full(2 * len(image), now)
        both = denoiser.denoise(variables, jnp.concatenate([image] * 2), times, words)
        told, silent = jnp.split(both, 2)
        noise = silent + generator.guidance * (told - silent)
        return _ddim(schedule, image, noise, now, then), told, silent

    return step


def _ddim(schedule: Schedule, image: Array, noise: Array, now: Any, then: Any) -> Array:
    """One deterministic step; the clean image is kept within ± 1."""
    kept, next_kept = (schedule.signal[t].astype(image.dtype) for t in (now, then))
    noise = noise.reshape(image.shape)
    clean = (image - jnp.sqrt(1 - kept) * noise) / jnp.sqrt(kept)
    clean = jnp.clip(clean, -1.0, 1.0)
    noise = (image - jnp.sqrt(kept) * clean) / jnp.sqrt(1 - kept)
    return jnp.sqrt(next_kept) * clean + jnp.sqrt(1 - next_kept) * noise
