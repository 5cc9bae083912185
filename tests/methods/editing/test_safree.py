"""The guard: laws of its projections, triggers, and a prompt that is innocent."""

import jax
import numpy as np
import pytest
from edits import keys

from unlearn_jax.methods.editing.safree import left_out, safree
from unlearn_jax.methods.editing.spans import off, onto, span

D = 12
TABLE = np.linalg.qr(keys(D, 4, D))[0][:6]
"""An embedding for each of six words; 0 is the blank, and 5 the word to guard."""
TABLE[0] = 0
GUARDED = TABLE[5:6]


def encode(tokens):
    return TABLE[np.asarray(tokens)].sum(axis=1)


def guard(tokens, **options):
    return safree(
        TABLE[np.asarray(tokens)],
        np.asarray(left_out(encode, tokens)),
        GUARDED,
        **options,
    )


def test_a_projection_is_what_it_says():
    rows = keys(3, 7, D)
    basis, some = span(np.concatenate([rows, rows[:1] * 2])), keys(5, 8, D)
    assert np.sum(np.any(np.asarray(basis) != 0, axis=1)) == 3  # rank, not rows
    once = onto(basis, some)
    np.testing.assert_allclose(onto(basis, once), once, atol=1e-13)
    np.testing.assert_allclose(onto(basis, rows), rows, atol=1e-12)
    np.testing.assert_allclose(np.asarray(off(basis, some)) @ rows.T, 0, atol=1e-12)
    expected = some @ np.linalg.pinv(rows) @ rows
    np.testing.assert_allclose(once, expected, atol=1e-12)
    weighed = span(
        np.concatenate([rows, np.full((1, D), np.nan)]), np.array([1, 1, 1, 0])
    )
    np.testing.assert_allclose(onto(weighed, some), expected, atol=1e-12)


def test_the_word_is_filtered_and_the_others_stay():
    found = guard([1, 2, 5, 3])
    assert found.triggers.tolist() == [False, False, True, False]
    clean = np.asarray(found.embeddings)
    np.testing.assert_array_equal(clean[[0, 1, 3]], TABLE[[1, 2, 3]])
    np.testing.assert_allclose(clean @ GUARDED.T, 0, atol=1e-12)
    inside = span(left_out(encode, [1, 2, 5, 3]))
    before = off(span(GUARDED), onto(inside, TABLE[5:6]))
    np.testing.assert_allclose(clean[2:3], before, atol=1e-12)


def test_a_prompt_of_the_same_template_is_left_alone_in_the_concepts_direction():
    # Without the word no token moves the prompt along the concept: what is filtered, if
    # anything, loses nothing there.
    found = guard([1, 2, 4, 3], alpha=0.5)
    assert not np.any(found.triggers)
    np.testing.assert_array_equal(found.embeddings, TABLE[[1, 2, 4, 3]])


def test_steps_grow_with_what_the_projection_takes():
    calm, strong = guard([1, 2, 3, 4]), guard([5, 1])
    # One word of two is taken whole, the other not at all: beta is 1/2.
    expected = round(10 / (1 + np.exp(-5 * (5 - 5.333))))
    assert float(calm.steps) == 0
    assert float(strong.steps) == expected == 2
    assert float(guard([5, 1], middle=0.0).steps) == 10


def test_padding_is_not_there():
    tokens = [1, 2, 5, 3]
    plain = guard(tokens)
    hole = np.full((2, D), np.nan)
    padded = safree(
        np.concatenate([TABLE[tokens], hole]),
        np.concatenate([np.asarray(left_out(encode, tokens)), hole]),
        GUARDED,
        np.array([1, 1, 1, 1, 0, 0]),
    )
    np.testing.assert_allclose(padded.embeddings[:4], plain.embeddings, atol=1e-12)
    assert padded.triggers.tolist() == [*plain.triggers.tolist(), False, False]
    assert float(padded.steps) == float(plain.steps)


def test_under_jit_and_bad_shapes():
    tokens = [1, 2, 5, 3]
    given = TABLE[tokens], np.asarray(left_out(encode, tokens)), GUARDED
    found = jax.jit(safree)(*given)
    np.testing.assert_allclose(found.embeddings, safree(*given).embeddings, atol=1e-12)
    with pytest.raises(ValueError, match="at least one keyword"):
        safree(given[0], given[1], GUARDED[:0])
