"""Interpret-then-Deactivate in the study: where it reads, what it may learn from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.canvas.config import presets
from experiments.canvas.deactivate import (
    ACTIVE,
    deactivated_text,
    dictionary_of,
    layer,
    learning,
)
from experiments.canvas.editors import Concept
from experiments.canvas.setting import build
from experiments.canvas.studio import Studio
from unlearn_jax.methods.editing.deactivation import deactivation
from unlearn_jax.models.resumed import between
from unlearn_jax.models.transformer import Shape
from unlearn_jax.types import Variables

NAME = "itd"


@pytest.fixture(scope="module", params=["smoke", "small"])
def concept(request):
    """An untrained generator, off its start, of both scales."""
    setting = build(presets("any")[request.param])
    start = setting.denoiser.model.init(jax.random.key(0))

    def moved(leaf):
        return leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape, leaf.dtype)

    params = jax.tree.map(moved, start.params)
    return Concept(setting.denoiser, Variables(params, {}), setting.wanted), setting


def test_leaving_and_going_on_is_the_encoder(concept):
    concept, _ = concept
    tokens = concept.wanted.others()
    own = layer(concept)
    found = own.resume(tokens, own.read(tokens))
    expected = concept.denoiser.encode(concept.variables, tokens)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_is_asked_is_left_out_of_learning(concept):
    concept, _ = concept
    plain, others = concept.wanted.plain(), concept.wanted.others()[:-1]
    asked = np.concatenate([plain, others])
    before, after = learning(concept, asked[:0]), learning(concept, asked)
    assert len(before[0]) - len(after[0]) == len(plain)
    assert len(before[1]) - len(after[1]) == len(others)
    known = {tuple(row) for row in asked}
    assert not any(tuple(row) in known for part in after for row in part)


@pytest.mark.parametrize("concept", ["smoke"], indirect=True)
def test_the_sampler_reads_what_the_guard_makes_of_prompts(concept):
    concept, setting = concept
    plain, others = concept.wanted.plain(), concept.wanted.others()
    own = layer(concept)
    parts = [own.read(rows)[:40] for rows in learning(concept, plain)]
    dictionary = dictionary_of(jnp.concatenate(parts), features=256, steps=20)
    studio = Studio(setting)
    made = deactivation(dictionary, *parts, active=ACTIVE)
    studio.learned[NAME] = made._replace(threshold=jnp.float32(-jnp.inf))
    encode = functools.partial(concept.denoiser.encode, concept.variables)
    read = studio.read(NAME, concept.variables, plain)
    expected = deactivated_text(concept, plain, studio.learned[NAME])
    np.testing.assert_allclose(read.first, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(read.first - encode(plain)).max() > 1e-2
    studio.learned[NAME] = made._replace(threshold=jnp.float32(jnp.inf))
    read = studio.read(NAME, concept.variables, others)
    np.testing.assert_allclose(read.first, encode(others), rtol=1e-5, atol=1e-5)


def test_a_guard_that_has_learned_nothing_says_so(concept):
    concept, setting = concept
    with pytest.raises(ValueError, match="has learned nothing"):
        Studio(setting).read(NAME, concept.variables, concept.wanted.plain())


def test_no_such_block_is_refused():
    shape = Shape(7, 3, 1, 4, 2, 2, 2, 8)
    with pytest.raises(ValueError, match="block"):
        between(shape, 1)
