"""Editors of linear maps, applied to a denoiser: its K and V maps, its prompts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from unlearn_jax import tree
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.types import Array, Params, Variables


def text_maps(denoiser: Denoiser, variables: Variables) -> Params:
    """The maps that read the text, by their paths: what every editor takes.

    Raises:
        ValueError: the model has none: its condition enters elsewhere.
    """
    found = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables.params)
        if denoiser.reads_text(tree.path_names(path))
    }
    if not found:
        raise ValueError(
            "the model has no K and V maps that read the text, expected one with "
            "cross-attention: take a fine-tuning method, or diffusion_transformer"
        )
    return found


def with_text_maps(denoiser: Denoiser, variables: Variables, maps: Any) -> Variables:
    """The denoiser after an edit; everything else is shared with ``variables``.

    Args:
        denoiser: Says which parameters are maps.
        variables: Before.
        maps: Like :func:`text_maps`.

    Raises:
        ValueError: other maps than the denoiser has.
    """
    expected = text_maps(denoiser, variables)
    shapes = {path: jnp.shape(leaf) for path, leaf in expected.items()}
    given = {path: jnp.shape(leaf) for path, leaf in dict(maps).items()}
    if given != shapes:
        raise ValueError(
            f"got maps {given}, expected {shapes}: edit what text_maps gives"
        )

    def put(path: Any, leaf: Array) -> Array:
        new = maps.get(jax.tree_util.keystr(path))
        return leaf if new is None else jnp.asarray(new, leaf.dtype)

    return variables._replace(
        params=jax.tree_util.tree_map_with_path(put, variables.params)
    )


def prompt_keys(
    denoiser: Denoiser,
    variables: Variables,
    tokens: Int[Array | np.ndarray, "n t"],
    places: Any = None,
) -> Float[Array, "r d"]:
    """Rows of an edit: the embeddings of prompts at some of their positions.

    Args:
        denoiser: Its encoder.
        variables: Of the whole.
        tokens: Prompts.
        places: (n, s) positions in each prompt; None: all.

    Returns:
        (n·s, d), prompt after prompt.
    """
    text = denoiser.encode(variables, jnp.asarray(tokens))
    if places is not None:
        places = jnp.asarray(places)
        text = jnp.take_along_axis(text, places[:, :, None], axis=1)
    return text.reshape(-1, text.shape[-1])
