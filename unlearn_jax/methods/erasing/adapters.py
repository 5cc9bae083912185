"""Adapters of rank one beside the maps of the blocks, in by how much they apply."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from unlearn_jax import tree
from unlearn_jax.types import Array, Params, Path, Variables


class Adapter(NamedTuple):
    """Value: for each kernel W (i, o), by its path, W + m · inner outerᵀ.

    Attributes:
        inner: (i,) each: what is read.
        outer: (o,) each: what is written.
    """

    inner: dict[str, Float[Array, " i"]]
    outer: dict[str, Float[Array, " o"]]


def blank(key: Any, variables: Variables) -> Adapter:
    """An adapter for every matrix in the network's blocks that changes nothing yet.

    Args:
        key: Draws what is read, of norm 1; what is written is zero.
        variables: Of a denoiser.
    """
    inner, outer = {}, {}
    for number, (name, leaf) in enumerate(_kernels(variables.params).items()):
        drawn = jax.random.normal(
            jax.random.fold_in(key, number), leaf.shape[:1], leaf.dtype
        )
        inner[name] = drawn / jnp.linalg.norm(drawn)
        outer[name] = jnp.zeros(leaf.shape[1], leaf.dtype)
    return Adapter(inner, outer)


def with_adapters(
    variables: Variables,
    adapters: Sequence[Adapter],
    gains: Any = None,
    *,
    as_published: bool = False,
) -> Variables:
    """W + Σ_k m_k inner_k outer_kᵀ: each adapter through itself alone.

    Args:
        variables: Of the original.
        adapters: One for each concept.
        gains: m, one for each; None: 1.
        as_published: (Σ m_k inner_k)(Σ m_k outer_k)ᵀ, the released composition: m twice
            over, and each adapter reads for all the others. The same for one adapter
            with m = 1.

    Raises:
        ValueError: not one gain for each adapter.
    """
    count = len(adapters)
    gains = jnp.ones(count) if gains is None else jnp.asarray(gains)
    if gains.shape != (count,):
        raise ValueError(
            f"expected {count} gains, one for each adapter, got shape {gains.shape}"
        )

    def put(path: Any, leaf: Array) -> Array:
        name = jax.tree_util.keystr(path)
        if not count or name not in adapters[0].inner:
            return leaf
        inner = jnp.stack([each.inner[name] for each in adapters], axis=1)
        outer = jnp.stack([each.outer[name] for each in adapters])
        own = gains.astype(leaf.dtype)[None]
        if as_published:
            inner = jnp.sum(own * inner, axis=1, keepdims=True)
            outer = jnp.sum(own.T * outer, axis=0, keepdims=True)
            own = jnp.ones((1, 1), leaf.dtype)
        change = jnp.matmul(inner * own, outer, precision="highest")
        return leaf + change

    params = jax.tree_util.tree_map_with_path(put, variables.params)
    return variables._replace(params=params)


def transport(
    text: Float[Array, "n d"],
    tokens: Int[Array | np.ndarray, "n t"],
    concept: Float[Array, " d"],
    words: Int[Array | np.ndarray, " w"],
) -> Float[Array, " n"]:
    """How much a concept's adapter applies to each prompt, from 0 to 1.

    The larger of the cosine between a prompt's embedding and the concept's, and the
    share of the concept's words that stand in the prompt.

    Args:
        text: One embedding for each prompt, such as that of its first end.
        tokens: The prompts.
        concept: Embedding of the concept.
        words: Its tokens, without ends.

    Source: facilitated transport of SPM, arXiv 2312.16145. Differs: applied once, where
        the released code multiplies both sides of the adapter, which squares it.
    """
    sizes = jnp.linalg.norm(text, axis=1) * jnp.linalg.norm(concept)
    near = jnp.matmul(text, concept, precision="highest") / jnp.maximum(sizes, 1e-12)
    words = jnp.asarray(words)[None, None]
    there = jnp.any(jnp.asarray(tokens)[:, :, None] == words, axis=1)
    overlap = jnp.mean(there.astype(near.dtype), axis=1)
    return jnp.clip(jnp.maximum(near, overlap), 0, 1)


def _kernels(params: Params) -> dict[str, Array]:
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if _in_blocks(tree.path_names(path)) and leaf.ndim == 2
    }


def _in_blocks(path: Path) -> bool:
    return path[:2] == ("network", "blocks")
