"""SAFREE: a guard that filters prompts while the weights stay as they are."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from unlearn_jax.methods.editing.spans import off, onto, span
from unlearn_jax.types import Array


class Filtered(NamedTuple):
    """Value: a prompt after the guard.

    Attributes:
        embeddings: (t, d); tokens that are no triggers as they came.
        triggers: (t,), whether a token was filtered.
        steps: Of the first steps of sampling, how many should read ``embeddings``; the
            others read the prompt as it came.
    """

    embeddings: Float[Array, "t d"]
    triggers: Bool[Array, " t"]
    steps: Float[Array, ""]


def safree(
    embeddings: Float[Array | np.ndarray, "t d"],
    left_out: Float[Array | np.ndarray, "t d"],
    concept: Float[Array | np.ndarray, "k d"],
    active: Any = None,
    *,
    alpha: float = 0.01,
    most_steps: int = 10,
    slope: float = 2.5,
    middle: float = 5.333,
) -> Filtered:
    """Tokens that carry the concept are projected off it, inside the prompt's own span.

    With P_C the projection onto the concept's embeddings and P_I that onto the span of
    the leave-one-out embeddings, a token is a trigger when leaving it out takes the
    prompt further off the concept than leaving out the others does, on the mean, by
    1 + α; it becomes (1 − P_C) P_I e.

    Args:
        embeddings: e, of the prompt's tokens.
        left_out: Pooled embedding of the prompt without each token: :func:`left_out`.
        concept: Pooled embeddings of the concept's keywords.
        active: (t,); 0 for padding, whose rows are read nowhere and stay. None: all 1.
        alpha: α.
        most_steps: Of t' = round(most_steps · sigmoid(2 slope (10 β − middle))), where
            β = 1 − the mean cosine of active tokens with their projections.
        slope: 2.5 as released, 3.5 for artists.
        middle: 5.333 as released, 5.5 for artists.

    Raises:
        ValueError: shapes that do not fit.

    Cost: two thin decompositions, (t, d) and (k, d). Forgets nothing: a guard, to be
        reported as one.
    Source: SAFREE, arXiv 2410.12761, steps 1 to 5. Differs: orthonormal bases by
        singular values in place of pseudo-inverses; no re-attention in frequencies of
        skip features.
    """
    shape = embeddings.shape
    if left_out.shape != shape or concept.shape[1:] != shape[1:] or not len(concept):
        raise ValueError(
            f"expected embeddings and leave-one-out embeddings (t, d) and at least one "
            f"keyword (k, d), got {shape}, {left_out.shape} and {concept.shape}"
        )
    embeddings = jnp.asarray(embeddings)
    there = jnp.ones(shape[0], bool) if active is None else jnp.asarray(active) != 0
    seen = there[:, None]
    left_out, held = (jnp.where(seen, each, 0) for each in (left_out, embeddings))
    forbidden = span(concept)
    far = jnp.linalg.norm(off(forbidden, left_out), axis=1)
    count = jnp.sum(there)
    mean = (jnp.sum(jnp.where(there, far, 0)) - far) / jnp.maximum(count - 1, 1)
    triggers = there & (far >= (1 + alpha) * mean) & (count > 1)
    moved = off(forbidden, onto(span(left_out, there), held))
    near = jnp.sum(jnp.where(there, _cosines(held, moved), 0))
    beta = 1 - near / jnp.maximum(count, 1)
    steps = jnp.round(most_steps * jax.nn.sigmoid(2 * slope * (10 * beta - middle)))
    return Filtered(jnp.where(triggers[:, None], moved, embeddings), triggers, steps)


def left_out(
    encode: Callable[[Any], Any], tokens: Any, *, blank: int = 0
) -> Float[Array, "t d"]:
    """Pooled embedding of a prompt with each of its tokens replaced in turn.

    Args:
        encode: From tokens (t, t) to pooled embeddings (t, d).
        tokens: (t,) integers.
        blank: What stands for the token; 0 as released.

    Cost: t prompts through the encoder.
    """
    tokens = jnp.asarray(tokens)
    without = jnp.eye(len(tokens), dtype=bool)
    return jnp.asarray(encode(jnp.where(without, blank, tokens[None])))


def _cosines(a: Array, b: Array) -> Array:
    long, short = jnp.linalg.norm(a, axis=1), jnp.linalg.norm(b, axis=1)
    # What is left of a row that was taken whole is rounding, and has no direction.
    there = short > a.shape[1] * float(jnp.finfo(b.dtype).eps) * long
    inner = jnp.sum(a * b, axis=1)
    return jnp.where(there, inner / jnp.where(there, long * short, 1), 0)
