import jax
import numpy as np
import pytest

from unlearn_jax.data.forget import (
    FORGET_KINDS,
    class_set,
    draw,
    file_set,
    partial_set,
    random_set,
    save_indices,
    sub_class_set,
)
from unlearn_jax.data.synthetic import gaussian_classes, quadratic


@pytest.fixture(scope="module")
def dataset():
    plain = gaussian_classes(0, (40, 8), classes=4, features=4)
    fine = np.asarray(plain.splits.train.targets) * 2 + np.arange(40) % 2
    return plain._replace(subclasses=fine.astype(np.int32))


def test_the_same_seed_draws_the_same_set_everywhere():
    np.testing.assert_array_equal(random_set(0, 20, 5), [2, 4, 6, 13, 19])
    np.testing.assert_array_equal(random_set(7, 100, 10), random_set(7, 100, 10))
    assert set(random_set(7, 100, 10)) != set(random_set(8, 100, 10))


def test_a_key_draws_like_a_seed_of_its_own():
    one, other = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(random_set(one, 100, 10), random_set(one, 100, 10))
    assert set(random_set(one, 100, 10)) != set(random_set(other, 100, 10))


def test_indices_are_sorted_unique_integers_in_range():
    for size in (1, 5, 99, 0.1, 0.001):
        indices = random_set(3, 100, size)
        assert indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()
        assert indices.min() >= 0
        assert indices.max() < 100


def test_a_fraction_is_rounded_to_a_count_of_at_least_one():
    assert random_set(0, 1437, 0.01).size == 14
    assert random_set(0, 10, 0.001).size == 1


def test_every_example_is_drawn_equally_often():
    counts = sum(np.bincount(random_set(s, 20, 5), minlength=20) for s in range(2000))
    expected, error = 500, np.sqrt(2000 * 0.25 * 0.75)
    assert np.abs(counts - expected).max() < 4 * error


def test_a_class_is_all_of_it_and_nothing_else(dataset):
    labels = np.asarray(dataset.splits.train.targets)
    indices = draw(dataset, kind="class", label=2)
    np.testing.assert_array_equal(indices, np.flatnonzero(labels == 2))


def test_a_sub_class_lies_inside_its_class(dataset):
    indices = draw(dataset, kind="sub_class", label=5)
    assert set(indices) < set(draw(dataset, kind="class", label=2))
    np.testing.assert_array_equal(indices, sub_class_set(dataset.subclasses, 5))


def test_a_saved_set_is_drawn_again_from_its_file(dataset, tmp_path):
    drawn = draw(dataset, kind="random", size=0.2, seed=5)
    path = save_indices(tmp_path / "forget.npy", drawn)
    np.testing.assert_array_equal(draw(dataset, kind="file", file=path), drawn)


def test_a_file_in_any_order_gives_a_sorted_set(tmp_path):
    path = save_indices(tmp_path / "forget.txt", [7, 3, 5])
    np.testing.assert_array_equal(file_set(path, 10), [3, 5, 7])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"kind": "hard"},
            "got forget set 'hard', expected one of random, class, sub_",
        ),
        ({"kind": "random"}, "forget set 'random' needs 'size'"),
        ({"kind": "class"}, "forget set 'class' needs 'label'"),
        ({"kind": "sub_class"}, "forget set 'sub_class' needs 'label'"),
        ({"kind": "file"}, "forget set 'file' needs 'file'"),
        (
            {"kind": "class", "label": 1, "size": 5},
            "forget set 'class' got 'size', expected 'label' only: leave 'size' out",
        ),
        (
            {"kind": "random", "size": 0},
            "got size 0, expected a count from 1 to 39 or a fraction",
        ),
        ({"kind": "random", "size": 40}, "got size 40, expected a count from 1 to 39"),
        (
            {"kind": "random", "size": 1.0},
            "got size 1.0, expected a fraction between 0",
        ),
        ({"kind": "random", "size": -0.1}, "write a count without a dot"),
        ({"kind": "random", "size": 0.999}, "holds all 40 training examples"),
        (
            {"kind": "class", "label": 9},
            "got label 9, which no training example has: choose one of 0, 1, 2, 3",
        ),
        ({"kind": "sub_class", "label": 8}, "choose one of 0, 1, 2, 3, 4, 5, 6, 7"),
    ],
)
def test_a_draw_that_makes_no_sense_is_one_sentence(dataset, arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        draw(dataset, **arguments)
    assert "\n" not in str(caught.value)


def test_a_regression_set_has_no_class_to_forget():
    dataset = quadratic(0, (10, 5))
    with pytest.raises(
        ValueError, match="regression data set 'quadratic', which has no"
    ):
        draw(dataset, kind="class", label=0)
    with pytest.raises(ValueError, match=r"got float32 labels of shape \(10, 1\)"):
        class_set(dataset.splits.train.targets, 0)


def test_a_set_without_finer_labels_says_so():
    dataset = gaussian_classes(0, (10, 5))
    with pytest.raises(ValueError, match="without finer labels: choose a set whose"):
        draw(dataset, kind="sub_class", label=0)


def test_a_class_that_is_everything_leaves_nothing_to_retain():
    with pytest.raises(ValueError, match="holds all 5 training examples"):
        class_set(np.zeros(5, np.int32), 0)


def test_every_kind_has_a_line_of_explanation():
    assert list(FORGET_KINDS) == ["random", "class", "sub_class", "file"]
    assert all(line and "\n" not in line for line in FORGET_KINDS.values())


def test_a_part_of_every_class_from_one_on():
    targets = np.repeat(np.arange(10), [20, 20, 20, 20, 20, 10, 20, 30, 40, 1])
    drawn = partial_set(3, targets, 5, 0.4)
    counts = np.bincount(targets[drawn], minlength=10)
    np.testing.assert_array_equal(counts, [0, 0, 0, 0, 0, 4, 8, 12, 16, 1])
    np.testing.assert_array_equal(drawn, np.unique(drawn))
    assert not np.array_equal(drawn, partial_set(4, targets, 5, 0.4))
    for words, says in (((5, 1.5), "share 1.5"), ((12, 0.4), "the last is 9")):
        with pytest.raises(ValueError, match=says):
            partial_set(0, targets, *words)
    with pytest.raises(ValueError, match="one integer per example"):
        partial_set(0, np.linspace(0, 1, 5), 0, 0.4)
