"""A dictionary of directions of which few at once make up an activation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.types import Array


class Dictionary(NamedTuple):
    """Description: a top-k sparse autoencoder of f features.

    Attributes:
        encoder: E, (f, d).
        decoder: The columns of D, (f, d), each of length 1.
        center: b, (d,).
        offset: b_l, (f,).
    """

    encoder: Float[Array, "f d"]
    decoder: Float[Array, "f d"]
    center: Float[Array, " d"]
    offset: Float[Array, " f"]


def responses(dictionary: Dictionary, values: Any) -> Array:
    """E (h − b) + b_l, (..., d) to (..., f)."""
    values = jnp.asarray(values)
    inner = values - jnp.broadcast_to(dictionary.center, values.shape)
    told = inner @ dictionary.encoder.T
    return told + jnp.broadcast_to(dictionary.offset, told.shape)


def largest(responses: Any, active: int) -> tuple[Array, Array]:
    """The ``active`` largest that are above zero: how large, and which; others are 0.

    Raises:
        ValueError: more than there are, or none.
    """
    count = responses.shape[-1]
    if not 1 <= active <= count:
        raise ValueError(
            f"{active} of {count} features are to be active, expected 1 to {count}: "
            "ask for fewer, or for a larger dictionary"
        )
    found, places = jax.lax.top_k(responses, active)
    return jax.nn.relu(found), places


def codes(dictionary: Dictionary, values: Any, *, active: int) -> Array:
    """Z = ReLU(TopK(E (h − b) + b_l)), (..., d) to (..., f).

    Args:
        dictionary: E, b and b_l.
        values: h.
        active: k, the most that are not zero.

    Raises:
        ValueError: k that is not from 1 to the number of features.
    """
    told = responses(dictionary, values)
    found, places = largest(told, active)
    return jnp.put_along_axis(jnp.zeros_like(told), places, found, -1, inplace=False)


def decoded(dictionary: Dictionary, codes: Any) -> Array:
    """ĥ = D z + b, (..., f) to (..., d)."""
    made = codes @ dictionary.decoder
    return made + jnp.broadcast_to(dictionary.center, made.shape)


def sparse_sum(dictionary: Dictionary, found: Array, places: Array) -> Array:
    """D z where z is given by what is not zero, (n, k) and (n, k) to (n, d)."""
    return jnp.einsum("nk,nkd->nd", found, dictionary.decoder[places])
