"""Forgetting of an image-to-image model in closed form: the encoder's last layer."""

from typing import Any

import jax.numpy as jnp

from unlearn_jax.methods.editing.maps import stacked
from unlearn_jax.methods.editing.rows import edit_rows, join_rows, preserve_rows
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.types import Params


def image_to_image(
    maps: Params,
    retain: Any,
    forget: Any,
    noise: Any,
    *,
    strength: float = 0.2,
    l2: float = 1e-3,
    road: str = "auto",
) -> Params:
    """Codes of forgotten images become those of noise, codes of others stay.

    Minimises mean_r ‖φ W − φ W₀‖² + α mean_f ‖φ W − μ‖² + λ ‖W − W₀‖² over the last,
    linear layer of the encoder; μ is the mean code of noise images. Targets that are
    drawn anew in each step, as published, have the same minimiser.

    Args:
        maps: W₀, (d, k): one kernel, or a tree of them. Of a layer with a bias, take it
            off the codes in ``noise``.
        retain: Inputs φ of the layer (n_r, d) on images to keep, or on proxies.
        forget: (n_f, d), on images to forget.
        noise: Codes of noise images (r, K), r at least 1.
        strength: α.
        l2: λ beside means.
        road: See ``edit``.

    Raises:
        ValueError: as ``edit``; no codes.

    Cost: one ``edit`` of n_r + n_f rows.
    Source: arXiv 2402.00351. Differs: the last layer alone, in closed form; each term
        is a mean over its own images (as published both are divided by the whole batch,
        so that its share of forgotten images moves α). A retrained model does not turn
        unseen images into noise: hold it against the oracle.
    """
    noise = jnp.asarray(noise, stacked(maps).dtype)
    if noise.ndim != 2 or not noise.shape[0]:
        raise ValueError(f"expected codes of noise (r, k), got {noise.shape}")
    n, m = (max(len(jnp.atleast_1d(each)), 1) for each in (retain, forget))
    targets = jnp.broadcast_to(jnp.mean(noise, axis=0), (m, noise.shape[1]))
    rows = join_rows(
        preserve_rows(maps, retain, 1 / n),
        edit_rows(maps, forget, targets, strength / m),
    )
    return edit(maps, rows, l2=l2, road=road)
