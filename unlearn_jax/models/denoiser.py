"""A model that predicts noise from a noisy image, a time and a text."""

from collections.abc import Callable
from typing import Any, NamedTuple

from unlearn_jax.models.model import Model
from unlearn_jax.types import Path


class Denoiser(NamedTuple):
    """Description: a text encoder and a network that reads its embeddings.

    Attributes:
        model: Both as one model. Inputs are a dict of "image" (n, h, w, c), "time" (n,)
            integers and "tokens" (n, t); outputs the noise, (n, h·w·c), so that half
            its squared distance from the true noise is ``squared_error``, and every
            curvature of the library is one of the diffusion loss.
        encode: ``(variables, tokens (n, t)) -> text (n, t, d)``.
        denoise: ``(variables, image, time, text) -> noise (n, h·w·c)``: what ``model``
            does once the text is encoded. Samplers encode once; guards and attacks
            give embeddings that no tokens have.
        reads_text: Which parameters are the maps without bias that the embeddings
            enter by, and by nothing else; none where a model has no such maps.
        image_shape: (h, w, c).
        tokens: t of a caption.
    """

    model: Model
    encode: Callable[[Any, Any], Any]
    denoise: Callable[[Any, Any, Any, Any], Any]
    reads_text: Callable[[Path], bool]
    image_shape: tuple[int, int, int]
    tokens: int
