"""Prompt decoupling: what only shares its prompt with the forget set is held apart."""

from typing import Any

import jax.numpy as jnp

from unlearn_jax.methods.method import Request


def decoupled(request: Request, neighbours: Any, *, share: float = 0.5) -> Request:
    """The same request with part of the retain loss on neighbours of the forgotten.

    Whatever method holds the retain set then minimises, in expectation over its
    batches, (1 - share) · the mean loss of the others + share · that of the neighbours:
    the words of the prompt are asked about harmless subjects, so that refusing the
    words does not pay.

    Args:
        request: Its retain set holds the neighbours.
        neighbours: (n,) which of its examples are: questions in the words of the
            forgotten ones, about a subject that is retained.
        share: Of the retain loss, above 0 and below 1.

    Returns:
        Request of the same examples; the sum of the retain weights is what it was.

    Raises:
        ValueError: a share out of range, or no neighbour or nobody else of weight.

    Source: Chen et al. 2025, arXiv 2502.12520, from images to text. Differs: there the
        term comes on top of half the retain loss, so that it is compared with twice as
        much; here the whole retain loss keeps its weight.
    Cost: none, since only weights change.
    """
    weights = jnp.asarray(request.retain.weights)
    near = jnp.asarray(neighbours, bool)
    if near.shape != weights.shape or not 0 < share < 1:
        raise ValueError(
            f"got {near.shape} neighbours of {weights.shape} retained examples and a "
            f"share of {share}, expected one for each and a share between 0 and 1"
        )
    own, others = (jnp.sum(jnp.where(part, weights, 0)) for part in (near, ~near))
    if not (own > 0 and others > 0):
        raise ValueError(
            f"neighbours have weight {float(own):g} and all others {float(others):g}, "
            "expected some of both: mark a part of the retain set"
        )
    total = own + others
    scaled = jnp.where(near, share * total / own, (1 - share) * total / others)
    return request._replace(retain=request.retain._replace(weights=weights * scaled))
