"""AUS by hand on models whose accuracies are counted out."""

import numpy as np
import pytest

from unlearn_jax.evaluation.aus import adaptive_unlearning_score
from unlearn_jax.evaluation.outputs import Scores, SplitOutputs

SIZES = {"retain": 10, "forget": 5, "test": 20, "unseen": 4}


def made(right, *, classes=(0, 1)):
    """A model with so many right answers on each split; forget and unseen of class 2
    unless they are of the retained ones."""
    parts = []
    for name, size in SIZES.items():
        own = classes if name in ("retain", "test") else (2,)
        targets = np.resize(np.asarray(own, np.int32), size)
        guesses = np.where(np.arange(size) < right[name], targets, (targets + 1) % 3)
        parts.append(Scores(np.eye(3)[guesses], targets))
    return SplitOutputs(*parts)


def test_a_class_is_scored_by_what_is_known_of_it_unseen():
    before = made({"retain": 10, "forget": 5, "test": 18, "unseen": 4})
    after = made({"retain": 10, "forget": 5, "test": 16, "unseen": 1})
    assert adaptive_unlearning_score(after, before) == pytest.approx(0.9 / 1.25)
    ideal = made({"retain": 10, "forget": 5, "test": 18, "unseen": 0})
    assert adaptive_unlearning_score(ideal, before) == 1


def test_a_random_set_is_scored_by_its_distance_to_the_test_set():
    classes = (0, 1, 2)
    before = made({"retain": 10, "forget": 5, "test": 15, "unseen": 4}, classes=classes)
    after = made({"retain": 10, "forget": 3, "test": 16, "unseen": 4}, classes=classes)
    assert adaptive_unlearning_score(after, before) == pytest.approx(1.05 / 1.2)
