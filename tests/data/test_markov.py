"""Markov mixtures: the matrices are what the sequences follow."""

import numpy as np
import pytest

from unlearn_jax.data.markov import (
    START,
    draw_chains,
    draw_sequences,
    markov,
    true_log_probabilities,
)
from unlearn_jax.data.tokens import IGNORED


def test_rows_are_distributions_with_the_leakage_that_was_asked():
    chains = draw_chains(0, leakage=0.3)
    assert chains.matrices.shape == (3, 10, 10)
    np.testing.assert_allclose(chains.matrices.sum(2), 1, rtol=1e-12)
    assert not chains.matrices[:, :, START].any()
    for c, matrix in enumerate(chains.matrices):
        own = matrix[:, 1 + 3 * c : 4 + 3 * c].sum(1)
        np.testing.assert_allclose(own, 0.7, rtol=1e-12)


def test_frequencies_of_steps_are_the_matrix_within_their_error():
    chains = draw_chains(1)
    batch = draw_sequences(2, chains, 1, 4000, length=12)
    np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert (batch.inputs[:, 0] == START).all()
    counts = np.zeros((10, 10))
    np.add.at(counts, (batch.inputs, batch.targets), 1)
    visits = counts.sum(1, keepdims=True)
    true = chains.matrices[1]
    error = np.sqrt(true * (1 - true) / visits)
    off = np.abs(counts / visits - true) - 1e-12
    assert (off <= 4.5 * error).all()


def test_the_truth_is_the_entropy_that_sequences_show():
    dataset, chains = markov(0, (2000, 500, 500), tests=(10, 10, 10))
    train = dataset.splits.train
    logs = true_log_probabilities(chains, train.inputs, dataset.subclasses)
    picked = np.take_along_axis(logs, train.targets[..., None], 2)[..., 0]
    p = np.exp(logs)
    entropy = -np.sum(p * np.where(p > 0, logs, 0), axis=2)
    gap = (-picked - entropy).mean(1)
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))


def test_shorter_chains_stop_being_asked():
    dataset, _ = markov(0, (4, 3, 2), tests=(1, 1, 1), lengths=(8, 8, 3))
    train = dataset.splits.train
    np.testing.assert_array_equal(dataset.subclasses, [0] * 4 + [1] * 3 + [2] * 2)
    asked = (train.targets != IGNORED).sum(1)
    np.testing.assert_array_equal(asked, [8] * 7 + [3] * 2)
    assert dataset.classes == 10


def test_seeds_and_splits_differ_and_repeat():
    a, b, c = (markov(s, (5, 5), tests=(5, 5), lengths=(9, 9))[0] for s in (3, 3, 4))
    np.testing.assert_array_equal(a.splits.train.inputs, b.splits.train.inputs)
    assert (a.splits.train.inputs != c.splits.train.inputs).any()
    assert (a.splits.train.inputs != a.splits.test.inputs).any()


def test_a_chain_may_be_one_that_nobody_is_trained_on():
    dataset, chains = markov(3, (5, 4, 0), tests=(2, 2, 2), lengths=(9, 9, 9))
    assert chains.names == ("retain", "forget1", "unseen2")
    np.testing.assert_array_equal(dataset.subclasses, [0] * 5 + [1] * 4)
    np.testing.assert_array_equal(dataset.test_subclasses, [0, 0, 1, 1, 2, 2])


def test_impossible_mixtures_are_refused():
    with pytest.raises(ValueError, match="one number of at least 1"):
        markov(0, (5, 5), tests=(5,))
    for counts in ((0, 0), (0, 5)):
        with pytest.raises(ValueError, match="but 0 for last ones"):
            markov(0, counts, tests=(5, 5), lengths=(9, 9))
    with pytest.raises(ValueError, match="leakage 1"):
        draw_chains(0, leakage=1.0)
