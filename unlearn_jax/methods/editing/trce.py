"""The first stage of TRCE: malicious prompts end as safe ones do."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Int

from unlearn_jax.methods.editing.rows import anchor_rows, join_rows, preserve_rows
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.types import Array, Params


def trce(
    maps: Params,
    malicious: Any,
    safe: Any,
    captions: Any,
    *,
    preserve_weight: float = 0.01,
    l2: float = 1e-6,
    road: str = "auto",
) -> Params:
    """The first end token of a malicious prompt gives what that of its safe one gave.

    Minimises mean ‖e_m W − e_s W₀‖² + η mean ‖e (W − W₀)‖² + λ ‖W − W₀‖², means
    over prompts and over captions.

    Args:
        maps: W₀ of all K and V maps.
        malicious: (n, d): the row :func:`first_end` of each prompt's embeddings.
        safe: (n, d) or (1, d), likewise.
        captions: (m, d): end tokens of captions to keep.
        preserve_weight: η; 0.01 (one concept) or 0.02 (several) as released.
        l2: λ beside means. The release has 0, and needs captions that span all
            dimensions; as λ goes to 0 this is its solution there.
        road: See ``edit``.

    Raises:
        ValueError: as ``edit``.

    Cost: one ``edit`` of n + m rows.
    Source: TRCE, arXiv 2503.07389, stage 1; token weights 0, 1, 0, 0 as released.
        Differs: λ. Stage 2, whose gradients the release never resets, is
        ``erasing.steering``.
    """
    n, m = (max(len(jnp.atleast_1d(each)), 1) for each in (malicious, captions))
    rows = join_rows(
        anchor_rows(maps, malicious, safe, 1 / n),
        preserve_rows(maps, captions, preserve_weight / m),
    )
    return edit(maps, rows, l2=l2, road=road)


def first_end(tokens: Any, end: int) -> Int[Array, "*n"]:
    """Position of the first end token, by the tokens themselves.

    (As released it is the number of words between blanks: wrong for each word that the
    tokeniser splits.)

    Args:
        tokens: (..., t) integers.
        end: The token that ends a prompt.

    Returns:
        (...,); t, outside of the prompt, where there is none.
    """
    tokens = jnp.asarray(tokens)
    ends = tokens == end
    return jnp.where(jnp.any(ends, -1), jnp.argmax(ends, -1), tokens.shape[-1])
