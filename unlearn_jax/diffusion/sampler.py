"""Drawing images: DDIM, DDPM and what lies between, under guidance."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from unlearn_jax.diffusion.schedule import Schedule
from unlearn_jax.loop import scan
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.options import check_number, check_whole
from unlearn_jax.types import Array, PRNGKey, Variables

Predict = Callable[[Float[Array, "n h w c"], Int[Array, " n"]], Array]
"""(image, time) → noise, like the image."""


def guided(
    denoiser: Denoiser,
    variables: Variables,
    text: Float[Array, "n t d"],
    empty: Float[Array, "1 t d"],
    guidance: Any = 2.0,
) -> Predict:
    """ε(empty) + guidance · (ε(text) − ε(empty)), both in one pass.

    Args:
        denoiser: Whose ``denoise`` is called.
        variables: Its parameters.
        text: Embeddings of the prompts.
        empty: Embeddings of the null prompt.
        guidance: 1 follows the prompt as trained, 0 ignores it.

    Source: Ho and Salimans, Classifier-Free Diffusion Guidance, 2022, in the scale of
        later code (theirs plus one).
    """

    def predict(image: Array, time: Array) -> Array:
        words = jnp.concatenate([text, jnp.broadcast_to(empty, text.shape)])
        twice = jnp.concatenate([image, image]), jnp.concatenate([time, time])
        told = denoiser.denoise(variables, *twice, words)
        with_text, without = told.reshape(2, *image.shape)
        return without + guidance * (with_text - without)

    return predict


def sample(
    key: PRNGKey,
    predict: Predict,
    schedule: Schedule,
    start: Float[Array, "n h w c"],
    *,
    steps: int = 25,
    eta: float = 0.0,
    clip: float | None = 1.0,
) -> Float[Array, "n h w c"]:
    """From noise to images.

    Args:
        key: Draws the noise that is added on the way; not read where ``eta`` is 0.
        predict: (image, time) → noise, such as :func:`guided`.
        schedule: The one that the denoiser was trained under.
        start: Standard normal noise, the seed of each image.
        steps: Of the T times, evenly spaced, T among them.
        eta: 0: DDIM, deterministic. 1: with all T steps DDPM.
        clip: The clean image told at each step is kept within ± this; None: not.

    Raises:
        ValueError: more steps than there are times, or an ``eta`` outside of 0 to 1.

    Cost: ``steps`` calls of ``predict``, in one compiled loop.
    Source: Song, Meng and Ermon, Denoising Diffusion Implicit Models, 2021, eq. 12 and
        16. Differs: where the clean image is clipped, the noise is told anew from it.
    """
    check_whole("steps", steps)
    check_number("eta", eta, least=0.0)
    if steps > schedule.steps or eta > 1:
        raise ValueError(
            f"got {steps} steps and eta {eta}, expected at most the {schedule.steps} "
            "times of the schedule and eta from 0 to 1"
        )
    times = np.round(np.linspace(schedule.steps, 0, steps + 1)).astype(np.int32)
    pairs = (
        jnp.asarray(times[:-1]),
        jnp.asarray(times[1:]),
        jax.random.split(key, steps),
    )

    def step(image: Array, pair: Any) -> tuple[Array, None]:
        now, then, own = pair
        kept, next_kept = (schedule.signal[t].astype(image.dtype) for t in (now, then))
        noise = predict(image, jnp.full(image.shape[0], now))
        clean = (image - jnp.sqrt(1 - kept) * noise) / jnp.sqrt(kept)
        if clip is not None:
            clean = jnp.clip(clean, -clip, clip)
            noise = (image - jnp.sqrt(kept) * clean) / jnp.sqrt(1 - kept)
        spread = (1 - next_kept) / (1 - kept) * (1 - kept / next_kept)
        spread = eta**2 * jnp.maximum(spread, 0)
        towards = jnp.sqrt(jnp.maximum(1 - next_kept - spread, 0))
        image = jnp.sqrt(next_kept) * clean + towards * noise
        if eta > 0:
            added = jax.random.normal(own, image.shape, image.dtype)
            image = image + jnp.sqrt(spread) * added
        return image, None

    return scan(step, start, pairs, schedule)[0]


def generate(
    key: PRNGKey,
    denoiser: Denoiser,
    variables: Variables,
    schedule: Schedule,
    tokens: Int[Array | np.ndarray, "n t"],
    *,
    steps: int = 25,
    guidance: float = 2.0,
    eta: float = 0.0,
    end: int = 0,
) -> Float[Array, "n h w c"]:
    """An image for each prompt.

    The same key gives the same noise to prompt i, whatever the model: images of two
    models differ by what the models are.

    Args:
        key: Draws the noise.
        denoiser: What draws.
        variables: Its parameters.
        schedule: The one it was trained under.
        tokens: Prompts.
        steps: See :func:`sample`.
        guidance: See :func:`guided`.
        eta: See :func:`sample`.
        end: Token that the null prompt consists of.

    Cost: 2 × ``steps`` forward passes an image, the text once.
    """
    tokens = jnp.asarray(tokens)
    start_key, own = jax.random.split(key)
    start = jax.random.normal(start_key, (len(tokens), *denoiser.image_shape))
    text = denoiser.encode(variables, tokens)
    empty = denoiser.encode(variables, jnp.full_like(tokens[:1], end))
    predict = guided(denoiser, variables, text, empty, guidance)
    return sample(own, predict, schedule, start, steps=steps, eta=eta)
