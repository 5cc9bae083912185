"""What flows between the blocks of a transformer, as the features of a model."""

from collections.abc import Callable
from typing import Any

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
