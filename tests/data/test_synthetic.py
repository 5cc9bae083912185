import numpy as np
import pytest

from unlearn_jax.data.checks import check
from unlearn_jax.data.synthetic import (
    gaussian_classes,
    gaussian_means,
    linear_regression,
    linear_weights,
    quadratic,
)

MAKERS = [quadratic, linear_regression, gaussian_classes]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_problem_is_sound_and_as_large_and_precise_as_asked(make, dtype):
    dataset = make(0, (50, 20), dtype=dtype)
    assert [len(split.targets) for split in dataset.splits] == [50, 20]
    for split in dataset.splits:
        assert split.inputs.dtype == split.weights.dtype == dtype
        check(split, task=dataset.task, classes=dataset.classes, name=dataset.name)


@pytest.mark.parametrize("make", MAKERS)
def test_the_seed_decides_the_numbers(make):
    first, again, other = (make(seed, (10, 5)).splits.train for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.inputs, again.inputs)
    np.testing.assert_array_equal(first.targets, again.targets)
    assert (np.asarray(first.inputs) != other.inputs).any()


def test_the_curvature_of_the_quadratic_is_the_one_asked_for():
    eigenvalues = (2.0, 0.5, 0.001)
    train = quadratic(
        0, (30, 5), eigenvalues=eigenvalues, dtype=np.float64
    ).splits.train
    inputs = np.asarray(train.inputs)
    np.testing.assert_allclose(inputs.T @ inputs / 30, np.diag(eigenvalues), atol=1e-14)


def test_the_minimum_of_the_quadratic_is_all_ones_and_zero():
    for split in quadratic(0, (30, 5), dtype=np.float64).splits:
        outputs = np.asarray(split.inputs) @ np.ones((5, 1))
        np.testing.assert_allclose(outputs, split.targets, atol=1e-14)


def test_least_squares_finds_the_known_weights_within_their_error():
    noise, n = 0.1, 4000
    train = linear_regression(3, (n, 1), outputs=2, noise=noise, dtype=np.float64)
    inputs, targets, _ = (np.asarray(field) for field in train.splits.train)
    found = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    error = noise * np.sqrt(np.diag(np.linalg.inv(inputs.T @ inputs)))
    difference = np.abs(found - linear_weights(3, outputs=2))
    assert (difference < 4 * error[:, None]).all()
    residual = targets - inputs @ found
    assert abs(residual.std() / noise - 1) < 4 / np.sqrt(2 * residual.size)


def test_linear_regression_without_noise_is_solved_exactly():
    train = linear_regression(0, (20, 1), noise=0.0, dtype=np.float64).splits.train
    outputs = np.asarray(train.inputs) @ linear_weights(0)
    np.testing.assert_allclose(outputs, train.targets, atol=1e-14)


def test_classes_are_balanced_around_their_known_means():
    dataset = gaussian_classes(0, (4000, 8), dtype=np.float64)
    inputs, labels = (np.asarray(field) for field in dataset.splits.train[:2])
    np.testing.assert_array_equal(np.bincount(labels), [1000] * 4)
    means = np.stack([inputs[labels == c].mean(axis=0) for c in range(4)])
    assert np.abs(means - gaussian_means()).max() < 4.5 / np.sqrt(1000)


def test_the_known_classifier_is_as_good_as_theory_says():
    dataset = gaussian_classes(0, (20000, 8), classes=2, features=2, separation=1.0)
    inputs, labels = (np.asarray(field) for field in dataset.splits.train[:2])
    means = gaussian_means(classes=2, features=2, separation=1.0)
    logits = inputs @ means.T - (means**2).sum(axis=1)[None] / 2
    accuracy = (logits.argmax(axis=1) == labels).mean()
    expected = 0.7602  # Φ(√2 / 2): the means are √2 apart
    assert abs(accuracy - expected) < 4 * np.sqrt(expected * (1 - expected) / 20000)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: quadratic(0, (3, 1)), "got 3 train examples for 5 eigenvalues"),
        (lambda: linear_regression(0, (3, 0)), r"got sizes \(3, 0\), expected a train"),
        (lambda: gaussian_classes(0, (0, 3)), r"got sizes \(0, 3\), expected a train"),
        (
            lambda: gaussian_classes(0, (9, 9), classes=9),
            "got 8 features for 9 classes",
        ),
    ],
)
def test_a_problem_that_cannot_be_made_is_one_sentence(act, sentence):
    with pytest.raises(ValueError, match=sentence):
        act()
