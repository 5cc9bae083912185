"""A small contrastive pair: images and captions in one space of directions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.models.mlp import mlp
from unlearn_jax.models.model import Model
from unlearn_jax.models.transformer import transformer
from unlearn_jax.types import Array, Variables


class Contrastive(NamedTuple):
    """Description: two towers that end in directions of one length.

    Attributes:
        picture: (n, h, w, c) to (n, d).
        text: Its ``features`` of tokens (n, t) are (n, t, d); the last is the caption.
        image_shape: (h, w, c).
        tokens: t.
        vocabulary: Words that captions are of.
    """

    picture: Model
    text: Model
    image_shape: tuple[int, int, int]
    tokens: int
    vocabulary: int

    def init(self, key: Any) -> Variables:
        """Of "picture", "text" and "scale", the log of an inverse temperature."""
        first, second = jax.random.split(key)
        parts = self.picture.init(first).params, self.text.init(second).params
        kind = jax.tree.leaves(parts)[0].dtype
        scale = jnp.log(jnp.asarray(1 / 0.07, kind))
        return Variables({"picture": parts[0], "text": parts[1], "scale": scale}, {})

    def pictured(self, variables: Variables, images: Any) -> Float[Array, "n d"]:
        """Images as directions."""
        own = Variables(variables.params["picture"], {})
        return _direction(self.picture.apply(own, images))

    def said(self, variables: Variables, tokens: Any) -> Float[Array, "n d"]:
        """Captions as directions: the last position has read all the others."""
        own = Variables(variables.params["text"], {})
        return _direction(self.text.features(own, tokens)[:, -1])


def contrastive(
    image_shape: tuple[int, int, int],
    vocabulary: int,
    *,
    tokens: int = 6,
    width: int = 32,
    widths: tuple[int, ...] = (128,),
    depth: int = 1,
    dtype: Any = jnp.float32,
) -> Contrastive:
    """A multilayer perceptron beside the library's causal transformer.

    Args:
        image_shape: (h, w, c).
        vocabulary: Words.
        tokens: Of a caption.
        width: d.
        widths: Hidden units of the tower of images.
        depth: Blocks of the tower of captions.
        dtype: Dtype of parameters and outputs.

    Raises:
        ValueError: sizes that do not fit one another.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021, arXiv 2103.00020. Differs: no projection after the towers.
    """
    return Contrastive(
        mlp(image_shape, width, widths=widths, dtype=dtype),
        transformer((tokens,), vocabulary, depth=depth, width=width, dtype=dtype),
        image_shape,
        tokens,
        vocabulary,
    )


def _direction(values: Array) -> Array:
    size = jnp.sqrt(jnp.sum(values**2, axis=-1, keepdims=True))
    return values / jnp.maximum(size, 1e-6)
