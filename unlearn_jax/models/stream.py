"""What flows between the blocks of a transformer, as the features of a model."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.models.model import from_nnx
from unlearn_jax.models.transformer import Shape, Transformer
from unlearn_jax.types import Array, Variables


class Stream(Transformer):
    """A transformer whose features are not normalised."""

    normalised = False


def stream(
    shape: Shape, block: int, *, dtype: Any = jnp.float32
) -> Callable[[Variables, Any], Array]:
    """``(variables, inputs (n, t)) -> (n, t, width)``, the stream behind a block.

    It is the sum of what all blocks so far have added, the last of them by its kernel
    ``blocks/<block>/down/kernel``: affine in that one. As ``model._replace(features=
    stream(shape, block))`` it tells ``rmu`` and ``rmu_ridge`` where to work.

    Args:
        shape: Of the model, which keeps its blocks in a list.
        block: Number, from 0.
        dtype: As the model's.

    Raises:
        ValueError: blocks that are stacked, or no such block.

    Cost: the blocks up to that one.
    """
    if shape.scan or not 0 <= block < shape.depth:
        kept = "stacked" if shape.scan else "in a list"
        raise ValueError(
            f"stream was asked for block {block} of {shape.depth} that are {kept}, "
            f"expected a number from 0 to {shape.depth - 1} of blocks in a list: build "
            "the model with scan=False (models.stacking.unstack_blocks)"
        )
    count = block + 1
    shallow = shape._replace(depth=count)
    model = from_nnx(lambda rngs: Stream(shallow, dtype, None, rngs))

    def features(variables: Variables, inputs: Any) -> Array:
        blocks = variables.params["blocks"]
        own = {number: blocks[number] for number in range(count)}
        params = {**variables.params, "blocks": own}
        return model.features(variables._replace(params=params), inputs)

    return features


def below(shape: Shape, *, dtype: Any = jnp.float32) -> Callable[[Variables, Any], Any]:
    """``(variables, tokens (n, t)) -> (n, t, width + 1)``, what frozen blocks compute.

    It is the stream in front of the first block whose gradient is taken, and behind it
    the token itself, which says what is padding. The model takes it instead of tokens
    and gives the same outputs without running the frozen blocks: what is read many
    times goes through them once. What makes tokens of tokens, such as other answers,
    needs the tokens.

    Args:
        shape: Of the model, with ``frozen`` blocks.
        dtype: As the model's.

    Raises:
        ValueError: no block is frozen, or more tokens than numbers of this kind tell
            apart.

    Cost: the frozen blocks; (width + 1) numbers in the place of each token.
    """
    known = 2 ** (jnp.finfo(dtype).nmant + 1)
    if not shape.frozen or shape.vocabulary > known:
        raise ValueError(
            f"below was asked for {shape.frozen} frozen blocks and {shape.vocabulary} "
            f"tokens in {jnp.dtype(dtype)}, expected at least 1 and at most {known}: "
            "read the model with trained=..., in float32"
        )
    shallow = shape._replace(depth=shape.frozen, frozen=0, remat=False)
    model = from_nnx(lambda rngs: Stream(shallow, dtype, None, rngs))

    def run(variables: Variables, inputs: Any) -> Array:
        first = lambda leaf: leaf[: shape.frozen]  # noqa: E731
        blocks = jax.tree.map(first, variables.params["blocks"])
        params = {**variables.params, "blocks": blocks}
        values = model.features(variables._replace(params=params), inputs)
        tokens = jnp.asarray(inputs)[..., None].astype(values.dtype)
        return jnp.concatenate([values, tokens], axis=-1)

    return run
