"""Causal attention with grouped queries, over a whole sequence or a kept beginning."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int

from unlearn_jax.models.rotary import rotate
from unlearn_jax.types import Array


class Reach(NamedTuple):
    """Value: what each position may look at, and where it stands.

    A negative token is no token: it ends the run before it. A position sees the
    positions of its own run up to itself, so that padding before, after and between
    texts, and texts packed into one row, change nothing for the others.

    Attributes:
        seen: Which of the s positions each of the t looks at.
        positions: From 0 in each run.
        start: Where the run that the last position leaves open began.
    """

    seen: Bool[Array, "n t s"]
    positions: Int[Array, "n t"]
    start: Int[Array, " n"]


def reach(tokens: Int[Array, "n t"], start: Array, index: Any, length: int) -> Reach:
    """What positions ``index``, ``index + 1``, … see, of ``length`` positions.

    Args:
        tokens: Negative ones are padding.
        start: (n,), where the run open before ``index`` began; zeros at the beginning.
        index: Of the first position.
        length: How many positions there are to look at.
    """
    own = index + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
    ended = jnp.where(tokens < 0, own + 1, start[:, None])
    began = jax.lax.cummax(ended, axis=1)
    first = jnp.minimum(began, own)  # padding sees itself, so that softmax is defined
    others = jnp.arange(length, dtype=jnp.int32)[None, None, :]
    seen = (first[..., None] <= others) & (others <= own[..., None])
    return Reach(seen, own - first, began[:, -1])


class Kept(NamedTuple):
    """Value: keys and values of the positions so far, in room for ``s``."""

    keys: Float[Array, "n s g d"]
    values: Float[Array, "n s g d"]


class Attention(nnx.Module):
    """Each group of queries shares one head of keys and values.

    Kernels are (width, heads · d) and (heads · d, width), heads outermost; queries of
    one group stand next to one another.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        groups: int,
        size: int,
        base: float,
        gain: float,
        kind: dict[str, Any],
        rngs: nnx.Rngs,
    ):
        def linear(fan_in: int, fan_out: int, gain: float = 1.0) -> nnx.Linear:
            return dense(fan_in, fan_out, gain, kind, rngs)

        self.query = linear(width, heads * size)
        self.key = linear(width, groups * size)
        self.value = linear(width, groups * size)
        self.out = linear(heads * size, width, gain)
        self.shape = (groups, heads // groups, size)
        self.base = base

    def __call__(
        self, inputs: Array, reached: Reach, kept: Kept | None, index: Any
    ) -> tuple[Array, Kept | None]:
        """(n, t, width) to (n, t, width), and ``kept`` with these t positions in it."""
        groups, per_group, size = self.shape
        heads = inputs.shape[:2]
        query = self.query(inputs).reshape(*heads, groups, per_group, size)
        key = self.key(inputs).reshape(*heads, groups, size)
        value = self.value(inputs).reshape(*heads, groups, size)
        query = rotate(query, reached.positions, self.base)
        key = rotate(key, reached.positions, self.base)
        if kept is not None:
            key, value = _put(kept.keys, key, index), _put(kept.values, value, index)
            kept = Kept(key, value)
        scores = jnp.einsum("ntghd,nsgd->nghts", query * size**-0.5, key)
        wide = jnp.promote_types(scores.dtype, jnp.float32)
        seen = reached.seen[:, None, None]
        scores = jnp.where(seen, scores.astype(wide), jnp.finfo(wide).min)
        shares = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        mixed = jnp.einsum("nghts,nsgd->ntghd", shares, value)
        return self.out(mixed.reshape(*heads, -1)), kept


def dense(
    fan_in: int, fan_out: int, gain: float, kind: dict[str, Any], rngs: nnx.Rngs
) -> nnx.Linear:
    """A product without bias whose results have ``gain`` times the inputs' variance."""
    initial = nnx.initializers.variance_scaling(gain, "fan_in", "normal")
    return nnx.Linear(
        fan_in, fan_out, use_bias=False, kernel_init=initial, rngs=rngs, **kind
    )


def _put(room: Array, rows: Array, index: Any) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(
        room, rows.astype(room.dtype), index, axis=1
    )
