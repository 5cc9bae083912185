"""A transformer that is left between two blocks, and gone on with from there."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from unlearn_jax.models.attention import reach
from unlearn_jax.models.model import from_nnx
from unlearn_jax.models.stream import stream
from unlearn_jax.models.transformer import Shape, Transformer
from unlearn_jax.types import Array, Variables


class Between(NamedTuple):
    """Description: a transformer in two parts.

    Attributes:
        read: ``(variables, tokens (n, t)) -> values (n, t, d)``, the stream behind a
            block.
        resume: ``(variables, tokens, values) -> features (n, t, d)``, what the blocks
            after it and the last normalisation make of that.
    """

    read: Callable[[Variables, Any], Array]
    resume: Callable[[Variables, Any, Any], Array]


class Rest(Transformer):
    """A transformer whose features begin behind a block, at values that are given."""

    def __init__(self, shape: Shape, done: int, dtype: Any, rngs: nnx.Rngs):
        super().__init__(shape, dtype, None, rngs)
        self.done = done

    def features(self, inputs: Any, *, rngs: nnx.Rngs | None = None) -> Array:
        """A dict of tokens (n, t) and values (n, t, width) to (n, t, width)."""
        del rngs
        tokens, values = inputs["tokens"], inputs["values"]
        start = jnp.zeros(len(tokens), jnp.int32)
        reached = reach(tokens, start, 0, tokens.shape[1])
        for number, block in enumerate(self.blocks):
            if number >= self.done:
                values, _ = block(values, reached, None, 0)
        return self.norm(values)


def between(shape: Shape, block: int, *, dtype: Any = jnp.float32) -> Between:
    """A transformer that is left behind a block: with ``read``, then ``resume``, whole.

    The parameters are those of the transformer, as they are.

    Args:
        shape: Of the model, which keeps its blocks in a list.
        block: Number, from 0.
        dtype: As the model's.

    Raises:
        ValueError: blocks that are stacked, or no such block.

    Cost: both together, that of ``features``.
    """
    read = stream(shape, block, dtype=dtype)
    model = from_nnx(lambda rngs: Rest(shape, block + 1, dtype, rngs))

    def resume(variables: Variables, tokens: Any, values: Any) -> Array:
        return model.features(variables, {"tokens": tokens, "values": values})

    return Between(read, resume)
