"""TIME: an implicit assumption is edited ("roses" come to mean "blue roses")."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from unlearn_jax.methods.editing.rows import anchor_rows, join_rows
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.types import Params


class PromptPair(NamedTuple):
    """Value: a prompt and what it should come to mean, padded to one length t.

    Attributes:
        source: Embeddings (t, d) of the prompt, one token a row.
        destination: Embeddings (t, d) of what it should mean.
        source_tokens: (t,) integers.
        destination_tokens: (t,) integers.
    """

    source: Any
    destination: Any
    source_tokens: Any
    destination_tokens: Any


def time_edit(
    maps: Params,
    pairs: Sequence[PromptPair],
    *,
    end: int,
    l2: float = 0.1,
    road: str = "auto",
) -> Params:
    """Every token of a source prompt gives what its token of the destination gave.

    All positions are rows, the end and the padding among them. Variants of the prompts
    ("a photo of …") are further pairs of the same solve, not edits one after another.

    Args:
        maps: W₀ of all K and V maps.
        pairs: At least one.
        end: The token that ends a prompt; padding comes after.
        l2: λ; 0.1 as released.
        road: See ``edit``.

    Raises:
        ValueError: as :func:`aligned` and ``edit``; no pairs.

    Cost: one ``edit`` of t rows a pair.
    Source: TIME, arXiv 2303.08084. Differs: a Cholesky factor in place of an inverse,
        one for all maps of a width.
    """
    rows = []
    for pair in pairs:
        places = aligned(pair.source_tokens, pair.destination_tokens, end=end)
        anchors = jnp.asarray(pair.destination)[places]
        rows.append(anchor_rows(maps, pair.source, anchors))
    return edit(maps, join_rows(*rows), l2=l2, road=road)


def aligned(source: Any, destination: Any, *, end: int) -> Int[np.ndarray, " t"]:
    """For each position of a prompt, the position of the other that stands for it.

    A word goes to the next same word; from the first end token on, positions go to the
    successive remaining ones of the destination, and to its last when these run out.

    Args:
        source: Tokens (t,), concrete.
        destination: Tokens (t',) among which are the words of the source, in order.
        end: The token that ends a prompt.

    Raises:
        ValueError: a word of the source that the destination lacks from there on, or a
            prompt that has no end.
    """
    source, destination = np.asarray(source), np.asarray(destination)
    for name, tokens in (("source", source), ("destination", destination)):
        if tokens.ndim != 1 or end not in tokens:
            raise ValueError(
                f"the {name} is {tokens.tolist()}, expected tokens (t,) with the end "
                f"token {end}: pad the prompt after its end"
            )
    words = int(np.argmax(source == end))
    places, place = [], 0
    for token in source[:words]:
        found = np.flatnonzero(destination[place:] == token)
        if not len(found):
            raise ValueError(
                f"token {token} of the source is not among the remaining "
                f"{destination[place:].tolist()} of the destination: the destination "
                f"keeps all words of the source, in order, and adds some"
            )
        place += int(found[0]) + 1
        places.append(place - 1)
    place += int(np.argmax(destination[place:] == end))
    rest = place + np.arange(len(source) - words)
    tail = np.minimum(rest, len(destination) - 1)
    return np.concatenate([np.asarray(places, np.intp), tail])
