import numpy as np
import pytest

from unlearn_jax.data.subsets import subset_masks


def test_every_row_holds_exactly_the_share_and_rows_differ():
    masks = subset_masks(3, 40, 25, 0.3)
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks.sum(axis=1), 8)  # round(7.5) is even
    assert set(np.unique(masks)) == {0, 1}
    assert len({row.tobytes() for row in masks}) > 38


def test_rows_depend_on_seed_and_number_alone_so_an_ensemble_can_grow():
    few, many = subset_masks(5, 3, 50, 0.5), subset_masks(5, 9, 50, 0.5)
    np.testing.assert_array_equal(many[:3], few)
    assert (subset_masks(6, 3, 50, 0.5) != few).any()


def test_every_example_is_drawn_equally_often():
    members, n, share = 2000, 12, 0.25
    rates = subset_masks(0, members, n, share).mean(axis=0)
    error = np.sqrt(share * (1 - share) / members)
    assert np.abs(rates - share).max() < 4 * error


def test_examples_that_must_be_there_are_and_count():
    masks = subset_masks(0, 30, 20, 0.5, always=np.array([4, 17, 4]))
    np.testing.assert_array_equal(masks[:, [4, 17]], 1)
    np.testing.assert_array_equal(masks.sum(axis=1), 10)
    others = np.delete(masks, [4, 17], axis=1).mean(axis=0)
    assert others.min() > 0
    assert others.max() < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed -1"),
        ({"members": 0}, "0 members"),
        ({"share": 0.01}, "share 0.01 of 20 examples is no subset"),
        ({"share": 1.5}, "share 1.5"),
        ({"always": np.array([20])}, "outside 0 to 19"),
        ({"always": np.ones(20, bool)}, "numpy.flatnonzero"),
        ({"always": np.arange(11)}, "11 examples must always be there"),
    ],
)
def test_impossible_values_are_refused(change, message):
    asked = {"seed": 0, "members": 2, "n": 20, "share": 0.5} | change
    with pytest.raises(ValueError, match=message):
        subset_masks(**asked)
