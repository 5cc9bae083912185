import importlib.util

import numpy as np
import pytest

from unlearn_jax.data import digits as room
from unlearn_jax.data.checks import check
from unlearn_jax.data.diabetes import diabetes
from unlearn_jax.data.digits import GROUPS, digits, digits_coarse


def test_digits_are_the_whole_shipped_set_split_once():
    dataset = digits()
    train, test = dataset.splits
    assert train.inputs.shape == (1437, 8, 8, 1)
    assert test.inputs.shape == (360, 8, 8, 1)
    for split in (train, test):
        assert split.inputs.dtype == np.float32
        check(split, task="classification", classes=10, name="digits")
    counts = np.bincount(np.concatenate([train.targets, test.targets]))
    np.testing.assert_array_equal(
        counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    )


def test_each_digit_keeps_its_share_in_the_test_set():
    train, test = (np.bincount(split.targets) for split in digits().splits)
    assert np.abs(test - (train + test) / 5).max() < 1


def test_the_split_is_pinned():
    # Published numbers rest on this split: a new numpy must not move it unnoticed.
    test = digits().splits.test
    np.testing.assert_array_equal(
        test.targets[:12], [8, 6, 9, 9, 1, 1, 0, 1, 2, 7, 6, 6]
    )


def test_training_pixels_have_mean_zero_and_deviation_one():
    inputs = np.asarray(digits().splits.train.inputs, np.float64)
    assert abs(inputs.mean()) < 1e-6
    assert abs(inputs.std() - 1) < 1e-6


def test_coarse_digits_are_the_same_images_in_pairs():
    fine, coarse = digits(), digits_coarse()
    groups = {digit: group for group, pair in enumerate(GROUPS) for digit in pair}
    assert sorted(groups) == list(range(10))
    for one, other, subclasses in zip(
        fine.splits,
        coarse.splits,
        (coarse.subclasses, coarse.test_subclasses),
        strict=True,
    ):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.targets, subclasses)
        np.testing.assert_array_equal(other.targets, [groups[d] for d in subclasses])
        assert subclasses.dtype == other.targets.dtype == np.int32
        check(other, task="classification", classes=5, name="digits_coarse")


def test_diabetes_is_standardised_by_its_training_part():
    dataset = diabetes()
    train, test = dataset.splits
    assert train.inputs.shape == (354, 10)
    assert train.targets.shape == (354, 1)
    assert test.inputs.shape == (88, 10)
    for values in (train.inputs, train.targets):
        values = np.asarray(values, np.float64)
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-6)
    for split in (train, test):
        check(split, task="regression", classes=1, name="diabetes")


def test_ridge_explains_as_much_of_diabetes_as_is_known():
    from sklearn.linear_model import Ridge

    train, test = diabetes().splits
    model = Ridge(alpha=1.0).fit(train.inputs, train.targets)
    assert 0.3 < model.score(test.inputs, test.targets) < 0.65


@pytest.mark.parametrize("load", [digits, digits_coarse, diabetes])
def test_without_scikit_learn_the_extra_is_named(monkeypatch, load):
    monkeypatch.setattr(room, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'unlearn_jax\[experiments\]'"):
        load()


def test_scikit_learn_is_there_for_these_tests():
    assert importlib.util.find_spec("sklearn") is not None
    assert room.sklearn_missing() is None
