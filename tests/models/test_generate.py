import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sequences import LENGTH, WORDS, build, tokens, variables, written_out
from tiny import quick_jit

from unlearn_jax.models import MODELS
from unlearn_jax.models.generate import Sampling, filtered, generate

STEPS = 4


def greedy(row, steps=STEPS):
    """By the forward pass in numpy, the whole text anew for every token."""
    row = list(row)
    for _ in range(steps):
        row.append(int(written_out(variables().params, np.array(row))[-1].argmax()))
    return row[-steps:]


def run(prompts, **options):
    model = build(context=32, scan=options.pop("scan", False))
    known = options.pop("known", variables())
    go = quick_jit(lambda k, v, p: generate(k, model, v, p, steps=STEPS, **options))
    return np.asarray(go(jax.random.key(0), known, jnp.asarray(prompts)))


@pytest.fixture(scope="module")
def prompts():
    rows = tokens(3)
    rows[1, :4] = -1  # padding before
    rows[2, 2:] = -1  # and after
    return rows


@pytest.fixture(scope="module")
def texts(prompts):
    return run(prompts)


def test_greedy_texts_are_those_of_the_forward_pass_without_a_cache(prompts, texts):
    expected = [greedy(row[row >= 0]) for row in prompts]
    np.testing.assert_array_equal(texts, expected)
    assert texts.dtype == np.int32


def test_a_text_ends_with_the_end_and_nothing_comes_after(prompts, texts):
    end = int(texts[0, 1])
    got = run(prompts, end=end)
    for row, whole in zip(got, texts, strict=True):
        stop = [*whole, end].index(end) + 1
        np.testing.assert_array_equal(row[:stop], whole[:stop])
        assert (row[stop:] < 0).all()
    assert (got < 0).any()


def test_drawn_tokens_have_the_probabilities_of_the_model():
    rows = np.repeat(tokens(1), 2000, axis=0)
    drawn = run(rows, sampling=Sampling(temperature=0.7))
    logits = written_out(variables().params, rows[0])[-1] / 0.7
    shares = np.exp(logits) / np.exp(logits).sum()
    counts = np.bincount(drawn[:, 0], minlength=WORDS)
    spread = np.sqrt(len(rows) * shares * (1 - shares))
    assert (np.abs(counts - len(rows) * shares) < 4.5 * spread + 1).all()
    second = written_out(variables().params, np.append(rows[0], drawn[0, 0]))[-1] / 0.7
    after = drawn[drawn[:, 0] == drawn[0, 0], 1]
    shares = np.exp(second) / np.exp(second).sum()
    spread = np.sqrt(len(after) * shares * (1 - shares))
    counts = np.bincount(after, minlength=WORDS)
    assert (np.abs(counts - len(after) * shares) < 4.5 * spread + 1).all()


def test_only_the_likely_tokens_that_were_asked_for_are_drawn_from():
    logits = jnp.log(jnp.array([[0.1, 0.4, 0.2, 0.3]]))
    for sampling, kept in (
        (Sampling(1.0, top_k=2), [1, 3]),
        (Sampling(1.0, top_p=0.4), [1]),
        (Sampling(1.0, top_p=0.41), [1, 3]),
        (Sampling(1.0, top_k=3, top_p=0.8), [1, 2, 3]),
        (Sampling(1.0, top_k=3, top_p=0.7), [1, 3]),
        (Sampling(0.5, top_p=0.5), [1]),
        (Sampling(1.0, top_k=9), [0, 1, 2, 3]),
    ):
        found = filtered(logits, sampling)[0]
        assert np.flatnonzero(np.isfinite(found)).tolist() == kept, sampling
        scaled = np.asarray(logits[0] / sampling.temperature)
        np.testing.assert_array_equal(found[jnp.array(kept)], scaled[kept])


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (build(), {"steps": 1}, f"make {LENGTH + 1} positions and the context is 7"),
        (MODELS["linear"]((7,), 3), {"steps": 1}, "has no decoding"),
        (build(context=32), {"steps": 0}, "at least 1 step"),
        (
            build(context=32),
            {"steps": 1, "sampling": Sampling(1.0, top_p=0.0)},
            "top_p above 0",
        ),
    ],
)
def test_what_cannot_be_generated_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        generate(
            jax.random.key(0), model, variables(), jnp.asarray(tokens()), **options
        )
