"""Images that a method may read, real ones or some that the generator has drawn."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from unlearn_jax.diffusion.draws import diffusion_objective, draw, noised
from unlearn_jax.diffusion.sampler import generate
from unlearn_jax.methods.erasing.curvature import as_drawn
from unlearn_jax.methods.erasing.rollouts import Generator, repeated
from unlearn_jax.methods.erasing.tune import picked
from unlearn_jax.types import Array, Batch, PRNGKey, Variables


class Images(NamedTuple):
    """Value: captioned images of what is erased and of what stays.

    Attributes:
        forget: Images (n, h, w, c) and captions (n, t).
        instead: (n, t), the same captions with the anchor in the concept's place.
        retain: Images and captions.
    """

    forget: Batch
    instead: Int[Array | np.ndarray, "n t"]
    retain: Batch


def remembered(
    key: PRNGKey, generator: Generator, variables: Variables, tokens: Any, count: int
) -> Batch:
    """Images that the generator draws for prompts in turn, with these as captions."""
    tokens = repeated(tokens, count)
    drawn = generate(
        key,
        generator.denoiser,
        variables,
        generator.schedule,
        tokens,
        steps=generator.steps,
        guidance=generator.guidance,
        end=generator.end,
    )
    return Batch(drawn, tokens, jnp.ones(count, drawn.dtype))


def noisy(
    key: PRNGKey, generator: Generator, data: Batch, count: int, *, drop: Any = 0.0
) -> Batch:
    """``count`` of the images, each at a time and under noise of its own."""
    first, second = jax.random.split(key)
    chosen = picked(first, data, count)
    draws = draw(second, generator.schedule, chosen.inputs, drop=drop)
    return noised(generator.schedule, chosen, draws, end=generator.end)


def retained(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    images: Images,
    *,
    kept: int,
) -> Batch:
    """Noised images that stay, with targets drawn around what the original tells."""
    first, second = jax.random.split(key)
    stay = noisy(first, generator, images.retain, kept, drop=0.1)
    told = diffusion_objective(generator.denoiser).predict(
        variables.params, stay.inputs
    )
    return as_drawn(second, stay._replace(targets=told))
