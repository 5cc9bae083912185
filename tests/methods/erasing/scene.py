"""A denoiser of one block in float64, and its Jacobian as JAX tells it densely."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from jax.flatten_util import ravel_pytree

from unlearn_jax.diffusion.schedule import cosine_schedule
from unlearn_jax.methods.erasing.images import Images
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.rollouts import Generator, Prompts
from unlearn_jax.models.diffusion_transformer import diffusion_transformer
from unlearn_jax.types import Batch, Variables

WORDS, TOKENS, PIXELS = 7, 3, 16
KEY = jax.random.key(7)
PROMPTS = Prompts(
    np.array([[1, 2, 0]], np.int32),
    np.array([[1, 3, 0]], np.int32),
    np.array([[4, 5, 0], [0, 0, 0]], np.int32),
)


@functools.cache
def scene(steps=1):
    """A generator that samples in so many steps, and parameters off their start."""
    denoiser = diffusion_transformer(
        (4, 4, 1),
        WORDS,
        tokens=TOKENS,
        depth=1,
        width=4,
        heads=2,
        text_width=4,
        text_depth=1,
        dtype=jnp.float64,
    )
    flat, back = ravel_pytree(denoiser.model.init(jax.random.key(0)).params)
    flat = flat + 0.3 * jax.random.normal(jax.random.key(1), flat.shape)
    schedule = cosine_schedule(20)
    schedule = schedule._replace(signal=schedule.signal.astype(jnp.float64))
    return Generator(denoiser, schedule, steps=steps), Variables(back(flat), {})


def images(count=5, seed=0):
    """Random pictures with the captions of the prompts."""
    random = np.random.default_rng(seed)

    def some(tokens):
        drawn = random.uniform(-1, 1, (count, 4, 4, 1))
        return Batch(drawn, np.repeat(tokens[:1], count, 0), np.ones(count))

    instead = np.repeat(PROMPTS.anchor, count, 0)
    return Images(some(PROMPTS.forget), instead, some(PROMPTS.retain))


@functools.cache
def _programs():
    generator, variables = scene()
    back = ravel_pytree(variables.params)[1]

    def told(flat, inputs):
        return generator.denoiser.model.apply(Variables(back(flat), {}), inputs)

    return tiny.quick_jit(told), tiny.quick_jit(jax.jacrev(told))


def told(image, time, tokens, variables=None):
    """ε of points under one prompt, (m, pixels)."""
    return np.asarray(_programs()[0](*_given(image, time, tokens, variables)))


def jacobian(image, time, tokens, variables=None):
    """dε / dθ, (m, pixels, parameters)."""
    return np.asarray(_programs()[1](*_given(image, time, tokens, variables)))


def _given(image, time, tokens, variables):
    variables = scene()[1] if variables is None else variables
    tokens = jnp.broadcast_to(jnp.asarray(tokens), (len(image), TOKENS))
    time = jnp.broadcast_to(jnp.asarray(time), (len(image),))
    inputs = {"image": jnp.asarray(image), "time": time, "tokens": tokens}
    return ravel_pytree(variables.params)[0], inputs


def chosen(part):
    """Which of the flat parameters a part has."""
    generator, variables = scene()
    moves = part_of(generator.denoiser, variables.params, part)
    full = jax.tree.map(lambda p, m: jnp.full(p.shape, m), variables.params, moves)
    return np.asarray(ravel_pytree(full)[0])


def change(after):
    """Flat difference from the original."""
    before = scene()[1]
    return np.asarray(ravel_pytree(after.params)[0] - ravel_pytree(before.params)[0])


def is_first_step(after, slope, part, rate):
    """Whether Adam has gone once along minus ``slope`` on a part, and nowhere else."""
    inside = chosen(part)
    assert np.abs(slope[inside]).max() > 1e-6
    expected = np.where(inside, -rate * slope / (np.abs(slope) + 1e-8), 0)
    np.testing.assert_allclose(change(after), expected, atol=1e-5 * rate)
