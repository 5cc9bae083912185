"""Where a sentence moves codes: a mapper trained until images are as it says."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from unlearn_jax.methods.erasing.tune import slope_of, tune
from unlearn_jax.models.adversarial import Adversarial
from unlearn_jax.models.contrastive import Contrastive
from unlearn_jax.types import Array, Params, PRNGKey, Scalar, Variables


class Reader(NamedTuple):
    """Description: who says what an image is like, and of what it is asked.

    Attributes:
        pair: Two towers, trained beforehand (``train.contrast``).
        prompt: (t,) what is to be forgotten.
        others: (r, t) what is to stay: an image that is nearer to ``prompt`` than to
            any of these is not held.
    """

    pair: Contrastive
    prompt: Int[Any, " t"]
    others: Int[Any, "r t"]


def fitted_mapper(
    key: PRNGKey,
    gan: Adversarial,
    params: Params,
    reader: Reader,
    read: Variables,
    *,
    near: float,
    steps: int,
    learning_rate: float,
    batch_size: int,
) -> Params:
    """A and b that take codes to images which the prompt describes.

    Minimises the mean of 1 − cosine to the prompt + ``near`` ‖A z + b‖².

    Args:
        key: Draws codes.
        gan: The original.
        params: Of its generator.
        reader: Pair and prompt.
        read: Variables of the pair.
        near: As above.
        steps: Of Adam.
        learning_rate: Of Adam.
        batch_size: Codes a step.
    """
    kind = jax.tree.leaves(params)[0].dtype
    size = gan.codes
    start = {"turn": jnp.zeros((size, size), kind), "move": jnp.zeros(size, kind)}

    def loss(key: Any, mapper: Any, given: Any) -> Scalar:
        params, read = given
        codes = jax.random.normal(key, (batch_size, size), kind)
        step = mapped(mapper, codes) - codes
        found = reader.pair.pictured(read, gan.images(params, codes + step))
        prompt = reader.pair.said(read, jnp.asarray(reader.prompt)[None])[0]
        far = 1 - found @ prompt + near * jnp.sum(step**2, axis=1)
        return jnp.mean(far)

    return tune(
        key,
        start,
        slope_of(loss),
        (params, read),
        moves=jax.tree.map(lambda leaf: True, start),
        steps=steps,
        learning_rate=learning_rate,
    )


def mapped(mapper: Params, codes: Float[Array, "n z"]) -> Float[Array, "n z"]:
    """Z + A z + b."""
    return codes + codes @ mapper["turn"] + mapper["move"][None]
