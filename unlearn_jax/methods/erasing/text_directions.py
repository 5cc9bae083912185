"""Text-to-Unlearn: a generator without labels forgets what a sentence names."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.methods.erasing.text_mapper import Reader, fitted_mapper, mapped
from unlearn_jax.methods.erasing.tune import slope_of, tune
from unlearn_jax.models.adversarial import Adversarial
from unlearn_jax.options import check_number, checked
from unlearn_jax.types import Array, Params, PRNGKey, Scalar, Variables


class Weights(NamedTuple):
    """Description: of the three terms of :func:`turned`.

    Attributes:
        direction: Of 1 + cosine to the reference.
        instead: Of the pixels of edited codes, towards what the code alone gave.
        stay: Of the pixels of codes as they are.
    """

    direction: float = 1.0
    instead: float = 10.0
    stay: float = 10.0


WEIGHTS = Weights()


@checked()
def text_to_unlearn(
    key: PRNGKey,
    gan: Adversarial,
    variables: Variables,
    reader: Reader,
    read: Variables,
    *,
    weights: Weights = WEIGHTS,
    near: float = 0.02,
    mapper_steps: int = 300,
    mapper_rate: float = 1e-2,
    steps: int = 500,
    learning_rate: float = 3e-4,
    batch_size: int = 64,
) -> Variables:
    """Learn where a sentence moves codes, then draw as if they had not been moved.

    A mapper z → z + A z + b is trained so that the original's images of moved codes are
    as the sentence says. The mean move of these images' directions is the reference;
    the generator is tuned until moved codes no longer go along it.

    Args:
        key: Draws codes.
        gan: Its critic is neither read nor moved.
        variables: Of the original.
        reader: The pair and what it is asked.
        read: Variables of the pair.
        weights: Of the loss.
        near: Weight of ‖A z + b‖² in the mapper's loss.
        mapper_steps: Of Adam, on the mapper.
        mapper_rate: Of that Adam.
        steps: Of Adam, on the generator.
        learning_rate: Of that one.
        batch_size: Codes a step.

    Raises:
        ValueError: no steps, a weight below 0.

    Cost: two images a code and step, and their way through the tower.
    Source: arXiv 2504.01218, as its abstract and its reviews tell it; no code was
        released. A re-creation of the mechanism: codes are moved where the paper moves
        those of StyleGAN2 by StyleCLIP's mapper, all of the generator is tuned and not
        its mapping network alone, and pixels hold where theirs are perceptual and
        identity losses. Differs: images that already are what the sentence names are
        not held.
    """
    for name, value in weights._asdict().items():
        check_number(name, value, least=0.0)
    first, second, third = jax.random.split(key, 3)
    home = variables.params["generator"]
    mapper = fitted_mapper(
        first,
        gan,
        home,
        reader,
        read,
        near=near,
        steps=mapper_steps,
        learning_rate=mapper_rate,
        batch_size=batch_size,
    )
    kind = mapper["move"].dtype
    codes = jax.random.normal(second, (8 * batch_size, gan.codes), kind)
    way = jnp.mean(went(gan, home, home, mapper, reader, read, codes), axis=0)

    def loss(key: Any, own: Any, given: Any) -> Scalar:
        home, mapper, read, way = given
        codes = jax.random.normal(key, (batch_size, gan.codes), kind)
        return turned(gan, own, home, mapper, reader, read, way, codes, weights)

    moved = tune(
        third,
        home,
        slope_of(loss),
        (home, mapper, read, way),
        moves=jax.tree.map(lambda leaf: True, home),
        steps=steps,
        learning_rate=learning_rate,
    )
    return variables._replace(params={**variables.params, "generator": moved})


def went(
    gan: Adversarial,
    own: Params,
    home: Params,
    mapper: Params,
    reader: Reader,
    read: Variables,
    codes: Float[Array, "n z"],
) -> Float[Array, "n d"]:
    """From the original's image of a code to a generator's of the moved code."""
    moved, plain = gan.images(own, mapped(mapper, codes)), gan.images(home, codes)
    return reader.pair.pictured(read, moved) - reader.pair.pictured(read, plain)


def turned(
    gan: Adversarial,
    own: Params,
    home: Params,
    mapper: Params,
    reader: Reader,
    read: Variables,
    way: Float[Array, " d"],
    codes: Float[Array, "n z"],
    weights: Weights,
) -> Scalar:
    """Moved codes not along the reference, and pixels where they were.

    Args:
        gan: Both generators.
        own: Parameters of the one that is tuned.
        home: Of the original.
        mapper: From :func:`fitted_mapper`.
        reader: Pair, prompt and others.
        read: Variables of the pair.
        way: The reference.
        codes: Of this step.
        weights: Of the three terms.
    """
    plain = gan.images(home, codes)
    seen = reader.pair.pictured(read, plain)
    texts = [jnp.asarray(reader.prompt)[None], jnp.asarray(reader.others)]
    near = seen @ reader.pair.said(read, jnp.concatenate(texts)).T
    held = (jnp.max(near[:, 1:], axis=1) > near[:, 0]).astype(plain.dtype)
    moved = gan.images(own, mapped(mapper, codes))
    step = reader.pair.pictured(read, moved) - seen
    size = jnp.sqrt(jnp.sum(step**2, axis=1) + 1e-8) * jnp.linalg.norm(way)
    along = (step @ way) / jnp.maximum(size, 1e-8)

    def apart(images: Array) -> Scalar:
        gaps = jnp.mean((images - plain) ** 2, axis=(1, 2, 3))
        return jnp.sum(held * gaps) / jnp.maximum(jnp.sum(held), 1)

    return (
        weights.direction * jnp.mean(1 + along)
        + weights.instead * apart(moved)
        + weights.stay * apart(gan.images(own, codes))
    )
