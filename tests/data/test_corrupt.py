import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.data.batch import from_arrays
from unlearn_jax.data.corrupt import (
    confuse_classes,
    known_part,
    make_patch,
    mislabel,
    poison,
    with_patch,
)

CLASSES = 4


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    images = random.normal(size=(60, 6, 5, 2)).astype(np.float32)
    weights = np.ones(60, np.float32)
    weights[[3, 17, 40]] = 0
    return from_arrays(images, np.arange(60) % CLASSES, weights)


def untouched(batch, found):
    """Everything outside the indices is bit for bit as it was."""
    others = np.setdiff1d(np.arange(60), found.indices)
    for before, after in zip(batch, found.data, strict=True):
        np.testing.assert_array_equal(np.asarray(before)[others], after[others])
        assert np.asarray(before).dtype == after.dtype
    np.testing.assert_array_equal(found.clean_targets, batch.targets)
    np.testing.assert_array_equal(found.indices, np.unique(found.indices))
    assert found.indices.dtype == np.int64
    assert (batch.weights[found.indices] > 0).all()


def test_a_poisoned_example_has_patch_and_target_and_no_other_change(batch):
    patch = make_patch(batch)
    found = poison(batch, 9, patch, target=2, seed=5)
    untouched(batch, found)
    assert len(found.indices) == 9
    assert (found.data.targets[found.indices] == 2).all()
    assert (found.clean_targets[found.indices] != 2).all()
    largest = batch.inputs[batch.weights > 0].max(axis=(0, 1, 2))
    images = found.data.inputs[found.indices]
    assert (images[:, 3:, 2:] == largest).all()
    before = batch.inputs[found.indices]
    np.testing.assert_array_equal(images[:, :3], before[:, :3])
    np.testing.assert_array_equal(images[:, :, :2], before[:, :, :2])


def test_the_published_draw_may_hit_the_target_class(batch):
    patch = make_patch(batch)
    with pytest.raises(ValueError, match="expected 1 to 43"):
        poison(batch, 57, patch, target=0)
    found = poison(batch, 57, patch, target=0, spare_target=False)
    assert (found.clean_targets[found.indices] == 0).any()
    assert set(found.indices) == set(np.flatnonzero(batch.weights))


def test_a_patch_lies_where_it_is_told(batch):
    patch = make_patch(batch, size=2, row=1, column=0, value=7.0)
    found = with_patch(batch, patch)
    assert (found.inputs[:, 1:3, :2] == 7).all()
    assert (found.inputs == 7).sum() == 60 * 2 * 2 * 2
    np.testing.assert_array_equal(found.targets, batch.targets)
    assert not (batch.inputs == 7).any()  # the input is not written to


def test_arrays_of_a_device_are_taken_too(batch):
    moved = batch._replace(inputs=jnp.asarray(batch.inputs))
    patch = make_patch(moved)
    np.testing.assert_array_equal(
        with_patch(moved, patch).inputs, with_patch(batch, make_patch(batch)).inputs
    )


def test_a_patch_ignores_examples_that_are_not_there(batch):
    images = batch.inputs.copy()
    images[3] = np.nan
    spoilt = batch._replace(inputs=images)
    np.testing.assert_array_equal(make_patch(spoilt).value, make_patch(batch).value)


def test_confused_classes_swap_as_many_labels_each_way(batch):
    first = confuse_classes(batch, 10, 1, 3)
    untouched(batch, first)
    ones, threes = (
        np.flatnonzero((batch.targets == c) & (batch.weights > 0)) for c in (1, 3)
    )
    expected = np.sort(np.concatenate([ones[:5], threes[:5]]))
    np.testing.assert_array_equal(first.indices, expected)
    labels = first.data.targets
    assert (labels[ones[:5]] == 3).all()
    assert (labels[threes[:5]] == 1).all()
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(batch.targets))
    drawn = confuse_classes(batch, 10, 1, 3, seed=0)
    untouched(batch, drawn)
    assert set(drawn.indices) != set(first.indices)


def test_mislabelled_examples_are_wrong_and_wrong_labels_equally_likely(batch):
    shifts = np.zeros(CLASSES)
    for seed in range(200):
        found = mislabel(batch, 15, classes=CLASSES, seed=seed)
        old, new = found.clean_targets, found.data.targets
        shifts += np.bincount((new - old)[found.indices] % CLASSES, minlength=CLASSES)
    untouched(batch, found)
    assert shifts[0] == 0
    error = np.sqrt(3000 * (1 / 3) * (2 / 3))
    assert np.abs(shifts[1:] - 1000).max() < 4 * error


def test_known_parts_are_nested_and_end_with_all():
    indices = np.arange(5, 45)
    parts = [known_part(indices, g / 10, seed=3) for g in range(1, 11)]
    assert [len(part) for part in parts] == list(range(4, 41, 4))
    for small, large in itertools.pairwise(parts):
        assert set(small) < set(large)
        assert (np.diff(large) > 0).all()
    np.testing.assert_array_equal(parts[-1], indices)
    assert len(known_part(indices, 1e-3)) == 1
    assert set(known_part(indices, 0.5)) != set(known_part(indices, 0.5, seed=1))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda b: make_patch(b, size=6), "does not fit images of 6 by 5"),
        (lambda b: make_patch(b, row=4), "at row 4, column 2 does not fit"),
        (
            lambda b: make_patch(b._replace(inputs=b.inputs[:, 0, 0])),
            r"expected images \(n, height, width, channels\)",
        ),
        (lambda b: poison(b, 0, make_patch(b)), "poison got size 0"),
        (lambda b: confuse_classes(b, 7, 1, 3), "expected an even size"),
        (lambda b: confuse_classes(b, 4, 1, 1), "expected an even size"),
        (lambda b: confuse_classes(b, 50, 1, 2), "class 1 has 14 examples only"),
        (lambda b: mislabel(b, 58, classes=4), "expected 1 to 57"),
        (lambda b: mislabel(b, 3, classes=1), "no wrong label"),
        (
            lambda b: mislabel(b._replace(targets=b.inputs[:, 0, 0]), 3, classes=2),
            "classification only",
        ),
        (lambda b: known_part(np.arange(3), 0.0), "0 < fraction <= 1"),
        (lambda b: known_part([], 0.5), "at least one index"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(batch, call, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        call(batch)
    assert "\n" not in str(caught.value)
