"""A masked autoencoder: from the patches that are seen to those that are not."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from unlearn_jax.models.attention import Reach, dense
from unlearn_jax.models.model import Model, from_nnx
from unlearn_jax.models.patches import cut, joined_up
from unlearn_jax.models.transformer import Block, Shape
from unlearn_jax.types import Array, Variables


class Masked(NamedTuple):
    """Description: an encoder of seen patches and a decoder of all.

    Attributes:
        model: Both as one model. Inputs are a dict of "image" (n, h, w, c) and "seen"
            (n, p), whether a patch is; outputs are images, (n, h·w·c), the seen patches
            as they are: half the squared distance to the image is the loss on what is
            hidden.
        encode: ``(variables, inputs) -> codes (n, p, k)``; those of hidden patches are
            never read.
        inner: ``(variables, inputs) -> (n, p, d)``: what the encoder's last map reads.
        decode: ``(variables, codes, seen) -> pixels (n, h·w·c)``.
        image_shape: (h, w, c).
        patch: Pixels along a side of one.
    """

    model: Model
    encode: Callable[[Any, Any], Any]
    inner: Callable[[Any, Any], Any]
    decode: Callable[[Any, Any, Any], Any]
    image_shape: tuple[int, int, int]
    patch: int

    @property
    def patches(self) -> int:
        """P."""
        height, width, _ = self.image_shape
        return (height // self.patch) * (width // self.patch)


class _Half(nnx.Module):
    """Maps in, places, blocks in which nobody looks at what is hidden, map out."""

    def __init__(
        self, sizes: tuple[int, int, int], s: Shape, kind: dict[str, Any], rngs: Any
    ):
        count, fan_in, fan_out = sizes
        self.into = nnx.Linear(fan_in, s.width, rngs=rngs, **kind)
        drawn = jax.random.normal(rngs.params(), (count, s.width), kind["dtype"])
        self.places = nnx.Param(0.02 * drawn)
        self.blocks = nnx.List([Block(s, kind, rngs) for _ in range(s.depth)])
        self.norm = nnx.RMSNorm(s.width, rngs=rngs, **kind)
        self.head = dense(s.width, fan_out, 1.0, kind, rngs)

    def features(self, inputs: Any, *, rngs: nnx.Rngs | None = None) -> Array:
        """A dict of "rows" (n, p, i) and "read" (n, p) to (n, p, width)."""
        del rngs
        rows, read = inputs["rows"], inputs["read"]
        n, count, _ = rows.shape
        values = self.into(rows) + self.places[...][None]
        places = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), (n, count))
        looks = jnp.broadcast_to(read[:, None, :], (n, count, count))
        reached = Reach(looks, places, jnp.zeros(n, jnp.int32))
        for block in self.blocks:
            values, _ = block(values, reached, None, 0)
        return self.norm(values)

    def __call__(self, inputs: Any, *, rngs: nnx.Rngs | None = None) -> Array:
        """To (n, p, o)."""
        return self.head(self.features(inputs, rngs=rngs))


def masked_autoencoder(
    image_shape: tuple[int, int, int],
    *,
    patch: int = 2,
    width: int = 48,
    codes: int = 32,
    depth: int = 2,
    decoder_depth: int = 1,
    heads: int = 4,
    dtype: Any = jnp.float32,
) -> Masked:
    """Transformers of patches; the encoder ends in a product without bias.

    Args:
        image_shape: (h, w, c), sides that ``patch`` divides.
        patch: Pixels along a side of a patch.
        width: Numbers at each position, of both halves.
        codes: k, of a seen patch.
        depth: Blocks of the encoder.
        decoder_depth: Blocks of the decoder.
        heads: Of attention.
        dtype: Dtype of parameters and outputs.

    Raises:
        ValueError: sizes that do not fit one another.

    Source: He et al., Masked Autoencoders Are Scalable Vision Learners, 2022. Differs:
        the encoder keeps all positions and looks at seen ones alone, which is the same
        function of these and costs a small image little.
    """
    height, wide, channels = image_shape
    least = min(*image_shape, patch, width, depth, decoder_depth, heads, codes)
    if least < 1 or height % patch or wide % patch or width % (2 * heads):
        raise ValueError(
            f"got images {image_shape}, patches of {patch}, width {width}, {codes} "
            f"codes and {heads} heads; expected sides that are multiples of the patch "
            "and a width that is one of twice the heads"
        )
    kind = {"dtype": dtype, "param_dtype": dtype}
    count = (height // patch) * (wide // patch)
    pixels = patch * patch * channels

    def half(fan_in: int, fan_out: int, depth: int) -> Model:
        size = width // heads
        shape = Shape(1, count, depth, width, heads, heads, size, 2 * width)
        sizes = (count, fan_in, fan_out)
        return from_nnx(lambda rngs: _Half(sizes, shape, kind, rngs))

    encoder, decoder = (
        half(pixels, codes, depth),
        half(codes + 1, pixels, decoder_depth),
    )

    def part(variables: Variables, name: str) -> Variables:
        return Variables(variables.params[name], variables.stats)

    def init(key: Any) -> Variables:
        first, second = jax.random.split(key)
        parts = {"encoder": encoder.init(first), "decoder": decoder.init(second)}
        return Variables({name: each.params for name, each in parts.items()}, {})

    def visible(inputs: Any) -> dict[str, Array]:
        seen = jnp.asarray(inputs["seen"])
        rows = cut(jnp.asarray(inputs["image"], dtype), patch)
        # What is hidden is masked before anything reads it.
        return {"rows": jnp.where(seen[:, :, None], rows, 0), "read": seen}

    def encode(variables: Variables, inputs: Any) -> Array:
        return encoder.apply(part(variables, "encoder"), visible(inputs))

    def inner(variables: Variables, inputs: Any) -> Array:
        return encoder.features(part(variables, "encoder"), visible(inputs))

    def decode(variables: Variables, codes: Any, seen: Any) -> Array:
        told = seen[:, :, None].astype(codes.dtype)
        rows = jnp.concatenate([codes * told, told], axis=2)
        inputs = {"rows": rows, "read": jnp.ones_like(seen)}
        made = decoder.apply(part(variables, "decoder"), inputs)
        return joined_up(made, image_shape, patch)

    def apply(variables: Variables, inputs: Any) -> Array:
        seen = jnp.asarray(inputs["seen"])
        made = decode(variables, encode(variables, inputs), seen)
        image = jnp.asarray(inputs["image"], dtype)
        shown = jnp.repeat(seen[:, :, None], pixels, axis=2)
        flat = joined_up(shown, image_shape, patch)
        return jnp.where(flat, image.reshape(len(image), -1), made)

    def apply_train(key: Any, variables: Variables, inputs: Any) -> Any:
        del key
        return apply(variables, inputs), variables

    model = Model(init, apply, apply_train, inner)
    return Masked(model, encode, inner, decode, image_shape, patch)
