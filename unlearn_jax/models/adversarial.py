"""A generator of images from noise and the critic that it learns against."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.models.mlp import mlp
from unlearn_jax.models.model import Model
from unlearn_jax.options import check_whole
from unlearn_jax.types import Array, Params, Variables


class Adversarial(NamedTuple):
    """Description: both networks.

    Attributes:
        generator: (n, z) noise to (n, h·w·c) numbers, of which :meth:`images` are the
            hyperbolic tangents.
        critic: (n, h, w, c) to (n, 1) logits of being real.
        image_shape: (h, w, c).
        codes: z.
    """

    generator: Model
    critic: Model
    image_shape: tuple[int, int, int]
    codes: int

    def init(self, key: Any) -> Variables:
        """Parameters of both, "generator" and "critic"."""
        first, second = jax.random.split(key)
        parts = self.generator.init(first).params, self.critic.init(second).params
        return Variables(dict(zip(("generator", "critic"), parts, strict=True)), {})

    def images(self, params: Params, codes: Array) -> Array:
        """What the generator draws, (n, h, w, c) from -1 to 1.

        Args:
            params: Of the generator alone.
            codes: (n, z) noise.
        """
        drawn = jnp.tanh(self.generator.apply(Variables(params, {}), codes))
        return drawn.reshape(-1, *self.image_shape)

    def real(self, params: Params, images: Array) -> Array:
        """Logits of being real, (n,).

        Args:
            params: Of the critic alone.
            images: (n, h, w, c).
        """
        return self.critic.apply(Variables(params, {}), images)[:, 0]


def adversarial(
    image_shape: tuple[int, int, int],
    *,
    codes: int = 16,
    widths: tuple[int, ...] = (128, 256),
    dtype: Any = jnp.float32,
) -> Adversarial:
    """Two multilayer perceptrons.

    Args:
        image_shape: (h, w, c).
        codes: z.
        widths: Hidden units of the generator; the critic has them the other way round.
        dtype: Dtype of parameters and outputs.

    Raises:
        ValueError: no code, no pixel.

    Source: Goodfellow et al., Generative Adversarial Networks, 2014.
    """
    check_whole("codes", codes)
    for side in image_shape:
        check_whole("a side of image_shape", side)
    pixels = math.prod(image_shape)
    leaky = lambda values: jax.nn.leaky_relu(values, 0.2)  # noqa: E731
    kind: dict[str, Any] = {"activation": leaky, "dtype": dtype}
    return Adversarial(
        mlp((codes,), pixels, widths=widths, **kind),
        mlp(image_shape, 1, widths=widths[::-1], **kind),
        image_shape,
        codes,
    )
