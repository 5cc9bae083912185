"""Interpret-then-Deactivate: a guard that turns a concept's own features around."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from unlearn_jax.loop import tracing
from unlearn_jax.models.sparse_autoencoder import Dictionary, codes, decoded
from unlearn_jax.options import checked
from unlearn_jax.types import Array

_AT_ONCE = 64
"""Prompts whose codes are held at once."""


class Deactivation(NamedTuple):
    """Value: what a concept's prompts have and others have not.

    Attributes:
        dictionary: Of the activations.
        features: (f,), whether a feature is the concept's alone.
        gain: τ, what it is multiplied by.
        threshold: A prompt whose activations it changes by less is not of the concept.
    """

    dictionary: Dictionary
    features: Bool[Array, " f"]
    gain: Float[Array, ""]
    threshold: Float[Array, ""]


class Gated(NamedTuple):
    """Value: prompts after the guard.

    Attributes:
        values: (n, t, d), those of the concept changed.
        fired: (n,), which these are.
    """

    values: Float[Array, "n t d"]
    fired: Bool[Array, " n"]


@checked(signed=("gain",))
def deactivation(
    dictionary: Dictionary,
    targets: Any,
    retained: Any,
    *,
    active: int = 8,
    top: int = 16,
    gain: float = -8.0,
    margin: float = 0.99,
    as_published: bool = False,
) -> Deactivation:
    """Features that the concept's prompts have and no retained one has; and the gate.

    Args:
        dictionary: A sparse autoencoder of activations.
        targets: Activations (n, t, d) of the concept's prompts.
        retained: Of others, (m, t, d). None of them should be asked afterwards: a
            figure on prompts that chose the features says nothing of others.
        active: k of the dictionary.
        top: Of a prompt, how many features count as its own: those with the largest
            activation at any token.
        gain: τ; 0 deletes, as published it is negative.
        margin: The gate's threshold as a share of the least change of a target.
        as_published: The threshold is of the change of the most changed token, and the
            gate compares the mean over tokens with it.

    Raises:
        ValueError: no feature is left; under a transformation nothing is told, see
            :func:`check_specific`.

    Cost: one encoding of all prompts.
    Source: ItD, arXiv 2503.09446 (top 128 or 256, τ = −8 or −6). Differs: threshold and
        gate are of one measure, unless as published.
    """
    own = jnp.any(strongest(dictionary, targets, active=active, top=top), axis=0)
    others = jnp.any(strongest(dictionary, retained, active=active, top=top), axis=0)
    kind = dictionary.decoder.dtype
    found = Deactivation(
        dictionary, own & ~others, jnp.asarray(gain, kind), jnp.zeros((), kind)
    )
    check_specific(found)

    def change(values: Array) -> Array:
        square = changes(values, deactivated(found, values, active=active))
        return jnp.max(square) if as_published else jnp.mean(square)

    least = jnp.min(jax.lax.map(change, jnp.asarray(targets), batch_size=_AT_ONCE))
    return found._replace(threshold=margin * least)


def check_specific(found: Deactivation) -> None:
    """Refuse a guard that has nothing to turn around.

    Raises:
        ValueError: no feature is the concept's alone.
    """
    if not tracing(found.features) and not jnp.any(found.features):
        raise ValueError(
            f"none of {len(found.features)} features is of the concept's prompts "
            "alone: give a larger dictionary, more prompts to learn it, or a smaller "
            "top"
        )


def strongest(
    dictionary: Dictionary, values: Any, *, active: int, top: int
) -> Bool[Array, "n f"]:
    """Of each prompt (n, t, d), the features with the largest activation at any token.

    Fewer than ``top`` where fewer are active.
    """

    def one(values: Array) -> Array:
        most = jnp.max(codes(dictionary, values, active=active), axis=0)
        held, places = jax.lax.top_k(most, min(top, len(most)))
        return jnp.zeros(len(most), bool).at[places].set(held > 0)

    return jax.lax.map(one, jnp.asarray(values), batch_size=_AT_ONCE)


def deactivated(found: Deactivation, values: Any, *, active: int) -> Array:
    """D z + b with z_F times τ at every token but the first; of (..., t, d)."""
    told = codes(found.dictionary, values, active=active)
    behind = jnp.arange(told.shape[-2])[:, None] > 0
    turned = jnp.broadcast_to(found.features[None] & behind, told.shape)
    return decoded(found.dictionary, jnp.where(turned, found.gain * told, told))


def changes(values: Any, changed: Any) -> Array:
    """Mean squared change of each token, (..., t, d) to (..., t)."""
    return jnp.mean(jnp.square(changed - values), axis=-1)


def gated(found: Deactivation, values: Any, *, active: int) -> Gated:
    """Activations (n, t, d), changed of prompts that change enough to be of it.

    All others are what they were, bit for bit.
    """
    values = jnp.asarray(values)
    moved = deactivated(found, values, active=active)
    fired = jnp.mean(changes(values, moved), axis=-1) >= found.threshold
    return Gated(jnp.where(fired[:, None, None], moved, values), fired)


def guarded(
    found: Deactivation,
    tokens: Any,
    encode: Callable[[Any], Any],
    read: Callable[[Any], Any],
    resume: Callable[[Any, Any], Any],
    *,
    active: int = 8,
) -> Array:
    """Embeddings of prompts behind the guard; of those that it lets pass, their own.

    Args:
        found: The guard.
        tokens: (n, t).
        encode: Tokens to embeddings.
        read: Tokens to the activations that the dictionary is of.
        resume: Tokens and activations to embeddings (``models.resumed``).
        active: k of the dictionary.

    Cost: two encodings, and one of the dictionary.
    """
    seen = gated(found, read(tokens), active=active)
    changed = resume(tokens, seen.values)
    return jnp.where(seen.fired[:, None, None], changed, encode(tokens))
