"""UCE: some concepts go to others, named ones stay."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from unlearn_jax.methods.editing.maps import as_keys, outputs, stacked, unstacked
from unlearn_jax.methods.editing.rows import (
    anchor_rows,
    edit_rows,
    join_rows,
    preserve_rows,
)
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.types import Array, Batch, Params

ROWS = ("subject", "suffix", "all")
TECHNIQUES = ("replace", "tensor")


def uce(
    maps: Params,
    erase: Any,
    anchors: Any,
    preserve: Any = None,
    *,
    l2: float = 0.5,
    erase_weight: float = 1.0,
    preserve_weight: float = 1.0,
    technique: str = "replace",
    road: str = "auto",
) -> Params:
    """Outputs of erased keys become those of anchors, outputs of preserved keys stay.

    Which rows of a prompt enter is the caller's word, see :func:`prompt_rows`: releases
    differ by a factor of ten in rows a concept, so that their λ and weights do not mean
    the same.

    Args:
        maps: W₀ of all K and V maps.
        erase: Keys (n, d) of what to erase.
        anchors: Keys (n, d), or (1, d) for all: another concept, or the empty prompt
            (moderation).
        preserve: Keys (p, d); None: none but λ.
        l2: λ; 0.5 as released, 0.1 inside of RECE.
        erase_weight: Of each erased row.
        preserve_weight: Of each preserved row; 1 in the release of 2025, the larger of
            0.1 and 1 / p in that of 2023.
        technique: See :func:`uce_rows`.
        road: See ``edit``.

    Raises:
        ValueError: as ``edit``; an unknown technique.

    Cost: one ``edit`` of n + p rows.
    Source: UCE, arXiv 2308.14761. Differs: no explicit inverse. Debiasing is
        :func:`debias_targets` in a loop that draws images, which is not here.
    """
    rows = uce_rows(
        maps,
        erase,
        anchors,
        preserve,
        erase_weight=erase_weight,
        preserve_weight=preserve_weight,
        technique=technique,
    )
    return edit(maps, rows, l2=l2, road=road)


def uce_rows(
    maps: Params,
    erase: Any,
    anchors: Any,
    preserve: Any = None,
    *,
    erase_weight: float = 1.0,
    preserve_weight: float = 1.0,
    technique: str = "replace",
) -> Batch:
    """The rows of such a request, for ``edit`` or to be carried by ``edit_add``.

    Args:
        maps: W₀.
        erase: Keys (n, d).
        anchors: Keys (n, d) or (1, d).
        preserve: Keys (p, d); None: no such rows.
        erase_weight: Of each erased row.
        preserve_weight: Of each preserved row.
        technique: "replace": the anchor's output. "tensor": without its component along
            the old output, in each map apart, as an option of the release of 2023.

    Raises:
        ValueError: as :func:`uce`.
    """
    if technique not in TECHNIQUES:
        raise ValueError(
            f"technique is {technique!r}; choose from {', '.join(TECHNIQUES)}"
        )
    moved = anchor_rows(maps, erase, anchors, erase_weight)
    if technique == "tensor":
        old = unstacked(outputs(maps, erase), maps)
        new = unstacked(outputs(maps, erase) + moved.targets, maps)
        new = stacked(jax.tree.map(_without, new, old))
        moved = edit_rows(maps, erase, new, erase_weight)
    kept = None if preserve is None else preserve_rows(maps, preserve, preserve_weight)
    return join_rows(moved, kept)


def prompt_rows(
    subject: int, other: int, length: int, *, rows: str = "subject"
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Which positions of two prompts are the rows of a pair.

    Args:
        subject: Position of the last subject token in the prompt to erase.
        other: The same in the anchor prompt.
        length: Tokens of both, padding among them.
        rows: "subject": that position alone (release of 2025). "suffix": from there to
            the end of the padded prompt, as many as both have (2023). "all": every one.

    Returns:
        Positions in the prompt to erase, and in the anchor, of the same number.

    Raises:
        ValueError: an unknown choice, or a position outside of the prompt.
    """
    if rows not in ROWS:
        raise ValueError(f"rows is {rows!r}; choose from {', '.join(ROWS)}")
    if not (0 <= subject < length and 0 <= other < length):
        raise ValueError(
            f"the subjects stand at {subject} and {other}, expected places in prompts "
            f"of {length} tokens"
        )
    if rows == "all":
        return np.arange(length), np.arange(length)
    count = 1 if rows == "subject" else length - max(subject, other)
    return subject + np.arange(count), other + np.arange(count)


def debias_targets(
    maps: Params, keys: Any, attributes: Any, shares: Any
) -> Float[Array, "n k"]:
    """W₀ (c + Σⱼ αⱼ aⱼ): outputs pushed along attributes, for ``edit_rows``.

    Args:
        maps: W₀.
        keys: (n, d).
        attributes: (a, d) keys.
        shares: α, (a,), or (n, a): the loop around nudges these numbers, from the same
            W₀ every time. (The release of 2025 adds to its stored targets in place, so
            that directions pile up over its rounds.)
    """
    matrix = stacked(maps)
    keys, attributes = as_keys(keys, matrix), as_keys(attributes, matrix)
    shape = (keys.shape[0], attributes.shape[0])
    shares = jnp.broadcast_to(jnp.asarray(shares, matrix.dtype), shape)
    along = jnp.einsum("na,ad->nd", shares, attributes, precision="highest")
    return outputs(maps, keys + along)


def _without(new: Array, old: Array) -> Array:
    """Rows without their component along those of ``old``."""
    size = jnp.sum(old * old, axis=1, keepdims=True)
    inner = jnp.sum(new * old, axis=1, keepdims=True)
    return new - inner / jnp.where(size > 0, size, 1) * old
