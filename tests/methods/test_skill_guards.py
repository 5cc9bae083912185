"""Guards: a box that holds its own keys, gates with the retain set's moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sequences
from tiny import quick_jit

from unlearn_jax.curvature.layer_inputs import layer_inputs
from unlearn_jax.methods.skill_guards import (
    adjusted,
    adjustment,
    inside,
    key_space,
    last_keys,
    with_refusals,
)
from unlearn_jax.models.gated import gated
from unlearn_jax.models.transformer import Shape
from unlearn_jax.types import Variables

SHAPE = Shape(sequences.WORDS, sequences.LENGTH, **sequences.SIZES)


def test_the_box_holds_all_its_keys_and_no_smaller_one_does():
    keys = jnp.asarray(np.random.default_rng(0).normal(size=(30, 5)))
    keys = keys.at[:, 4].set(7.0)
    space = key_space(keys)
    assert bool(inside(space, keys).all())
    assert int(inside(space, keys, alpha=1 - 1e-9).sum()) == 29
    far = keys + jnp.array([0, 0, 0, 0, 1e-3])[None]
    assert not bool(inside(space, far).any())
    # One dimension far outside is enough: every example is looked at, not the first.
    mixed = keys.at[3, 1].add(100.0)
    with pytest.raises(ValueError, match="forgotten prompts must be at least 1"):
        key_space(keys[:0])
    with pytest.raises(ValueError, match="retained tokens must be at least 1"):
        adjustment(keys, keys[:0])
    assert np.flatnonzero(~np.asarray(inside(space, mixed))).tolist() == [3]


def test_a_prompt_of_the_forget_set_is_refused_by_its_key():
    variables, rows = sequences.variables(), sequences.tokens(6)
    rows[:, 5:] = -1
    rows[2, 4:] = -1
    model = sequences.build()

    def read(tokens):
        def predict(params, inputs):
            return model.apply(Variables(params, {}), inputs)

        found = layer_inputs(predict, variables.params, tokens, "blocks/1/down/kernel")
        return last_keys(found.keys, tokens), found.keys

    last, keys = quick_jit(read)(jnp.asarray(rows))
    np.testing.assert_array_equal(last[0], keys[0, 4])
    np.testing.assert_array_equal(last[2], keys[2, 3])
    found = inside(key_space(last[:4]), last)
    assert found[:4].all()
    answers = jnp.ones((6, 4), jnp.int32)
    told = with_refusals(answers, jnp.arange(6) < 2, (9, 8))
    np.testing.assert_array_equal(told[0], [9, 8, -1, -1])
    np.testing.assert_array_equal(told[2:], answers[2:])
    with pytest.raises(ValueError, match="shorten"):
        with_refusals(answers, found, (1, 2, 3, 4, 5))


def test_raised_gates_get_the_moments_of_the_retain_set():
    draw = np.random.default_rng(1).normal
    forget = jnp.asarray(draw(size=(20_000, 3)) * 0.5 + np.array([6.0, 0, -6.0]))
    retain = jnp.asarray(draw(size=(20_000, 3)) * 2.0)
    known = adjustment(forget, retain, share=0.34)
    assert known.chosen.tolist() == [True, False, False]
    moved = adjusted(jax.random.key(0), forget, known)
    np.testing.assert_array_equal(moved[:, 1:], forget[:, 1:])
    replaced = moved[:, 0] != forget[:, 0]
    assert 0.9 < float(replaced.mean()) < 1
    # Reflected: what stood above the forget mean stands below the retain mean.
    own = (forget[:, 0] - 6.0)[replaced]
    new = moved[:, 0][replaced]
    np.testing.assert_allclose(np.corrcoef(own, new)[0, 1], -1, atol=1e-9)
    assert abs(float(new.mean())) < 0.1
    assert abs(float(new.std()) - 2) < 0.15
    kept = adjusted(jax.random.key(0), retain, known)
    assert float((kept != retain).mean()) < 0.02


def test_gates_that_pass_unchanged_are_the_model_and_changed_ones_are_not():
    variables, rows = sequences.variables(), sequences.tokens()
    plain = sequences.build()

    def outputs(rows):
        same = gated(SHAPE, {0: lambda v: v, 1: lambda v: v}, dtype=jnp.float64)
        shut = gated(SHAPE, {1: lambda v: v - 60.0}, dtype=jnp.float64)
        cut = jax.tree.map(lambda leaf: leaf, variables.params)
        cut["blocks"][1]["down"]["kernel"] = 0 * cut["blocks"][1]["down"]["kernel"]
        models = ((plain, variables), (same, variables), (shut, variables))
        return [m.apply(v, rows) for m, v in (*models, (plain, Variables(cut, {})))]

    first, same, shut, cut = quick_jit(outputs)(rows)
    np.testing.assert_array_equal(same, first)
    # A gate far below zero is shut: as if the block's product were not there.
    np.testing.assert_allclose(shut, cut, rtol=0, atol=1e-12)
    assert np.abs(shut - first).max() > 1e-3
    for shape, block in ((SHAPE, 2), (SHAPE._replace(scan=True), 0)):
        with pytest.raises(ValueError, match="scan=False"):
            gated(shape, {block: lambda v: v})
