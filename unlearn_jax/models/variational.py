"""A conditional variational autoencoder: an image and its label to a code and back."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.models.mlp import mlp
from unlearn_jax.models.model import Model
from unlearn_jax.options import check_whole
from unlearn_jax.types import Array, Variables


class Variational(NamedTuple):
    """Description: an encoder and a decoder that read a label beside their input.

    Attributes:
        model: Both as one model. Inputs are a dict of "image" (n, h, w, c), "label"
            (n,) integers and "noise" (n, z), standard normal; outputs are (n, p + 2 z):
            p = h·w·c logits of pixels being white, the means of the code, the
            logarithms of its variances.
        encode: ``(variables, image, label) -> (means, logs)``, (n, z) each.
        decode: ``(variables, code (n, z), label (n,)) -> logits (n, p)``.
        image_shape: (h, w, c).
        classes: Labels that there are.
        codes: z.
    """

    model: Model
    encode: Callable[[Any, Any, Any], Any]
    decode: Callable[[Any, Any, Any], Any]
    image_shape: tuple[int, int, int]
    classes: int
    codes: int


def variational(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    codes: int = 8,
    widths: tuple[int, ...] = (512, 256),
    dtype: Any = jnp.float32,
) -> Variational:
    """Two multilayer perceptrons with the code between them.

    Args:
        image_shape: (h, w, c) of images from -1 to 1.
        classes: Labels that there are; an embedding of zeros tells none.
        codes: z.
        widths: Hidden units of the encoder; the decoder has them the other way round.
        dtype: Dtype of parameters and outputs.

    Raises:
        ValueError: no class, no code, no pixel.

    Source: Kingma and Welling 2014; sizes as Selective Amnesia (Heng and Soh 2023,
        arXiv 2305.10120) has them for MNIST, 794-512-256-8 and back.
    """
    check_whole("classes", classes)
    check_whole("codes", codes)
    for side in image_shape:
        check_whole("a side of image_shape", side)
    height, wide, channels = image_shape
    pixels = height * wide * channels
    kind: dict[str, Any] = {"dtype": dtype}
    encoder = mlp((pixels + classes,), 2 * codes, widths=widths, **kind)
    decoder = mlp((codes + classes,), pixels, widths=widths[::-1], **kind)

    def part(variables: Variables, name: str) -> Variables:
        return Variables(variables.params[name], variables.stats)

    def beside(values: Array, label: Any) -> Array:
        told = jax.nn.one_hot(label, classes, dtype=dtype)
        return jnp.concatenate([values.reshape(len(told), -1), told], axis=1)

    def init(key: Any) -> Variables:
        first, second = jax.random.split(key)
        parts = {"encoder": encoder.init(first), "decoder": decoder.init(second)}
        return Variables({name: each.params for name, each in parts.items()}, {})

    def encode(variables: Variables, image: Any, label: Any) -> Any:
        seen = beside(jnp.asarray(image, dtype), label)
        told = encoder.apply(part(variables, "encoder"), seen)
        means, logs = jnp.split(told, 2, axis=1)
        return means, logs

    def decode(variables: Variables, code: Any, label: Any) -> Array:
        seen = beside(jnp.asarray(code, dtype), label)
        return decoder.apply(part(variables, "decoder"), seen)

    def coded(variables: Variables, inputs: Any) -> Any:
        means, logs = encode(variables, inputs["image"], inputs["label"])
        code = means + jnp.exp(0.5 * logs) * inputs["noise"].astype(means.dtype)
        return means, logs, code

    def apply(variables: Variables, inputs: Any) -> Array:
        means, logs, code = coded(variables, inputs)
        logits = decode(variables, code, inputs["label"])
        return jnp.concatenate([logits, means, logs], axis=1)

    def apply_train(key: Any, variables: Variables, inputs: Any) -> Any:
        del key
        return apply(variables, inputs), variables

    def features(variables: Variables, inputs: Any) -> Array:
        code = coded(variables, inputs)[2]
        seen = beside(code, inputs["label"])
        return decoder.features(part(variables, "decoder"), seen)

    model = Model(init, apply, apply_train, features)
    return Variational(model, encode, decode, image_shape, classes, codes)
