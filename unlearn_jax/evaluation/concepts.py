"""Whether the vectors that encode a concept have changed, from the weights alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from unlearn_jax.types import Array


class ConceptChange(NamedTuple):
    """Value: of m value vectors, each before against after.

    Attributes:
        jaccard: Of the tokens that a vector speaks for most, 1 where they are the same
            and 0 where none is left (no unit).
        cosine: Of the vectors, -1 to 1.
        distance: ‖after - before‖, in the unit of the weights.

    Direction: towards the oracle's, whose distance from the original says how far two
    trained models are apart anyway; an original against itself has 1, 1 and 0.
    """

    jaccard: Float[Array, " m"]
    cosine: Float[Array, " m"]
    distance: Float[Array, " m"]


def concept_change(
    before: Any, after: Any, embedding: Any, *, top: int = 200
) -> ConceptChange:
    """Value vectors of an MLP, rows of its ``down`` kernel, before and after.

    Args:
        before: (m, d).
        after: (m, d).
        embedding: (v, d), the *original's* output embedding, for both: so that a moved
            embedding does not count as a moved vector.
        top: Tokens that are compared.

    Raises:
        ValueError: shapes that do not fit, or more tokens than there are.

    Cost: two products of m × d with d × v.
    Source: Hong et al. 2024, arXiv 2406.11614.
    """
    before, after, embedding = (jnp.asarray(a) for a in (before, after, embedding))
    same = before.ndim == 2 and before.shape == after.shape
    if not same or embedding.shape[-1:] != before.shape[-1:]:
        raise ValueError(
            f"expected vectors (m, d) twice and an embedding (v, d), got "
            f"{before.shape}, {after.shape} and {embedding.shape}: take rows of a "
            "down kernel, and the embedding as (tokens, width)"
        )
    if not 1 <= top <= len(embedding):
        raise ValueError(
            f"top is {top}, expected 1 to the {len(embedding)} tokens that there are"
        )

    def most(vectors: Array) -> Array:
        _, found = jax.lax.top_k(vectors @ embedding.T, top)
        rows = jnp.arange(len(vectors))[:, None]
        return jnp.zeros((len(vectors), len(embedding)), bool).at[rows, found].set(True)

    own, other = most(before), most(after)
    both = jnp.sum(own & other, 1)
    norms = jnp.linalg.norm(before, axis=1) * jnp.linalg.norm(after, axis=1)
    cosine = jnp.sum(before * after, 1) / jnp.where(norms > 0, norms, 1)
    distance = jnp.linalg.norm(after - before, axis=1)
    return ConceptChange(both / jnp.sum(own | other, 1), cosine, distance)


def concerned(slope: Any, count: int) -> Int[Array, " count"]:
    """Rows of a ``down`` kernel whose gradient on the forget set is largest.

    They stand in for the vectors that the benchmark's authors found by hand.

    Raises:
        ValueError: not so many rows.
    """
    slope = jnp.asarray(slope)
    if slope.ndim != 2 or not 1 <= count <= len(slope):
        raise ValueError(
            f"got a gradient of shape {slope.shape} and a count of {count}, expected "
            "(rows, width) and at most as many as rows"
        )
    return jax.lax.top_k(jnp.linalg.norm(slope, axis=1), count)[1]
