"""Text-to-Unlearn: its mapper goes to the sentence, its generator away from there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax import tree
from unlearn_jax.methods.erasing.text_directions import (
    Weights,
    text_to_unlearn,
    turned,
    went,
)
from unlearn_jax.methods.erasing.text_mapper import Reader, fitted_mapper, mapped
from unlearn_jax.models.adversarial import adversarial
from unlearn_jax.models.contrastive import contrastive

KEY = jax.random.key(4)
FEW = {"mapper_steps": 60, "mapper_rate": 0.05, "batch_size": 16}


def scene():
    kind = {"dtype": jnp.float64}
    gan = adversarial((2, 2, 1), codes=2, widths=(4,), **kind)
    pair = contrastive((2, 2, 1), 5, tokens=2, width=8, widths=(4,), **kind)
    others = np.array([[2, 0], [3, 0]], np.int32)
    reader = Reader(pair, np.array([1, 0], np.int32), others)
    return gan, gan.init(KEY), reader, pair.init(jax.random.key(5))


def test_the_mapper_ends_nearer_to_the_sentence_and_the_generator_leaves_it():
    gan, variables, reader, read = scene()
    codes = jax.random.normal(jax.random.key(6), (64, 2), jnp.float64)

    @tiny.quick_jit
    def both(v, r):
        home = v.params["generator"]
        mapper_key = jax.random.split(KEY, 3)[0]
        options = {"steps": 60, "learning_rate": 0.05, "batch_size": 16}
        given = mapper_key, gan, home, reader, r
        mapper = fitted_mapper(*given, near=0.02, **options)
        prompt = reader.pair.said(r, reader.prompt[None])[0]

        def close(params, codes):
            return jnp.mean(reader.pair.pictured(r, gan.images(params, codes)) @ prompt)

        weights = Weights(direction=1.0, instead=0.0, stay=0.0)
        after = text_to_unlearn(
            KEY, gan, v, reader, r, weights=weights, steps=30, **FEW
        )
        own = after.params["generator"]
        moved = mapped(mapper, codes)
        return (
            close(home, codes),
            close(home, moved),
            close(own, moved),
            tree.norm(tree.subtract(after.params["critic"], v.params["critic"])),
        )

    plain, asked, after, critic = both(variables, read)
    assert asked > plain + 0.02
    assert after < asked
    assert critic == 0


def test_with_nothing_but_what_stays_nothing_moves():
    gan, variables, reader, read = scene()
    weights = Weights(direction=0.0, instead=0.0, stay=1.0)

    @tiny.quick_jit
    def moved(v, r):
        return text_to_unlearn(KEY, gan, v, reader, r, weights=weights, steps=2, **FEW)

    gap = tree.subtract(moved(variables, read).params, variables.params)
    assert float(tree.norm(gap)) < 1e-12


def test_the_loss_is_the_sum_of_its_three_terms_by_hand():
    gan, variables, reader, read = scene()
    home = variables.params["generator"]
    own = jax.tree.map(lambda leaf: leaf + 0.1, home)
    mapper = {"turn": 0.3 * jnp.eye(2), "move": jnp.array([0.5, -0.2])}
    codes = jax.random.normal(jax.random.key(6), (6, 2), jnp.float64)
    way = jnp.asarray(np.random.default_rng(0).normal(size=8))
    weights = Weights(2.0, 3.0, 5.0)

    @tiny.quick_jit
    def parts(own, home, r):
        given = gan, own, home, mapper, reader, r
        texts = np.concatenate([reader.prompt[None], reader.others])
        return (
            turned(*given, way, codes, weights),
            went(*given, codes),
            gan.images(home, codes),
            gan.images(own, codes),
            gan.images(own, codes * 1.3 + mapper["move"][None]),
            reader.pair.pictured(r, gan.images(home, codes))
            @ reader.pair.said(r, texts).T,
        )

    found, step, plain, same, moved, near = map(np.asarray, parts(own, home, read))
    lengths = np.linalg.norm(step, axis=1) * np.linalg.norm(way)
    held = near[:, 1:].max(1) > near[:, 0]
    assert held.sum() > 0
    gaps = [
        ((each - plain) ** 2).mean((1, 2, 3))[held].mean() for each in (moved, same)
    ]
    cosine = (step @ np.asarray(way)) / lengths
    expected = 2 * np.mean(1 + cosine) + 3 * gaps[0] + 5 * gaps[1]
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_a_weight_below_zero_is_refused():
    gan, variables, reader, read = scene()
    weights = Weights(stay=-1.0)
    with pytest.raises(ValueError, match="stay"):
        text_to_unlearn(KEY, gan, variables, reader, read, weights=weights)
