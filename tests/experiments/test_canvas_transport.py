"""An adapter behind its gate: each prompt is drawn from weights of its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.canvas.config import presets
from experiments.canvas.departures import moved_bytes
from experiments.canvas.setting import build
from experiments.canvas.studio import Studio
from unlearn_jax.data.captions import encoded
from unlearn_jax.methods.erasing.adapters import Adapter, blank, with_adapters
from unlearn_jax.types import Variables

CONFIG = dataclasses.replace(presets("any")["smoke"], steps=2)
NAME = "spm: transport"


@pytest.fixture(scope="module")
def setting():
    return build(CONFIG)


@pytest.fixture(scope="module")
def generators(setting):
    """An original away from its start, and an adapter that changes much."""
    start = setting.denoiser.model.init(jax.random.key(0))
    key = jax.random.key(1)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(key, leaf.shape, leaf.dtype),
        start.params,
    )
    adapter = blank(key, start)
    outer = {
        n: jax.random.normal(key, leaf.shape, leaf.dtype)
        for n, leaf in adapter.outer.items()
    }
    return Variables(params, {}), Adapter(adapter.inner, outer)


def prompts(setting):
    said = ("a plain digit three", "a striped 3", "a plain digit eight", "")
    return np.stack([encoded(setting.canvas.grammar, each) for each in said])


def test_prompts_that_name_the_concept_read_all_of_it_and_others_less(
    setting, generators
):
    variables, tokens = generators[0], prompts(setting)
    gains = np.asarray(Studio(setting).read(NAME, variables, tokens).gains)
    assert gains[0] == gains[1] == 1
    assert np.all((gains[2:] >= 0) & (gains[2:] < 1))


def test_each_image_is_that_of_the_adapter_at_its_prompts_gain(setting, generators):
    original, adapter = generators
    merged = with_adapters(original, [adapter])
    tokens = prompts(setting)
    studio = Studio(setting, original)
    read, start = studio.read(NAME, merged, tokens), studio.noise(len(tokens))
    assert read.gains is not None
    found = studio.draw(merged, start, read)
    for i, gain in enumerate(np.asarray(read.gains)):
        own = with_adapters(original, [adapter], jnp.asarray([gain]))
        text = studio.encode(own, tokens[i : i + 1])
        alone = studio.draw(own, start[i : i + 1], text)[0]
        np.testing.assert_allclose(found[i], alone, atol=2e-4)
    plain = studio.draw(original, start, studio.encode(original, tokens))
    assert np.abs(found - plain)[0].mean() > 1e-3


def test_gains_without_an_original_are_refused(setting, generators):
    studio = Studio(setting)
    read = studio.read(NAME, generators[0], prompts(setting))
    with pytest.raises(ValueError, match="needs the original"):
        studio.draw(generators[0], studio.noise(4), read)


def test_moved_bytes_are_those_of_the_arrays_that_differ(generators):
    original, adapter = generators
    merged = with_adapters(original, [adapter])
    leaves = jax.tree_util.tree_leaves_with_path(original.params)
    touched = [leaf for p, leaf in leaves if jax.tree_util.keystr(p) in adapter.inner]
    assert moved_bytes(original, original) == 0
    assert moved_bytes(original, merged) == sum(leaf.nbytes for leaf in touched)
