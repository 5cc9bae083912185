"""How much of an image is left at each time."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from unlearn_jax.options import check_whole
from unlearn_jax.types import Array


class Schedule(NamedTuple):
    """Value: the share of the image's variance at times 0 (all of it) to T.

    Attributes:
        signal: ᾱ, (T + 1,), from 1 down: x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) noise.
    """

    signal: Float[Array, " times"]

    @property
    def steps(self) -> int:
        """T."""
        return self.signal.shape[0] - 1


def cosine_schedule(steps: int = 200) -> Schedule:
    """ᾱ_t falls like a squared cosine, no step loses more than 99.9 %.

    Args:
        steps: T.

    Raises:
        ValueError: no step.

    Source: Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models,
        2021, with their offset of 0.008.
    """
    check_whole("steps", steps)
    times = np.arange(steps + 1) / steps
    ideal = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
    kept = np.maximum(ideal[1:] / ideal[:-1], 1e-3)
    return Schedule(jnp.asarray(np.cumprod(np.append(1.0, kept)), jnp.float32))


def linear_schedule(steps: int = 1000) -> Schedule:
    """Variances of single steps from 1e-4 to 0.02, both times 1000 / T.

    Args:
        steps: T.

    Raises:
        ValueError: fewer steps than 21, of which one would lose everything.

    Source: Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020.
    """
    check_whole("steps", steps, least=21)
    lost = np.linspace(1e-4, 0.02, steps) * 1000 / steps
    return Schedule(jnp.asarray(np.cumprod(np.append(1.0, 1 - lost)), jnp.float32))


def shares(
    schedule: Schedule, times: Int[Array, " n"]
) -> tuple[Float[Array, "n 1 1 1"], Float[Array, "n 1 1 1"]]:
    """√ᾱ_t and √(1 − ᾱ_t) of each image, to be multiplied with it and with noise."""
    signal = schedule.signal[times][:, None, None, None]
    return jnp.sqrt(signal), jnp.sqrt(1 - signal)
