"""Searches for prompts find the word that explains a picture, where that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.diffusion.prompt_attacks import (
    embeddings,
    invert_words,
    onto_simplex,
    prefixed,
    search_prefix,
    with_words,
)
from unlearn_jax.diffusion.schedule import cosine_schedule, shares
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.models.diffusion_transformer import diffusion_transformer
from unlearn_jax.types import Variables

SCHEDULE = cosine_schedule(20)
WORDS, PIXELS = 7, 4


def painter():
    """A denoiser that takes the first word's embedding for the clean picture."""

    def encode(variables, tokens):
        return embeddings(variables)[tokens]

    def denoise(variables, image, time, text):
        kept, lost = shares(SCHEDULE, time)
        clean = text[:, 0].reshape(image.shape)
        return ((image - kept * clean) / lost).reshape(len(image), -1)

    none = lambda path: False  # noqa: E731
    return Denoiser(None, encode, denoise, none, (2, 2, 1), 4)


def pictures():
    table = np.random.default_rng(0).normal(size=(WORDS, PIXELS))
    variables = Variables({"text": {"tokens": {"embedding": jnp.asarray(table)}}}, {})
    return variables, table


PROMPTS = np.array([[5, 6, 0, 0], [6, 5, 0, 0], [5, 5, 0, 0]])


def test_the_nearest_probabilities_are_probabilities_and_the_nearest():
    random = np.random.default_rng(1)
    values = 2 * random.normal(size=(5, 6))
    found = np.asarray(onto_simplex(jnp.asarray(values)))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    assert found.min() >= 0
    # No other point of the simplex is nearer: v − u has no part towards any corner.
    slope = values - found
    towards = slope[:, :, None] - np.sum(slope * found, 1)[:, None, None]
    assert towards.max() < 1e-10
    np.testing.assert_allclose(onto_simplex(jnp.asarray(found)), found, atol=1e-12)


def test_words_come_before_a_prompt_in_place_of_its_ends():
    words = np.array([[1, 2], [3, 4], [2, 2]])
    np.testing.assert_array_equal(
        prefixed(PROMPTS, words), [[1, 2, 5, 6], [3, 4, 6, 5], [2, 2, 5, 5]]
    )
    with pytest.raises(ValueError, match="no room for 3 more"):
        prefixed(PROMPTS, np.ones((3, 3), int))


def test_a_new_word_with_an_old_embedding_means_the_same():
    denoiser = diffusion_transformer(
        (4, 4, 1), 5, tokens=4, width=8, heads=2, depth=1, text_width=8, text_depth=1
    )
    variables = denoiser.model.init(jax.random.key(0))
    wider = with_words(variables, embeddings(variables)[2:4])
    new, old = np.array([[5, 1, 6, 0]]), np.array([[2, 1, 3, 0]])
    np.testing.assert_array_equal(
        denoiser.encode(wider, new), denoiser.encode(variables, old)
    )
    with pytest.raises(ValueError, match="no parameter text/tokens/embedding"):
        embeddings(Variables({"network": {}}, {}))


def test_the_search_finds_the_word_that_enumeration_finds():
    variables, table = pictures()
    aims = table[[3, 1, 4]].reshape(3, 2, 2, 1)
    found = search_prefix(
        jax.random.key(0),
        painter(),
        variables,
        SCHEDULE,
        aims,
        PROMPTS,
        rounds=4,
        steps=30,
    )
    assert found.words.shape == (4, 3, 1)
    gaps = np.sum((aims.reshape(3, 1, PIXELS) - table[None]) ** 2, axis=2)
    best = np.argmin(gaps, axis=1)
    np.testing.assert_array_equal(best, [3, 1, 4])
    # Of late times little is left that tells words apart: the candidates are tried.
    right = np.asarray(found.words)[:, :, 0] == best
    assert right[:2].any(0).all()
    assert right.mean() > 0.8


def test_new_words_become_the_picture():
    variables, table = pictures()
    aims = table[[3, 1, 4]].reshape(3, 2, 2, 1)
    found = invert_words(
        jax.random.key(0),
        painter(),
        variables,
        SCHEDULE,
        aims,
        PROMPTS,
        rounds=3,
        steps=80,
        learning_rate=0.05,
    )
    assert found.words.shape == (3, 3, 1, PIXELS)
    gap = np.abs(found.words[-1].reshape(aims.shape) - aims).max()
    assert gap < 0.1
    assert float(found.losses[-1].max()) < 0.1 * float(found.losses[0].min())
