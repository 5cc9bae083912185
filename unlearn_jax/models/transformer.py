"""A decoder-only transformer of Llama's kind, from ten thousand parameters up."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Int

from unlearn_jax.models.attention import Attention, Kept, Reach, dense, reach
from unlearn_jax.models.model import Model, from_nnx
from unlearn_jax.types import Array


class Shape(NamedTuple):
    """Description: sizes; :func:`transformer` says which is which.

    ``frozen`` are blocks from the bottom, of stacked ones, whose gradients are not
    taken: those of their parameters, of adapters on them, and of the embedding as what
    is read are zero, and cost nothing. What they compute may be given instead of tokens
    (``stream.below``), and they are not run then.
    """

    vocabulary: int
    context: int
    depth: int
    width: int
    heads: int
    groups: int
    size: int
    hidden: int
    tied: bool = True
    base: float = 10_000.0
    epsilon: float = 1e-5
    scan: bool = False
    remat: bool = False
    frozen: int = 0


class Cache(NamedTuple):
    """Value: what the positions so far leave to those after them.

    Attributes:
        kept: Keys and values of all blocks, (depth, n, s, groups, size).
        start: Where the run of tokens that is still open began, in each row.
        used: How many positions are in it.
    """

    kept: Kept
    start: Int[Array, " n"]
    used: Int[Array, ""]


class Block(nnx.Module):
    """Attention, then a gated product (SwiGLU), each on normalised inputs."""

    def __init__(self, shape: Shape, kind: dict[str, Any], rngs: nnx.Rngs):
        # So that the sum over all blocks has one size at any depth.
        s, gain = shape, 0.5 / shape.depth
        self.before_attention = _norm(s, kind, rngs)
        sizes = (s.width, s.heads, s.groups, s.size)
        self.attention = Attention(*sizes, s.base, gain, kind, rngs)
        self.before_mlp = _norm(s, kind, rngs)
        self.gate = dense(s.width, s.hidden, 1.0, kind, rngs)
        self.up = dense(s.width, s.hidden, 1.0, kind, rngs)
        self.down = dense(s.hidden, s.width, gain, kind, rngs)

    def __call__(
        self, values: Array, reached: Reach, kept: Kept | None, index: Any
    ) -> tuple[Array, Kept | None]:
        """(n, t, width) to (n, t, width), and what is kept of these positions."""
        mixed, kept = self.attention(
            self.before_attention(values), reached, kept, index
        )
        values = values + mixed
        normal = self.before_mlp(values)
        hidden = jax.nn.silu(self.gate(normal)) * self.up(normal)
        return values + self.down(hidden), kept


class Transformer(nnx.Module):
    """Embedding, blocks, a last normalisation, and a head that may be the embedding."""

    normalised = True

    def __init__(self, shape: Shape, dtype: Any, compute_dtype: Any, rngs: nnx.Rngs):
        kind = {"dtype": compute_dtype or dtype, "param_dtype": dtype}
        normal = nnx.initializers.normal(shape.width**-0.5)
        self.tokens = nnx.Embed(
            shape.vocabulary, shape.width, embedding_init=normal, rngs=rngs, **kind
        )
        keys = jax.random.split(rngs.params(), shape.depth)

        def block(key: Any) -> Block:
            return Block(shape, kind, nnx.Rngs(params=key))

        self.blocks: Any = (
            nnx.vmap(block)(keys)
            if shape.scan
            else nnx.List([block(key) for key in keys])
        )
        self.norm = _norm(shape, kind, rngs)
        if not shape.tied:
            self.head = dense(shape.width, shape.vocabulary, 1.0, kind, rngs)
        self.shape, self.dtype = shape, dtype

    def features(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """(n, t) tokens to (n, t, width), the input of the head."""
        del rngs
        start = jnp.zeros(inputs.shape[0], jnp.int32)
        return self._through(inputs, start, None, 0)[0]

    def __call__(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """(n, t) tokens to (n, t, vocabulary)."""
        return self._read_out(self.features(inputs, rngs=rngs))

    def extend(self, cache: Cache, inputs: Array) -> tuple[Array, Cache]:
        """Outputs of the next t tokens, and the cache with them in it."""
        features, start, kept = self._through(
            inputs, cache.start, cache.kept, cache.used
        )
        used = cache.used + inputs.shape[1]
        return self._read_out(features), Cache(kept, start, used)

    def _read_out(self, features: Array) -> Array:
        read = self.tokens.attend if self.shape.tied else self.head
        return read(features).astype(self.dtype)

    def _through(
        self, inputs: Array, start: Array, kept: Any, index: Any
    ) -> tuple[Array, Array, Any]:
        self._check(inputs)
        below = jnp.issubdtype(inputs.dtype, jnp.floating)
        tokens = inputs[..., -1].astype(jnp.int32) if below else inputs
        length = tokens.shape[1] if kept is None else kept.keys.shape[2]
        reached = reach(tokens, start, index, length)
        values = inputs[..., :-1] if below else self.tokens(jnp.maximum(tokens, 0))

        def step(block: Any, values: Array, kept: Any) -> tuple[Array, Any]:
            return block(values, reached, kept, index)

        if self.shape.scan:
            graph, state = nnx.split(self.blocks)

            def body(values: Array, one: Any) -> tuple[Array, Any]:
                return step(nnx.merge(graph, one[0]), values, one[1])

            body = jax.checkpoint(body) if self.shape.remat else body
            if self.shape.frozen:
                values, kept = self._frozen(body, values, (state, kept), below)
            else:
                values, kept = jax.lax.scan(body, values, (state, kept))
        else:
            values, kept = self._unrolled(step, values, kept)
        features = self.norm(values) if self.normalised else values
        return features, reached.start, kept

    def _frozen(
        self, body: Any, values: Array, stacked: Any, below: bool
    ) -> tuple[Array, Any]:
        """Two loops, and no gradient of the first, which ``below`` has been run."""
        at = self.shape.frozen
        lower, upper = (
            jax.tree.map(lambda leaf, own=own: leaf[own], stacked)
            for own in (slice(at), slice(at, None))
        )
        if below:  # Of whole sequences: nothing is kept.
            return jax.lax.scan(body, jax.lax.stop_gradient(values), upper)
        still = jax.lax.stop_gradient((values, lower))
        values, first = jax.lax.scan(body, *still)
        values, last = jax.lax.scan(body, jax.lax.stop_gradient(values), upper)
        return values, jax.tree.map(lambda *own: jnp.concatenate(own), first, last)

    def _unrolled(self, step: Any, values: Array, kept: Any) -> tuple[Array, Any]:
        parts = []
        for at, block in enumerate(self.blocks):
            graph, state = nnx.split(block)

            def one(state: Any, values: Array, own: Any, graph: Any = graph) -> Any:
                return step(nnx.merge(graph, state), values, own)

            one = jax.checkpoint(one) if self.shape.remat else one
            own = jax.tree.map(lambda leaf: leaf[at], kept)  # noqa: B023
            values, own = one(state, values, own)
            parts.append(own)
        if kept is not None:
            kept = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
        return values, kept

    def _check(self, inputs: Array) -> None:
        whole = jnp.issubdtype(inputs.dtype, jnp.signedinteger) and inputs.ndim == 2
        below = self.shape.frozen and inputs.dtype == self.dtype and inputs.ndim == 3
        if not (whole or (below and inputs.shape[2] == self.shape.width + 1)):
            raise ValueError(
                f"the transformer takes tokens (n, t) as signed integers, got "
                f"{inputs.dtype}{list(inputs.shape)}; give int32, padding below zero, "
                f"or over frozen blocks what stream.below makes of that"
            )
        if inputs.shape[1] > self.shape.context:
            raise ValueError(
                f"the sequences have {inputs.shape[1]} tokens and the context is "
                f"{self.shape.context}; cut them, or build the model with a longer "
                f"context"
            )


def transformer(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    depth: int = 2,
    width: int = 64,
    heads: int = 4,
    groups: int | None = None,
    size: int | None = None,
    hidden: int | None = None,
    context: int | None = None,
    tied: bool = True,
    base: float = 10_000.0,
    epsilon: float = 1e-5,
    scan: bool = False,
    remat: bool = False,
    dtype: Any = jnp.float32,
    compute_dtype: Any = None,
) -> Model:
    """Decoder-only transformer: the next token from those before it.

    Normalisation before each part (RMSNorm), rotary positions, grouped queries, a gated
    product with SiLU (SwiGLU), no biases: the architecture of Llama, whose published
    weights ``train.llama`` brings into this form. Inputs are tokens (n, t);
    outputs (n, t, vocabulary), at position s the logits of the token that follows it.
    A negative token is none: it ends a text, is seen by no other position, and the
    positions after it count from 0 again.

    Args:
        input_shape: (t,), the length of the sequences.
        outputs: Tokens of the vocabulary.
        depth: Blocks.
        width: Numbers at each position between blocks.
        heads: Of the queries.
        groups: Heads of keys and values, a divisor of ``heads``; None: as many.
        size: Numbers in a head, even; None: ``width / heads``.
        hidden: Units of the gated product; None: 8/3 of the width, rounded up to a
            multiple of 8.
        context: The longest sequence that is taken; None: ``t``.
        tied: The embedding is also the head.
        base: Of the wavelengths of the rotary positions.
        epsilon: Added to the mean square that RMSNorm divides by.
        scan: Keep the blocks' parameters stacked, (depth, …), and run over them in one
            loop: compiled once, whatever the depth. The numbers are the same.
        remat: Compute each block once more on the way back instead of keeping what it
            held: less memory, a third more time.
        dtype: Dtype of parameters and outputs.
        compute_dtype: Dtype of the arithmetic in between; None takes ``dtype``.

    Raises:
        ValueError: sizes that do not fit one another.
    """
    groups = heads if groups is None else groups
    size = width // max(heads, 1) if size is None else size
    hidden = 8 * -(-width // 3) if hidden is None else hidden
    if len(input_shape) != 1:
        raise ValueError(
            f"transformer needs sequences of shape (tokens,), got examples of shape "
            f"{input_shape}; use the cnn for images"
        )
    context = input_shape[0] if context is None else context
    sizes = (outputs, context, depth, width, heads, groups, size, hidden)
    shape = Shape(*sizes, tied, base, epsilon, scan, remat)
    return of_shape(shape, dtype=dtype, compute_dtype=compute_dtype)


def of_shape(
    shape: Shape, *, dtype: Any = jnp.float32, compute_dtype: Any = None
) -> Model:
    """:func:`transformer` with all sizes in one value.

    Args:
        shape: As :func:`transformer` describes them.
        dtype: Dtype of parameters and outputs.
        compute_dtype: Dtype of the arithmetic in between; None takes ``dtype``.

    Raises:
        ValueError: sizes that do not fit one another.
    """
    _check_sizes(shape)
    make = lambda rngs: Transformer(shape, dtype, compute_dtype, rngs)  # noqa: E731

    def empty(rows: int, length: int) -> Cache:
        room = (shape.depth, rows, length, shape.groups, shape.size)
        zeros = jnp.zeros(room, compute_dtype or dtype)
        start = jnp.zeros(rows, jnp.int32)
        return Cache(Kept(zeros, zeros), start, jnp.zeros((), jnp.int32))

    return from_nnx(make, empty=empty, context=shape.context)


def _check_sizes(shape: Shape) -> None:
    names = ("vocabulary", "context", "depth", "width", "heads", "groups", "size")
    small = [name for name in (*names, "hidden") if getattr(shape, name) < 1]
    if small or shape.heads % max(shape.groups, 1) or shape.size % 2:
        raise ValueError(
            f"the transformer got vocabulary {shape.vocabulary}, context "
            f"{shape.context}, depth {shape.depth}, width {shape.width}, heads "
            f"{shape.heads}, groups {shape.groups}, size of a head {shape.size}, "
            f"hidden {shape.hidden}; expected at least 1 of each, heads a multiple of "
            f"groups, and an even size"
        )
    if shape.frozen and not (shape.scan and 0 < shape.frozen < shape.depth):
        raise ValueError(
            f"{shape.frozen} of {shape.depth} blocks are to be frozen (scan is "
            f"{shape.scan}), expected fewer than there are, of stacked ones: take "
            f"scan=True, or leave them to a restricted method"
        )


def _norm(shape: Shape, kind: dict[str, Any], rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(shape.width, epsilon=shape.epsilon, rngs=rngs, **kind)
