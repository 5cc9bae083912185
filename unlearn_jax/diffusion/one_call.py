"""Drawing by one call: the clean image that a denoiser tells of noise alone."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from unlearn_jax.diffusion.schedule import Schedule, shares
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.types import Array, PRNGKey, Variables

START = 2.5
"""How many times the image the noise is where the call begins, as SFD has it."""


def clean(
    denoiser: Denoiser,
    variables: Variables,
    schedule: Schedule,
    noised: Float[Array, "n h w c"],
    times: Int[Array, " n"],
    tokens: Int[Array, "n t"],
) -> Float[Array, "n h w c"]:
    """(x_t − √(1 − ᾱ_t) ε) / √ᾱ_t, of the noise ε that is told."""
    inputs = {"image": noised, "time": times, "tokens": tokens}
    told = denoiser.model.apply(variables, inputs).reshape(noised.shape)
    kept, lost = (each.astype(noised.dtype) for each in shares(schedule, times))
    return (noised - lost * told) / kept


def one_call(
    denoiser: Denoiser,
    variables: Variables,
    schedule: Schedule,
    codes: Float[Array, "n h w c"],
    tokens: Int[Array, "n t"],
    *,
    start: float = START,
) -> Float[Array, "n h w c"]:
    """An image for each of ``codes``, standard normal noise; not kept within ± 1.

    Args:
        denoiser: Trained to be asked so (``methods.erasing.score_forgetting``); another
            draws means of many images.
        variables: Its parameters.
        schedule: The one it was trained under.
        codes: As above.
        tokens: Prompts.
        start: √(1 − ᾱ) / √ᾱ of the time at which it is asked.
    """
    times = jnp.full(len(codes), time_at(schedule, start))
    begun = shares(schedule, times)[1].astype(codes.dtype) * codes
    return clean(denoiser, variables, schedule, begun, times, tokens)


def drawn_at_once(
    key: PRNGKey,
    denoiser: Denoiser,
    variables: Variables,
    schedule: Schedule,
    tokens: Any,
    *,
    start: float = START,
) -> Float[Array, "n h w c"]:
    """An image for each prompt, from seeds that are the same for every denoiser.

    Cost: one forward pass an image.
    """
    tokens = jnp.asarray(tokens)
    codes = jax.random.normal(key, (len(tokens), *denoiser.image_shape))
    given = denoiser, variables, schedule, codes, tokens
    return jnp.clip(one_call(*given, start=start), -1, 1)


def time_at(schedule: Schedule, ratio: float) -> Int[Array, ""]:
    """The time from 1 on at which noise is so many times the image."""
    signal = schedule.signal[1:]
    apart = jnp.log((1 - signal) / signal) / 2 - jnp.log(ratio)
    return 1 + jnp.argmin(jnp.abs(apart)).astype(jnp.int32)
