"""Value vectors of the study of authors: which they are, and how far they moved."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments.authors.build import build
from experiments.authors.config import presets
from experiments.authors.vectors import Moved, head_of, mover, rows_of
from unlearn_jax.models.stacking import stack_blocks

SMOKE = presets("any")["smoke"]


def with_downs(params, change):
    blocks = {
        at: {**own, "down": {"kernel": change(own["down"]["kernel"])}}
        for at, own in params["blocks"].items()
    }
    return {**params, "blocks": blocks}


def test_value_vectors_stand_beside_the_originals_own():
    setting = build(dataclasses.replace(SMOKE, depth=2))
    start = setting.task.learner.model.init(jax.random.key(0))
    rows = rows_of(start.params)
    np.testing.assert_array_equal(rows, rows_of(stack_blocks(start).params))
    np.testing.assert_array_equal(
        rows[-len(rows) // 2 :], start.params["blocks"][1]["down"]["kernel"]
    )
    assert head_of(start.params).shape == (257, SMOKE.width)

    flat = ravel_pytree(start.params)[0]
    turned = ravel_pytree(with_downs(start.params, lambda own: -own))[0]
    originals = np.stack([flat, turned])
    moved = mover(setting, originals)
    same = Moved(1.0, pytest.approx(1.0, abs=1e-6))
    assert moved(originals) == [same, same]
    # Each beside the original of its own place; turned round they speak for others.
    for jaccard, cosine in moved(originals[::-1]):
        assert jaccard < 0.1
        assert cosine == pytest.approx(-1, abs=1e-6)


def test_only_vectors_that_the_forgotten_push_are_compared():
    setting = build(dataclasses.replace(SMOKE, depth=2))
    start = setting.task.learner.model.init(jax.random.key(0))
    # A gate of zero lets nothing through: no vector of that block has a gradient.
    closed = start.params["blocks"][0]
    closed = {**closed, "gate": {"kernel": 0 * closed["gate"]["kernel"]}}
    params = {**start.params, "blocks": {**start.params["blocks"], 0: closed}}
    flat = ravel_pytree(params)[0][None]
    down = {"kernel": -closed["down"]["kernel"]}
    blocks = {**params["blocks"], 0: {**closed, "down": down}}
    other = ravel_pytree({**params, "blocks": blocks})[0][None]
    assert mover(setting, flat)(other) == [Moved(1.0, pytest.approx(1.0, abs=1e-6))]
