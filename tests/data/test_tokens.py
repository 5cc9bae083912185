"""Sequences: what is asked for stands where it should, and padding changes no loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_words

from unlearn_jax.data.questions import Template, encoded
from unlearn_jax.data.tokens import (
    END,
    IGNORED,
    byte_text,
    byte_tokens,
    continuations,
    lengthened,
    packed,
    read_text,
    sequences,
    windows,
)
from unlearn_jax.models.transformer import transformer
from unlearn_jax.train.asked import asked
from unlearn_jax.train.loss import sequence_nll


def test_bytes_come_back():
    for text in ("plain", "Grüße, 世界", ""):
        assert byte_text(byte_tokens(text)) == text
    assert byte_text([*byte_tokens("ab"), END, *byte_tokens("c")]) == "ab"


def test_only_answers_are_asked_for_one_step_ahead():
    batch = continuations([[1, 2, 3], [4]], [[5, 6], [1]], length=6, end=0)
    expected = [[1, 2, 3, 5, 6, 0], [4, 1, 0, 0, 0, 0]]
    np.testing.assert_array_equal(batch.inputs, expected)
    asked = [[IGNORED, IGNORED, 5, 6, 0, IGNORED], [1, 0] + [IGNORED] * 4]
    np.testing.assert_array_equal(batch.targets, asked)


@pytest.fixture(scope="module")
def model():
    reader = tiny_words.reader()
    return reader, reader.init(jax.random.key(0))


def losses(model, batch):
    reader, variables = model
    outputs = jax.jit(reader.apply)(variables, np.asarray(batch.inputs))
    return np.asarray(sequence_nll(outputs, batch.targets))


def test_the_loss_is_that_of_the_answer_alone_whatever_the_padding(model):
    reader, variables = model
    prompts, answers = [[1, 2, 3], [4], [2, 2]], [[5, 6], [1], [3, 0, 1]]
    batch = continuations(prompts, answers, length=5)
    whole = lengthened(batch, 9)
    foreign = whole._replace(
        inputs=np.where(np.arange(9) >= 5, 6, np.asarray(whole.inputs))
    )
    by_hand = []
    for prompt, answer in zip(prompts, answers, strict=True):
        outputs = reader.apply(variables, np.asarray([[*prompt, *answer]]))
        logp = jax.nn.log_softmax(outputs[0])
        at = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        picked = [logp[s, token] for s, token in zip(at, answer, strict=True)]
        by_hand.append(-np.mean(picked))
    for padded in (batch, whole, foreign):
        np.testing.assert_allclose(losses(model, padded), by_hand, rtol=1e-12)


def test_windows_ask_for_every_token_but_the_first_once():
    text = np.arange(11)
    batch = windows(text, 4)
    assert batch.inputs.shape == (3, 4)
    asked = batch.targets[batch.targets != IGNORED]
    np.testing.assert_array_equal(asked, text[1:])
    read = np.asarray(batch.inputs)[batch.targets != IGNORED]
    np.testing.assert_array_equal(read, text[:-1])


def test_sequences_are_shifted():
    batch = sequences(np.array([[1, 2, 3], [4, 5, 6]]))
    np.testing.assert_array_equal(batch.inputs, [[1, 2], [4, 5]])
    np.testing.assert_array_equal(batch.targets, [[2, 3], [5, 6]])


def test_questions_are_written_into_the_template():
    batch = encoded(
        [("why", "so")], byte_tokens, length=20, template=Template("[", "]", END)
    )
    assert byte_text(batch.inputs[0])[:7] == "[why]so"
    kept = batch.targets[0][batch.targets[0] >= 0]
    np.testing.assert_array_equal(kept, [*b"so", END])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: continuations([[1]], [[2], [3]], length=4), "one answer for each"),
        (lambda: continuations([[]], [[2]], length=4), "prompt of 0"),
        (lambda: continuations([[1]], [[]], length=4), "answer of 0"),
        (lambda: continuations([[1, 2]], [[3, 4]], length=2), "at most 3"),
        (lambda: windows([1], 4), "at least two"),
        (lambda: sequences(np.zeros((2, 1), int)), r"\(n, t \+ 1\)"),
        (lambda: encoded([], byte_tokens, length=4), "no question"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_text_files_are_read_whole_or_refused(tmp_path):
    path = tmp_path / "text"
    path.write_text("Grüße", "utf-8")
    assert read_text(path) == "Grüße"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="no UTF-8"):
        read_text(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        read_text(path)


def test_packed_tokens_are_as_likely_as_they_were():
    model = transformer((12,), 7, depth=1, width=8, heads=2, dtype=jnp.float64)
    variables = model.init(jax.random.key(0))
    prompts = [[1, 2, 3], [4], [2, 2], [5, 1, 6, 2], [3]]
    answers = [[5, 6], [1], [3, 0, 1], [6, 6], [2, 4]]
    batch = continuations(prompts, answers, length=6)
    rows = packed(batch, 12)
    assert len(rows.inputs) == 2
    likelihoods = [
        np.asarray(
            asked(
                jax.jit(model.apply)(variables, part.inputs), part.targets
            ).log_likelihoods[np.asarray(part.targets) != IGNORED]
        )
        for part in (batch, rows)
    ]
    np.testing.assert_allclose(likelihoods[1], likelihoods[0], rtol=1e-9)
    with pytest.raises(ValueError, match="1 to 5 tokens, expected from 1 to the 4"):
        packed(batch, 4)
    with pytest.raises(ValueError, match="weights other than 1"):
        packed(batch._replace(weights=np.zeros(5, np.float32)), 12)
