"""A small diffusion transformer that reads captions by key and value maps alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from unlearn_jax.models.attention import Attention, Reach, dense
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.models.model import Model, from_nnx
from unlearn_jax.models.patches import cut, joined_up
from unlearn_jax.models.transformer import transformer
from unlearn_jax.types import Array, Path, Variables

WAVES = 32
"""Numbers that a time is told by."""
_LONGEST = 1000.0
"""Of their wavelengths, in steps over 2π."""


class Sizes(NamedTuple):
    """Description: sizes; :func:`diffusion_transformer` says which is which."""

    image: tuple[int, int, int]
    patch: int
    depth: int
    width: int
    heads: int
    text: int


class CrossAttention(nnx.Module):
    """Each position of the image looks at every token of the text.

    The text enters by ``key`` and ``value``, two products without bias, and by nothing
    else: what closed-form editing asks for.
    """

    def __init__(self, s: Sizes, gain: float, kind: dict[str, Any], rngs: nnx.Rngs):
        self.query = dense(s.width, s.width, 1.0, kind, rngs)
        self.key = dense(s.text, s.width, 1.0, kind, rngs)
        self.value = dense(s.text, s.width, 1.0, kind, rngs)
        self.out = dense(s.width, s.width, gain, kind, rngs)
        self.heads = s.heads

    def __call__(self, inputs: Array, text: Array) -> Array:
        """(n, p, width) and (n, t, text) to (n, p, width)."""

        def split(values: Array) -> Array:
            return values.reshape(*values.shape[:2], self.heads, -1)

        query, key, value = (
            split(self.query(inputs)),
            split(self.key(text)),
            split(self.value(text)),
        )
        scores = jnp.einsum("nphd,nthd->nhpt", query * query.shape[-1] ** -0.5, key)
        mixed = jnp.einsum("nhpt,nthd->nphd", jax.nn.softmax(scores, axis=-1), value)
        return self.out(mixed.reshape(inputs.shape))


class Block(nnx.Module):
    """Attention among patches, attention to the text, two layers; the time scales."""

    def __init__(self, s: Sizes, kind: dict[str, Any], rngs: nnx.Rngs):
        gain = 0.5 / s.depth
        size = s.width // s.heads
        sizes = (s.width, s.heads, s.heads, size)
        self.attention = Attention(*sizes, 10_000.0, gain, kind, rngs)
        self.cross = CrossAttention(s, gain, kind, rngs)
        self.up = nnx.Linear(s.width, 4 * s.width, rngs=rngs, **kind)
        self.down = dense(4 * s.width, s.width, gain, kind, rngs)
        self.modulation = _zero(s.width, 6 * s.width, kind, rngs)

    def __call__(self, values: Array, reached: Reach, time: Array, text: Array) -> Any:
        """(n, p, width), what is seen, (n, width) and (n, t, text) to (n, p, width)."""
        told = jnp.split(self.modulation(time)[:, None, :], 6, axis=-1)
        moved, scaled, gated, moved_too, scaled_too, gated_too = told
        inner = _normal(values) * (1 + scaled) + moved
        mixed, _ = self.attention(inner, reached, None, 0)
        values = values + (1 + gated) * mixed
        values = values + self.cross(_normal(values), text)
        inner = _normal(values) * (1 + scaled_too) + moved_too
        return values + (1 + gated_too) * self.down(jax.nn.gelu(self.up(inner)))


class DiffusionTransformer(nnx.Module):
    """Patches in, blocks, patches of noise out."""

    def __init__(self, s: Sizes, dtype: Any, compute_dtype: Any, rngs: nnx.Rngs):
        kind = {"dtype": compute_dtype or dtype, "param_dtype": dtype}
        height, width, channels = s.image
        count = (height // s.patch) * (width // s.patch)
        pixels = s.patch * s.patch * channels
        self.patches = nnx.Linear(pixels, s.width, rngs=rngs, **kind)
        drawn = jax.random.normal(rngs.params(), (count, s.width), dtype)
        self.places = nnx.Param(0.02 * drawn)
        self.time = nnx.Linear(WAVES, s.width, rngs=rngs, **kind)
        self.time_out = nnx.Linear(s.width, s.width, rngs=rngs, **kind)
        self.blocks = nnx.List([Block(s, kind, rngs) for _ in range(s.depth)])
        self.modulation = _zero(s.width, 2 * s.width, kind, rngs)
        self.head = _zero(s.width, pixels, kind, rngs)
        self.sizes, self.dtype = s, dtype

    def features(self, inputs: Any, *, rngs: nnx.Rngs | None = None) -> Array:
        """A dict of image, time and text to (n, p, width), the input of the head."""
        del rngs
        image, text = inputs["image"], inputs["text"]
        values = self.patches(cut(image, self.sizes.patch))
        values = values + self.places[...].astype(values.dtype)[None]
        waves = told(inputs["time"], self.dtype)
        time = jax.nn.silu(self.time_out(jax.nn.silu(self.time(waves))))
        n, count, _ = values.shape
        everything = jnp.ones((n, count, count), bool)
        places = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), (n, count))
        reached = Reach(everything, places, jnp.zeros(n, jnp.int32))
        for block in self.blocks:
            values = block(values, reached, time, text)
        moved, scaled = jnp.split(self.modulation(time)[:, None, :], 2, axis=-1)
        return _normal(values) * (1 + scaled) + moved

    def __call__(self, inputs: Any, *, rngs: nnx.Rngs | None = None) -> Array:
        """Image (n, h, w, c), time (n,) and text (n, t, d) to noise (n, h·w·c)."""
        noise = self.head(self.features(inputs, rngs=rngs)).astype(self.dtype)
        return joined_up(noise, self.sizes.image, self.sizes.patch)


def diffusion_transformer(
    image_shape: tuple[int, int, int],
    vocabulary: int,
    *,
    tokens: int = 6,
    patch: int = 2,
    depth: int = 3,
    width: int = 48,
    heads: int = 4,
    text_width: int = 48,
    text_depth: int = 2,
    dtype: Any = jnp.float32,
    compute_dtype: Any = None,
) -> Denoiser:
    """Diffusion transformer under captions: the noise in an image, at a time.

    The text encoder is the library's causal transformer (``transformer``), trained with
    the rest; its embeddings enter each block by cross-attention, through key and value
    maps without bias, and nowhere else. The time scales, moves and gates each part
    (adaLN). 0.2 million parameters as given.

    Args:
        image_shape: (h, w, c), sides that ``patch`` divides.
        vocabulary: Words.
        tokens: Of a caption.
        patch: Pixels along a side of what is one position.
        depth: Blocks.
        width: Numbers at each position.
        heads: Of all attention.
        text_width: d, of the embeddings.
        text_depth: Blocks of the encoder.
        dtype: Dtype of parameters and outputs.
        compute_dtype: Dtype of the arithmetic in between; None takes ``dtype``.

    Raises:
        ValueError: sizes that do not fit one another.

    Source: Peebles and Xie, Scalable Diffusion Models with Transformers, 2023, with
        cross-attention for text. Differs: gates begin at 1 and the last map at 0;
        rotary places beside learned ones.
    """
    height, wide, _ = image_shape
    if min(patch, depth, heads) < 1 or height % patch or wide % patch or width % heads:
        raise ValueError(
            f"got images {image_shape}, patches of {patch}, depth {depth}, width "
            f"{width} and {heads} heads; expected sides that are multiples of the "
            f"patch and a width that is one of the heads"
        )
    kinds: dict[str, Any] = {"dtype": dtype, "compute_dtype": compute_dtype}
    text = transformer(
        (tokens,), vocabulary, depth=text_depth, width=text_width, heads=heads, **kinds
    )
    sizes = Sizes(image_shape, patch, depth, width, heads, text_width)
    network = from_nnx(
        lambda rngs: DiffusionTransformer(sizes, dtype, compute_dtype, rngs)
    )
    return joined(text, network, image_shape, tokens)


def joined(
    text: Model, network: Model, image_shape: tuple[int, int, int], tokens: int
) -> Denoiser:
    """A text encoder and a network that reads "image", "time" and "text" as one.

    Args:
        text: Its ``features`` are the embeddings.
        network: Its cross-attention is called ``cross``, with maps ``key`` and
            ``value``.
        image_shape: (h, w, c).
        tokens: Of a caption.
    """

    def part(variables: Variables, name: str) -> Variables:
        return Variables(variables.params[name], variables.stats)

    def init(key: Any) -> Variables:
        first, second = jax.random.split(key)
        made = {"text": text.init(first).params, "network": network.init(second).params}
        return Variables(made, {})

    def encode(variables: Variables, tokens: Any) -> Array:
        return text.features(part(variables, "text"), tokens)

    def denoise(variables: Variables, image: Any, time: Any, text: Any) -> Array:
        inputs = {"image": image, "time": time, "text": text}
        return network.apply(part(variables, "network"), inputs)

    def apply(variables: Variables, inputs: Any) -> Array:
        words = encode(variables, inputs["tokens"])
        return denoise(variables, inputs["image"], inputs["time"], words)

    def apply_train(key: Any, variables: Variables, inputs: Any) -> Any:
        del key
        return apply(variables, inputs), variables

    def features(variables: Variables, inputs: Any) -> Array:
        inputs = {**inputs, "text": encode(variables, inputs["tokens"])}
        return network.features(part(variables, "network"), inputs)

    model = Model(init, apply, apply_train, features)
    return Denoiser(model, encode, denoise, _reads_text, image_shape, tokens)


def _reads_text(path: Path) -> bool:
    return "cross" in path and ("key" in path or "value" in path)


def _normal(values: Array) -> Array:
    """Each position over its root mean square."""
    square = jnp.mean(jnp.square(values), axis=-1, keepdims=True)
    return values * jax.lax.rsqrt(square + 1e-5)


def told(time: Array, dtype: Any) -> Array:
    """A time as cosines and sines, (n,) to (n, 32)."""
    half = WAVES // 2
    frequencies = _LONGEST ** (-jnp.arange(half, dtype=dtype) / half)
    angles = time.astype(dtype)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def _zero(
    fan_in: int, fan_out: int, kind: dict[str, Any], rngs: nnx.Rngs
) -> nnx.Linear:
    zeros = nnx.initializers.zeros_init()
    return nnx.Linear(fan_in, fan_out, kernel_init=zeros, rngs=rngs, **kind)
