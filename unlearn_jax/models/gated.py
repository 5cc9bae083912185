"""A transformer whose gates pass through a function: for guards at inference."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from unlearn_jax.models.attention import dense
from unlearn_jax.models.model import Model, from_nnx
from unlearn_jax.models.transformer import Shape, Transformer
from unlearn_jax.types import Array


class Watched(nnx.Linear):
    """A linear layer with a function behind it; parameters are those of the layer."""

    change: Callable[[Array], Array]

    def __call__(self, inputs: Array, out_sharding: Any = None) -> Array:
        """(n, t, i) to (n, t, o)."""
        return self.change(super().__call__(inputs, out_sharding))


def gated(
    shape: Shape,
    changes: Mapping[int, Callable[[Array], Array]],
    *,
    dtype: Any = jnp.float32,
) -> Model:
    """The transformer of these sizes with what its gates give changed.

    Args:
        shape: With blocks in a list. Variables are those of the plain model.
        changes: Block -> function of the gate's values (n, t, hidden), before SiLU.
        dtype: As the model's.

    Raises:
        ValueError: blocks that are stacked, or none of such a number.
    """
    strange = [number for number in changes if not 0 <= number < shape.depth]
    if shape.scan or strange:
        kept = "stacked" if shape.scan else "in a list"
        raise ValueError(
            f"got changes for blocks {sorted(changes)} of {shape.depth} that are "
            f"{kept}, expected numbers below {shape.depth} of blocks in a list: build "
            "the model with scan=False"
        )

    def make(rngs: nnx.Rngs) -> Transformer:
        module = Transformer(shape, dtype, None, rngs)
        for number, change in changes.items():
            block = module.blocks[number]
            kind = {"dtype": dtype, "param_dtype": dtype}
            plain = dense(shape.width, shape.hidden, 1.0, kind, rngs)
            watched = Watched(
                shape.width, shape.hidden, use_bias=False, rngs=rngs, **kind
            )
            watched.kernel = plain.kernel
            watched.change = change
            block.gate = watched
        return module

    return from_nnx(make, context=shape.context)
