"""A small U-Net that tells noise under a class: the denoiser of DDPM."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unlearn_jax.loop import tracing
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.models.diffusion_transformer import WAVES, joined, told
from unlearn_jax.models.layers import Conv
from unlearn_jax.models.model import from_nnx
from unlearn_jax.types import Array


class Classes(nnx.Module):
    """A vector for each class, and one for none."""

    def __init__(self, classes: int, width: int, dtype: Any, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(
            classes + 1, width, dtype=dtype, param_dtype=dtype, rngs=rngs
        )

    def features(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """(n, 1) tokens to (n, 1, width).

        Raises:
            ValueError: a token of no class; not while being traced.
        """
        del rngs
        last = self.tokens.num_embeddings - 1
        if not tracing(inputs):
            tokens = np.asarray(inputs)
            if np.any((tokens < 0) | (tokens > last)):
                wrong = tokens[(tokens < 0) | (tokens > last)][0]
                raise ValueError(
                    f"got token {int(wrong)}, expected 0 (the null prompt) to {last}: "
                    "take class_tokens, or build the U-Net for more classes"
                )
        return self.tokens(inputs)

    def __call__(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """The same."""
        return self.features(inputs, rngs=rngs)


class Residual(nnx.Module):
    """Two normalised convolutions beside a shortcut; the condition is added within."""

    def __init__(self, into: int, out: int, width: int, dtype: Any, rngs: nnx.Rngs):
        kind: dict[str, Any] = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.norm1 = nnx.GroupNorm(into, num_groups=_groups(into), **kind)
        self.norm2 = nnx.GroupNorm(out, num_groups=_groups(out), **kind)
        self.conv1 = Conv(into, out, dtype=dtype, rngs=rngs)
        self.conv2 = Conv(out, out, dtype=dtype, rngs=rngs)
        self.condition = nnx.Linear(width, out, **kind)
        self.projected = into != out
        if self.projected:
            self.shortcut = Conv(into, out, (1, 1), dtype=dtype, rngs=rngs)

    def __call__(self, values: Array, condition: Array) -> Array:
        """(n, h, w, i) and (n, width) to (n, h, w, o)."""
        inner = self.conv1(jax.nn.silu(self.norm1(values)))
        inner = inner + self.condition(condition)[:, None, None, :]
        inner = self.conv2(jax.nn.silu(self.norm2(inner)))
        return inner + (self.shortcut(values) if self.projected else values)


class UNet(nnx.Module):
    """Down by half, through the middle, up again beside what was there before."""

    def __init__(
        self, channels: int, width: int, text: int, dtype: Any, rngs: nnx.Rngs
    ):
        kind: dict[str, Any] = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        wide = 4 * width
        self.time = nnx.Linear(WAVES, wide, **kind)
        self.label = nnx.Linear(text, wide, **kind)
        self.both = nnx.Linear(wide, wide, **kind)

        def residual(into: int, out: int) -> Residual:
            return Residual(into, out, wide, dtype, rngs)

        self.stem = Conv(channels, width, dtype=dtype, rngs=rngs)
        self.down = residual(width, width)
        self.halve = Conv(width, 2 * width, strides=(2, 2), dtype=dtype, rngs=rngs)
        self.middle = nnx.List([residual(2 * width, 2 * width) for _ in "ab"])
        self.double = Conv(2 * width, width, dtype=dtype, rngs=rngs)
        self.up = residual(2 * width, width)
        self.norm = nnx.GroupNorm(width, num_groups=_groups(width), **kind)
        self.head = Conv(width, channels, dtype=dtype, rngs=rngs)
        self.head.kernel[...] = jnp.zeros_like(self.head.kernel[...])
        self.dtype = dtype

    def features(self, inputs: Any, *, rngs: nnx.Rngs | None = None) -> Array:
        """A dict of image, time and text to (n, h, w, width), the input of the head."""
        del rngs
        waves = told(inputs["time"], self.dtype)
        label = jnp.mean(inputs["text"], axis=1)
        condition = jax.nn.silu(self.time(waves) + self.label(label))
        condition = jax.nn.silu(self.both(condition))
        before = self.down(self.stem(inputs["image"]), condition)
        values = self.halve(before)
        for block in self.middle:
            values = block(values, condition)
        grown = jnp.repeat(jnp.repeat(values, 2, axis=1), 2, axis=2)
        values = jnp.concatenate([self.double(grown), before], axis=-1)
        values = self.up(values, condition)
        return jax.nn.silu(self.norm(values))

    def __call__(self, inputs: Any, *, rngs: nnx.Rngs | None = None) -> Array:
        """Image (n, h, w, c), time (n,) and text (n, t, d) to noise (n, h·w·c)."""
        noise = self.head(self.features(inputs, rngs=rngs))
        return noise.reshape(noise.shape[0], -1)


def unet(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    width: int = 32,
    text_width: int = 32,
    dtype: Any = jnp.float32,
) -> Denoiser:
    """U-Net of two resolutions under a class: captions are one token.

    Token 0 is the null prompt, token k + 1 the class k (``class_tokens``). The class
    passes through layers with biases, so there are no maps for closed-form editing.

    Args:
        image_shape: (h, w, c), even sides.
        classes: That there are.
        width: Channels at full resolution; twice as many at half of it.
        text_width: Numbers of a class's embedding.
        dtype: Dtype of parameters and outputs.

    Raises:
        ValueError: odd sides, no class or no channel.

    Source: Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020.
        Differs: two resolutions, no attention and no dropout; the class is added to
        the time, with guidance's null class.
    """
    height, wide, channels = image_shape
    least = min(*image_shape, classes, width, text_width)
    if least < 1 or height % 2 or wide % 2:
        raise ValueError(
            f"got images {image_shape}, {classes} classes and widths {width} and "
            f"{text_width}; expected even sides and at least 1 of each"
        )
    text = from_nnx(lambda rngs: Classes(classes, text_width, dtype, rngs))
    network = from_nnx(lambda rngs: UNet(channels, width, text_width, dtype, rngs))
    return joined(text, network, image_shape, 1)


def class_tokens(labels: Any, classes: int) -> Array:
    """(n,) classes as captions (n, 1).

    Args:
        labels: Of the images.
        classes: That the U-Net was built for.

    Raises:
        ValueError: a class that there is not, which would be another one's token, the
            null prompt, or NaN; not while being traced.
    """
    if not tracing(labels):
        told = np.asarray(labels)
        wrong = told[(told < 0) | (told >= classes)]
        if wrong.size:
            raise ValueError(
                f"got class {int(wrong[0])}, expected 0 to {classes - 1}: the null "
                "prompt is token 0, other classes need a U-Net built for them"
            )
    return jnp.asarray(labels, jnp.int32)[:, None] + 1


def _groups(channels: int) -> int:
    """The most of 8 groups that the channels fall into."""
    return max(g for g in range(1, 9) if channels % g == 0)
