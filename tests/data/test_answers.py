"""Other answers: never the true class, in the place of the true answer, as read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.data.answers import check_bank, other_answers
from unlearn_jax.data.tokens import IGNORED, continuations

BATCH = continuations([[1, 2, 3], [4], [5, 5]], [[6, 6], [6], [6, 6, 6]], length=5)
BANK = ((7, 8), (9,))


def test_another_class_is_never_the_true_one_and_any_other():
    targets = jnp.repeat(jnp.arange(4, dtype=jnp.int32), 200)
    _, drawn = other_answers(jax.random.key(0), targets, targets, 4)
    counts = np.zeros((4, 4))
    np.add.at(counts, (np.asarray(targets), np.asarray(drawn)), 1)
    assert not np.diag(counts).any()
    off = counts[~np.eye(4, dtype=bool)]
    assert np.abs(off - 200 / 3).max() < 4.5 * np.sqrt(200 * 2 / 9)


def test_an_answer_of_the_bank_stands_where_the_true_one_stood():
    drawn = jax.jit(lambda k: other_answers(k, *BATCH[:2], 10, BANK))
    seen = set()
    for seed in range(8):
        inputs, targets = drawn(jax.random.key(seed))
        for row, prompt in enumerate(([1, 2, 3], [4], [5, 5])):
            answer = tuple(int(t) for t in targets[row] if t != IGNORED)
            # What was drawn by hand into the template is what came out.
            made = continuations([prompt], [answer], length=5)
            np.testing.assert_array_equal(targets[row], made.targets[0])
            asked = np.asarray(made.targets[0] != IGNORED)
            np.testing.assert_array_equal(
                inputs[row][asked], np.asarray(made.inputs[0])[asked]
            )
            assert answer in BANK
            seen.add(answer)
    assert seen == set(BANK)


def test_long_answers_are_cut_off_at_the_end_of_the_row():
    _, targets = other_answers(jax.random.key(0), *BATCH[:2], 10, ((7, 8, 7, 8, 7),))
    np.testing.assert_array_equal(targets[0], [IGNORED, IGNORED, 7, 8, 7])


def test_a_row_without_an_answer_stays():
    targets = np.full((1, 4), IGNORED, np.int32)
    inputs = np.arange(4, dtype=np.int32)[None]
    got = other_answers(jax.random.key(0), inputs, targets, 10, BANK)
    np.testing.assert_array_equal(got[0], inputs)
    np.testing.assert_array_equal(got[1], targets)


def test_any_tokens_are_read_as_they_are_asked_for():
    inputs, targets = other_answers(jax.random.key(0), *BATCH[:2], 10)
    kept = np.asarray(BATCH.targets) != IGNORED
    np.testing.assert_array_equal(np.asarray(targets) != IGNORED, kept)
    later = kept[:, :-1]
    np.testing.assert_array_equal(inputs[:, 1:][later], targets[:, :-1][later])
    before = np.asarray(inputs)[:, 1:][~later]
    np.testing.assert_array_equal(before, np.asarray(BATCH.inputs)[:, 1:][~later])


@pytest.mark.parametrize("bank", [((),), ((1, -2),)])
def test_banks_that_are_none_are_refused(bank):
    with pytest.raises(ValueError, match="expected token numbers"):
        check_bank(bank)


def test_tokens_out_of_range_and_banks_for_classes_are_refused():
    with pytest.raises(ValueError, match="token 9, expected tokens below 8"):
        other_answers(jax.random.key(0), *BATCH[:2], 8, BANK)
    classes = np.zeros(3, np.int32)
    with pytest.raises(ValueError, match="one class each"):
        other_answers(jax.random.key(0), classes, classes, 8, BANK)
