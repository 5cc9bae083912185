"""The study of sequences of edits: carried sums are the batch, the reset is not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.editing import measure
from experiments.editing.config import presets
from experiments.editing.ways import WAYS, Given, batch
from unlearn_jax import tree
from unlearn_jax.methods.editing.maps import outputs
from unlearn_jax.methods.editing.rows import anchor_rows, join_rows

CONFIG = presets("any")["smoke"]
D, L2 = 8, 0.1


@pytest.fixture(scope="module")
def ended():
    """Maps after six random requests, by way; what was given, and the requests."""
    random = np.random.default_rng(0)
    maps = {"k": jnp.asarray(random.normal(size=(D, 3)))}
    kept = jnp.asarray(random.normal(size=(5, D)))
    given = Given(maps, kept, 0.1)
    requests = [
        tuple(map(jnp.asarray, (*random.normal(size=(2, 2, D)), np.array([0.0, 1.0]))))
        for _ in range(6)
    ]
    found = {}
    for name, way in WAYS.items():
        step = jax.jit(way.step, static_argnums=1)
        state = way.start(given, L2, 3)
        for request in requests:
            state = step(given, L2, state, *request)
        found[name] = way.maps(given, state)
    return given, requests, found


def test_carried_sums_are_the_batch_and_the_reset_is_not(ended):
    given, requests, found = ended
    rows = join_rows(*(anchor_rows(given.maps, *each) for each in requests))
    whole = batch(given, L2, rows)
    size = float(tree.norm(tree.subtract(whole, given.maps)))
    for name, apart in (("carried", 1e-10), ("reset", np.inf)):
        gap = float(tree.norm(tree.subtract(found[name], whole))) / size
        assert gap < apart
        assert (gap > 0.1) == (name == "reset")


def test_in_the_null_space_what_is_kept_stays(ended):
    given, _, found = ended
    before = outputs(given.maps, given.kept)
    moved = {
        name: float(jnp.abs(outputs(maps, given.kept) - before).max())
        for name, maps in found.items()
    }
    assert moved["null space"] < 1e-10 < min(moved["reset"], moved["carried"])


def test_requests_name_odd_digits_and_their_anchors_the_even_ones_before():
    setting = measure.build(CONFIG)
    sentences = measure.erasable(setting)
    assert len(sentences.tokens) == len({tuple(row) for row in sentences.tokens})
    assert set(sentences.classes) == {1, 3, 5, 7, 9}
    differs = sentences.tokens != sentences.anchors
    assert np.all(differs.sum(1) == 1)
    words = setting.wanted.grammar.words
    for row in range(5):
        place = int(np.argmax(differs[row]))
        asked, instead = (
            words[each[row, place]] for each in (sentences.tokens, sentences.anchors)
        )
        label = sentences.classes[row]
        assert asked in setting.wanted.grammar.classes[label]
        assert instead in setting.wanted.grammar.classes[label - 1]


def test_more_requests_than_there_are_and_too_many_directions_are_refused():
    for options, says in (
        ({"counts": (10_000,)}, "got 10000 requests, expected at most"),
        ({"free": 17}, "free is 17, expected at most text_width, 16"),
    ):
        with pytest.raises(ValueError, match=says):
            measure.build(dataclasses.replace(CONFIG, **options))
