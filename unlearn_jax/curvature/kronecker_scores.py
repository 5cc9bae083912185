"""Influence scores ⟨g_q, (F + damping)⁻¹ gₙ⟩ of pairs from factored gradients."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.curvature.contractions import gram
from unlearn_jax.curvature.eigen_kronecker import rotate
from unlearn_jax.curvature.kronecker_blocks import (
    Block,
    Diagonal,
    Kronecker,
    Rotated,
    RotatedRows,
    Spectral,
    eigendecompose,
)
from unlearn_jax.curvature.kronecker_inverse import (
    block_dampings,
    check_damping,
    damped_values,
)
from unlearn_jax.curvature.per_example import (
    CACHE_BYTES,
    DEVICE_BYTES,
    Gradient,
    Gradients,
    Outer,
    Rows,
    Whole,
    example_bytes,
    loss_gradients,
)
from unlearn_jax.curvature.separable import separable_inverse
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.data.accumulate import collect, present
from unlearn_jax.train.objective import Objective
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Array, Batch, Params
from unlearn_kernels.precision import EXACT
from unlearn_kernels.target import target_platform


class Table(NamedTuple):
    """Value: (F + damping)⁻¹ g of queries in the eigenbasis of a product's block.

    Laid out for the product that contracts the longer side first: (g, longer, q,
    shorter).
    """

    values: Float[Array, "g k q m"]


class Formed(NamedTuple):
    """Value: the same, for layers with several positions."""

    values: Float[Array, "q g i o"]


class Pairs(NamedTuple):
    """Value: the same as sums of products: r terms for each query."""

    inputs: Float[Array, "g r q i"]
    slopes: Float[Array, "g r q o"]


Query: TypeAlias = Table | Formed | Pairs | Rows | Whole
Prepared: TypeAlias = tuple[Query, ...]


def prepare_queries(
    state: Kronecker, queries: Gradients, *, damping: Any, rank: int | None = None
) -> Prepared:
    """The part of the scores that depends on the queries alone.

    Args:
        state: From ``ekfac`` or ``kfac``; eigenvectors are computed if it has none.
        queries: Factored gradients of q examples, as ``loss_gradients`` gives them.
        damping: Positive, in the units of F; a tuple holds one for each block.
        rank: None: exact. Else that many terms of :func:`separable_inverse` for layers
            with one position; others stay exact.

    Returns:
        Value for :func:`score_block`.

    Raises:
        ValueError: a concrete damping that is not positive, or a rank below 1.

    Cost: exact, q i o numbers for each layer; separable, q r (i + o).
    """
    check_damping(damping, "prepare_queries")
    if rank is not None and rank < 1:
        raise ValueError(f"prepare_queries got rank={rank}, expected None or above 0")

    def one(block: Block, gradient: Gradient, damping: Any) -> Query:
        turned = rotate(block, gradient)
        if isinstance(block, Rotated) and isinstance(turned, Outer):
            if rank is not None and turned.inputs.shape[2] == 1:
                terms = separable_inverse(block.values, damping=damping, rank=rank)
                a, s = (part[:, :, 0].swapaxes(0, 1)[:, None] for part in turned)
                return Pairs(a * terms.left[:, :, None], s * terms.right[:, :, None])
            values = _formed(turned) * damped_values(block.values, damping)[None]
            if turned.inputs.shape[2] > 1:
                return Formed(values)
            wide = values.shape[2] >= values.shape[3]
            return Table(values.transpose((1, 2, 0, 3) if wide else (1, 3, 0, 2)))
        if isinstance(block, RotatedRows) and isinstance(turned, Rows):
            inverse = damped_values(block.values, damping)
            picked = inverse.at[turned.indices].get(mode="fill", fill_value=0)
            return Rows(turned.indices, turned.slopes * picked)
        if not isinstance(turned, Whole):
            raise TypeError("state and gradients come from different models")
        values = turned.values.reshape(len(turned.values), -1)
        if isinstance(block, Spectral):
            inverse = damped_values(block.values, damping)[None]
            inside = jnp.matmul(values, block.vectors, precision=EXACT) * inverse
            return Whole(jnp.matmul(inside, block.vectors.T, precision=EXACT))
        if isinstance(block, Diagonal):
            return Whole(values * damped_values(block.entries, damping)[None])
        raise TypeError("state and gradients come from different models")

    blocks = eigendecompose(state).blocks
    dampings = block_dampings(state, damping)
    return tuple(map(one, blocks, queries, dampings))


def score_block(
    state: Kronecker, prepared: Prepared, train: Gradients
) -> Float[Array, "q n"]:
    """Scores of all queries with a block of examples.

    Args:
        state: With eigenvectors, the same that the queries were prepared with.
        prepared: From :func:`prepare_queries`.
        train: Factored gradients of n examples.

    Cost: a layer with one position: exact 2 q n i o operations, separable
        2 r q n (i + o); with more, the block's gradients are formed, n i o numbers.
    """

    def one(block: Block, query: Query, gradient: Gradient) -> Array:
        turned = rotate(block, gradient)
        if isinstance(query, Pairs) and isinstance(turned, Outer):
            return _with_pairs(query, turned)
        if isinstance(query, Table) and isinstance(turned, Outer):
            return _with_table(query.values, turned)
        if isinstance(query, Formed) and isinstance(turned, Outer):
            formed = _formed(turned).reshape(len(turned.inputs), -1)
            flat = query.values.reshape(len(query.values), -1)
            return jnp.matmul(flat, formed.T, precision=EXACT)
        if isinstance(turned, Whole):
            turned = Whole(turned.values.reshape(len(turned.values), -1))
        if isinstance(query, Rows | Whole):
            return gram((query,), (turned,))
        raise TypeError("queries and gradients come from different models")

    parts = [one(*triple) for triple in zip(state.blocks, prepared, train, strict=True)]
    return sum(parts[1:], parts[0])


def influence_scores(
    state: Kronecker,
    queries: Gradients,
    train: Gradients,
    *,
    damping: Any,
    rank: int | None = None,
) -> Float[Array, "q n"]:
    """⟨g_q, (F + damping)⁻¹ gₙ⟩ for all pairs, F the matrix of ``state``.

    Args:
        state: From ``ekfac`` or ``kfac``.
        queries: Factored gradients of q examples.
        train: Of n examples.
        damping: Positive, in the units of F.
        rank: None: exact; else the terms of a separable inverse.

    Raises:
        ValueError: as :func:`prepare_queries`.

    Cost: as :func:`prepare_queries` and :func:`score_block`; for a data set take
        :func:`scores_over`.
    Source: Grosse et al. 2023, arXiv 2308.03296, eq. 28 for the exact form. Differs: no
        gradient of a training example is formed for layers with one position.
    """
    state = eigendecompose(state)
    prepared = prepare_queries(state, queries, damping=damping, rank=rank)
    return score_block(state, prepared, train)


def scores_over(
    objective: Objective,
    params: Params,
    state: Kronecker,
    queries: Batch,
    train: Batch,
    *,
    damping: Any,
    rank: int | None = None,
    batch_size: int | None = None,
) -> Float[Array, "q n"]:
    """:func:`influence_scores` of the losses of two data sets, block by block.

    Args:
        objective: Loss bound to frozen batch statistics; ``l2`` is left out.
        params: Where the gradients are taken.
        state: From ``ekfac`` or ``kfac`` there.
        queries: Held at once.
        train: Taken in blocks.
        damping: Positive, in the units of F.
        rank: None: exact; else the terms of a separable inverse.
        batch_size: Training examples at once; None takes as many as fit the cache on
            CPU, or a gigabyte elsewhere.

    Returns:
        Scores; weights scale nothing, but pairs with an example of weight zero are 0.

    Raises:
        ValueError: as :func:`prepare_queries`.
    """
    state = eigendecompose(state)
    queries = present(queries)
    _, gradients = loss_gradients(objective, params, queries)
    prepared = prepare_queries(state, gradients, damping=damping, rank=rank)
    if batch_size is None:
        batch_size = _block_size(objective, params, prepared, train)

    def block(batch: Batch, at: Params, state: Kronecker, prepared: Prepared) -> Array:
        _, found = loss_gradients(objective, at, present(batch))
        scores = score_block(state, prepared, found).T
        return jnp.where(batch.weights[:, None] > 0, scores, 0)

    train = jax.tree.map(jnp.asarray, train)
    scores = collect(block, train, params, state, prepared, batch_size=batch_size)
    return jnp.where(queries.weights[:, None] > 0, scores.T, 0)


def _block_size(
    objective: Objective, params: Params, prepared: Prepared, train: Batch
) -> int:
    """As many examples as keep their factors and partial scores within a budget."""
    size = example_bytes(tape(objective.predict, params, train.inputs))
    for query in prepared:
        if isinstance(query, Table):
            g, _, q, m = query.values.shape
            size = max(size, g * q * m * query.values.itemsize)
        elif isinstance(query, Formed):
            size = max(size, query.values[0].nbytes)
        elif isinstance(query, Pairs):
            g, r, q, _ = query.inputs.shape
            size = max(size, 2 * g * q * r * query.inputs.itemsize)
    budget = CACHE_BYTES if target_platform() == "cpu" else DEVICE_BYTES
    return max(8, min(leading_axis(train), budget // size))


def _with_pairs(query: Pairs, train: Outer) -> Array:
    """Σᵣ (aᵣ · a) (sᵣ · s)."""
    parts = []
    for ours, theirs in zip(query, train, strict=True):
        g, r, q, i = ours.shape
        moved = theirs[:, :, 0].transpose(1, 2, 0)
        parts.append(_grouped(ours.reshape(g, r * q, i), moved).reshape(g, r, q, -1))
    return jnp.sum(parts[0] * parts[1], axis=(0, 1))


def _with_table(table: Array, train: Outer) -> Array:
    """Σ table · a ⊗ s with (g, k, q, m): k the longer side, contracted first."""
    a, s = (part[:, :, 0].swapaxes(0, 1) for part in train)
    if a.shape[2] < s.shape[2]:
        a, s = s, a
    g, k, q, m = table.shape
    partial = _grouped(a, table.reshape(g, k, q * m)).reshape(g, -1, q, m)
    return jnp.sum(partial * s[:, :, None], axis=(0, 3)).T


def _grouped(left: Array, right: Array) -> Array:
    """Products of the groups' matrices; XLA computes a batch of one poorly on CPU."""
    if len(left) == 1:
        return jnp.matmul(left[0], right[0], precision=EXACT)[None]
    return jnp.matmul(left, right, precision=EXACT)


def _formed(gradient: Outer) -> Array:
    return jnp.einsum("ngti,ngto->ngio", *gradient, precision=EXACT)
