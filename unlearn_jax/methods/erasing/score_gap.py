"""What score forgetting compares: drawn images, noised, under two scores."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from unlearn_jax.diffusion.one_call import START, clean, one_call, time_at
from unlearn_jax.diffusion.schedule import Schedule, shares
from unlearn_jax.methods.erasing.rollouts import Generator
from unlearn_jax.types import Array, Params, Scalar, Variables


class Levels(NamedTuple):
    """Description: ratios of noise to image, √(1 − ᾱ) / √ᾱ, that times are told by.

    Attributes:
        start: Where the one call begins.
        least: From where scores are compared.
        most: Up to where.
    """

    start: float = START
    least: float = 0.137
    most: float = 13.1


class Scored(NamedTuple):
    """Value: drawn images, noised, and what is asked of both scores there.

    Attributes:
        tokens: (b, t) of the generator and of the score of its images.
        aims: (b, t) of the teacher: the anchor's, where a prompt is forgotten.
        weights: (b,).
        codes: (b, h, w, c) noise that images are drawn from.
        times: (b,).
        noise: (b, h, w, c).
    """

    tokens: Int[Array, "b t"]
    aims: Int[Array, "b t"]
    weights: Float[Array, " b"]
    codes: Float[Array, "b h w c"]
    times: Int[Array, " b"]
    noise: Float[Array, "b h w c"]


def score_loss(
    generator: Generator,
    params: Params,
    scores: tuple[Params, Params],
    seen: Scored,
    levels: Levels,
    correction: Any,
) -> Scalar:
    """Mean of μ ⟨f − g, (f − x) − a (f − g)⟩ / ω, ω = mean |f − x| per image.

    x is drawn; f and g are the clean images that the teacher and ψ tell of x noised;
    the slope goes through all three to what draws.

    Args:
        generator: Denoiser and schedule of all three.
        params: Of what draws.
        scores: Of the teacher and of ψ.
        seen: Prompts, codes, times and noise.
        levels: Where the call begins.
        correction: a.
    """
    images = drawn_by(generator, params, seen, levels)
    denoiser, schedule = generator.denoiser, generator.schedule
    noised = noised_for(schedule, images, seen)
    teacher, fake = (
        clean(denoiser, Variables(own, {}), schedule, noised, seen.times, tokens)
        for own, tokens in zip(scores, (seen.aims, seen.tokens), strict=True)
    )
    size = jnp.mean(jnp.abs(teacher - images), axis=(1, 2, 3))
    size = jax.lax.stop_gradient(jnp.maximum(size, 1e-6))
    gap = teacher - fake
    inner = jnp.sum(gap * (teacher - images - correction * gap), axis=(1, 2, 3))
    return jnp.mean(seen.weights * inner / size)


def asked_for(
    key: Any,
    generator: Generator,
    asked: Any,
    aims: Any,
    weight: float,
    levels: Levels,
    count: int,
) -> Scored:
    """Prompts, codes, times and noise of one step.

    Args:
        key: Draws all of them.
        generator: Denoiser and schedule.
        asked: Tokens (p, t) of all prompts, and (p,) which are forgotten.
        aims: (p, t) what the teacher is asked in their place.
        weight: Of those that are forgotten.
        levels: From and up to which time.
        count: b.
    """
    tokens, moves = asked
    keys = jax.random.split(key, 4)
    rows = jax.random.randint(keys[0], (count,), 0, len(tokens))
    least, most = (time_at(generator.schedule, r) for r in (levels.least, levels.most))
    kind = jnp.result_type(generator.schedule.signal)
    shape = (count, *generator.denoiser.image_shape)
    return Scored(
        tokens[rows],
        aims[rows],
        jnp.where(moves[rows], weight, 1.0).astype(kind),
        jax.random.normal(keys[1], shape, kind),
        jax.random.randint(keys[2], (count,), least, most + 1),
        jax.random.normal(keys[3], shape, kind),
    )


def drawn_by(
    generator: Generator, params: Params, seen: Scored, levels: Levels
) -> Array:
    """The image of each code, by one call."""
    given = generator.denoiser, Variables(params, {}), generator.schedule
    return one_call(*given, seen.codes, seen.tokens, start=levels.start)


def noised_for(schedule: Schedule, images: Array, seen: Scored) -> Array:
    """Images with the noise and at the times that were drawn."""
    kept, lost = (each.astype(images.dtype) for each in shares(schedule, seen.times))
    return kept * images + lost * seen.noise
