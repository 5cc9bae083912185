"""Editors on a denoiser: its maps come out and go back, and edits reach its outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax import tree
from unlearn_jax.methods.editing.denoiser import (
    prompt_keys,
    text_maps,
    with_text_maps,
)
from unlearn_jax.methods.editing.uce import uce
from unlearn_jax.models.diffusion_transformer import diffusion_transformer


@pytest.fixture(scope="module")
def made():
    denoiser = diffusion_transformer(
        (4, 4, 1), 9, tokens=3, depth=2, width=8, heads=2, text_width=12, text_depth=1
    )
    variables = denoiser.model.init(jax.random.key(0))
    noise = tree.random_like(jax.random.key(1), variables.params, jax.random.normal)
    moved = tree.add(variables.params, tree.scale(0.3, noise))
    return denoiser, variables._replace(params=moved)


def test_maps_come_out_and_go_back(made):
    denoiser, variables = made
    maps = text_maps(denoiser, variables)
    assert [leaf.shape for leaf in maps.values()] == [(12, 8)] * 4
    same = with_text_maps(denoiser, variables, maps)
    for a, b in zip(*map(jax.tree.leaves, (variables, same)), strict=True):
        assert a is b or bool(jnp.all(a == b))
    other = with_text_maps(denoiser, variables, tree.scale(2.0, maps))
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(*map(jax.tree.leaves, (variables, other)), strict=True)
    ]
    assert sum(changed) == 4


def test_an_erased_prompt_draws_what_its_anchor_draws(made):
    """All rows of a prompt are moved, the ridge is small: the noise is the anchor's."""
    denoiser, variables = made
    prompts = np.array([[1, 2, 0], [3, 4, 0], [5, 6, 7]], np.int32)
    erased, anchor, kept = (
        prompt_keys(denoiser, variables, prompts[i : i + 1]) for i in range(3)
    )
    maps = text_maps(denoiser, variables)
    edited = with_text_maps(
        denoiser,
        variables,
        uce(maps, erased, anchor, kept, l2=1e-6, preserve_weight=1.0),
    )
    image = jax.random.normal(jax.random.key(2), (1, 4, 4, 1))
    noise = jax.jit(
        lambda v, tokens: denoiser.model.apply(
            v, {"image": image, "time": jnp.full(1, 5), "tokens": tokens}
        )
    )
    before = [noise(variables, prompts[i : i + 1]) for i in range(3)]
    after = [noise(edited, prompts[i : i + 1]) for i in range(3)]
    apart = jnp.abs(before[0] - before[1]).max()
    assert jnp.abs(after[0] - before[1]).max() < 0.02 * apart
    assert jnp.abs(after[2] - before[2]).max() < 0.02 * apart
    one = prompt_keys(denoiser, variables, prompts, np.array([[0], [2], [1]]))
    text = denoiser.encode(variables, jnp.asarray(prompts))
    np.testing.assert_allclose(one, text[np.arange(3), [0, 2, 1]], rtol=1e-6)


def test_a_model_without_maps_and_other_maps_are_refused(made):
    denoiser, variables = made
    deaf = denoiser._replace(reads_text=lambda path: False)
    with pytest.raises(ValueError, match="no K and V maps"):
        text_maps(deaf, variables)
    with pytest.raises(ValueError, match="edit what text_maps gives"):
        with_text_maps(denoiser, variables, {"one": jnp.zeros((2, 2))})
