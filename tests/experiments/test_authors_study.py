"""The study of authors: who is asked about, what is unlearned, and how it is judged."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import authors
from experiments.authors.build import PARTS, REFUSALS
from experiments.authors.config import presets
from experiments.authors.judge import Heard, _in_blocks
from experiments.authors.measure import _against, auc_of
from unlearn_jax.data.tokens import END, byte_text
from unlearn_jax.types import Batch

SMOKE = presets("any")["smoke"]


@pytest.fixture(scope="module")
def setting():
    return authors.build.build(dataclasses.replace(SMOKE, retain=4))


def texts(batch, kept):
    return {
        byte_text([int(t) for t in row if t >= 0])
        for row, weight in zip(np.asarray(batch.targets), kept, strict=True)
        if weight > 0
    }


def test_oracles_know_all_but_the_forgotten_and_a_request_holds_authors_alone(setting):
    request, oracle = setting.task.request, setting.oracle
    told = {
        part: {one.answer for one in questions}
        for part, questions in setting.questions.items()
    }
    assert tuple(told) == PARTS
    forgotten = texts(request.forget, request.forget.weights)
    known, held = (texts(b, b.weights) for b in (oracle, request.retain))
    assert forgotten == told["forget"]
    assert not forgotten & known
    assert told["real"] | told["world"] | told["retain"] <= known
    assert told["retain"] <= held
    assert not held & (told["real"] | told["world"] | told["holdout"])
    # Every second author in two wordings: 4 authors of 2 facts, and 2 of them again.
    assert np.sum(np.asarray(request.retain.weights)) == 4 * 2 + 2 * 2
    assert texts(setting.task.unseen, setting.task.unseen.weights) == told["holdout"]
    assert setting.task.costs.answers[0] == (*REFUSALS[0].encode(), END)


def test_blocks_give_what_the_whole_gives():
    rows = np.arange(21 * 3).reshape(21, 3)
    batch = Batch(jnp.asarray(rows), jnp.asarray(2 * rows), jnp.ones(21))
    found = _in_blocks(lambda x, y: (x + y, y[:, 0]), batch)
    np.testing.assert_array_equal(found[0], 3 * rows)
    np.testing.assert_array_equal(found[1], 2 * rows[:, 0])


def test_quality_and_leak_stand_beside_retrained_models():
    same = np.linspace(0.5, 1.5, 40)
    oracle = Heard({}, same, (np.arange(10.0), np.arange(10.0)))
    known = Heard({}, same - 2, (np.arange(10.0) + 20, np.arange(10.0)))
    assert auc_of(oracle) == 0.5
    assert auc_of(known) == 0.0
    rows = {row.metric: row.value for row in _against(known, [oracle, oracle], {})}
    assert rows["quality_distance"] == 1
    assert rows["forget_quality"] == rows["quality_floor"] < 1e-20
    assert rows["privacy_leak"] == -100
    (failed,) = _against(known._replace(ratios=same * np.nan), [oracle], {})
    assert failed.value is None
    assert "destroyed" in failed.failure


def test_published_weights_and_tofu_go_together(tmp_path):
    with pytest.raises(ValueError, match="give the other one too"):
        authors.build.build(dataclasses.replace(SMOKE, tofu=tmp_path))
