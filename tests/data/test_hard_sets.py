import numpy as np
import pytest

from experiments.frame.requests import check_request, draw_request, parse_request
from unlearn_jax.data.hard_sets import (
    HARD_KINDS,
    clustered_set,
    draw_hard,
    highest_set,
    lowest_set,
    principal_scores,
)
from unlearn_jax.data.synthetic import gaussian_classes, quadratic


@pytest.fixture(scope="module")
def features():
    random = np.random.default_rng(0)
    return 3 + random.normal(size=(50, 7)) * 2.0 ** -np.arange(7)


@pytest.fixture(scope="module")
def dataset():
    return gaussian_classes(0, (40, 8), classes=4, features=4)


@pytest.mark.parametrize("direction", [0, 2])
@pytest.mark.parametrize("wide", [False, True])
def test_principal_scores_are_those_of_the_singular_vectors(features, direction, wide):
    values = features[:5] if wide else features
    u, s, _ = np.linalg.svd(values - values.mean(0))
    expected = u[:, direction] * s[direction]
    found = principal_scores(values, direction)
    sign = np.sign(found @ expected)
    np.testing.assert_allclose(found, sign * expected, atol=1e-12)


def test_the_sketched_direction_is_the_exact_one(monkeypatch, features):
    exact = [principal_scores(features, d) for d in (0, 1)]
    monkeypatch.setattr("unlearn_jax.data.hard_sets._EXACT_FEATURES", 1)
    monkeypatch.setattr("unlearn_jax.data.hard_sets._OVERSAMPLE", 2)
    for direction, expected in enumerate(exact):
        found = principal_scores(features, direction)
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_a_planted_cluster_is_found_within_its_class():
    random = np.random.default_rng(1)
    labels = np.arange(90) % 3
    features = random.normal(size=(90, 4, 2))
    planted = np.flatnonzero(labels == 1)[::3]
    features[planted] += 8.0
    found = clustered_set(features, 10, labels=labels, label=1)
    np.testing.assert_array_equal(found, planted)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(
        clustered_set(features, 1 / 3, labels=labels, label=1), planted
    )
    other = clustered_set(features, 20, labels=labels, label=1, side="low")
    assert set(other) == set(np.flatnonzero(labels == 1)) - set(planted)


def test_the_first_direction_is_stretched_most(features):
    """Two roads: the ends of the largest variance are where the first entry is."""
    found = clustered_set(features * [100, 1, 1, 1, 1, 1, 1], 8)
    expected = np.sort(np.argsort(features[:, 0])[-8:])
    np.testing.assert_array_equal(found, expected)


def test_highest_and_lowest_are_the_ends_of_the_order():
    scores = np.array([3, -1, 3, 0, 7, 3])
    np.testing.assert_array_equal(highest_set(scores, 2), [0, 4])
    np.testing.assert_array_equal(highest_set(scores, 0.5), [0, 2, 4])
    np.testing.assert_array_equal(lowest_set(scores, 3), [0, 1, 3])


def test_a_data_set_is_asked_by_kind(dataset, tmp_path):
    train = dataset.splits.train
    np.testing.assert_array_equal(
        draw_hard(dataset, kind="clustered", size=0.2), clustered_set(train.inputs, 8)
    )
    within = draw_hard(dataset, kind="clustered", size=4, label=2)
    assert (train.targets[within] == 2).all()
    scores = np.random.default_rng(0).normal(size=40)
    np.save(tmp_path / "scores.npy", scores)
    np.savez(tmp_path / "scores.npz", other=scores, scores=-scores)
    high = draw_hard(dataset, kind="highest", size=5, file=tmp_path / "scores.npy")
    low = draw_hard(dataset, kind="lowest", size=5, file=tmp_path / "scores.npz")
    np.testing.assert_array_equal(high, low)
    np.testing.assert_array_equal(high, np.sort(np.argsort(scores)[-5:]))


def test_a_request_on_the_command_line_asks_for_them(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("scores.npy", np.arange(40.0))
    for text, expected in {
        "inputs:0.2": clustered_set(dataset.splits.train.inputs, 8),
        "inputs:2:4": draw_hard(dataset, kind="clustered", size=4, label=2),
        "highest:3:scores.npy": [37, 38, 39],
        "lowest:3:scores.npy": [0, 1, 2],
    }.items():
        drawn = draw_request(check_request(text, dataset), dataset)
        np.testing.assert_array_equal(drawn, expected)
    for text in (
        "clustered:",
        "clustered:x",
        "clustered:'4'",
        "highest:3",
        "lowest:3:",
    ):
        with pytest.raises(ValueError, match="clustered:6:100"):
            parse_request(text)


def test_every_kind_has_a_line_of_explanation():
    assert list(HARD_KINDS) == ["clustered", "highest", "lowest"]
    assert all(line and "\n" not in line for line in HARD_KINDS.values())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kind": "hard", "size": 3}, "expected one of clustered, highest, lowest"),
        ({"kind": "clustered", "size": 40}, "expected a count from 1 to 39"),
        ({"kind": "clustered", "size": 1.5}, "or a fraction between 0 and 1"),
        ({"kind": "clustered", "size": 11, "label": 1}, "a count from 1 to 10"),
        ({"kind": "clustered", "size": 1, "label": 9}, "choose one of 0, 1, 2, 3"),
        ({"kind": "clustered", "size": 1, "file": "a.npy"}, "leave it out"),
        ({"kind": "highest", "size": 3}, "needs 'size' and 'file'"),
        ({"kind": "lowest", "size": 3, "file": "here.txt"}, "is no .npy or .npz"),
        ({"kind": "lowest", "size": 3, "file": "short.npy"}, "another data set"),
        ({"kind": "highest", "size": 3, "file": "names.npz"}, "could not be read"),
        ({"kind": "highest", "size": 3, "file": "cut.npz"}, "could not be read"),
        ({"kind": "clustered", "size": float("inf")}, "a fraction between 0 and 1"),
        ({"kind": "highest", "size": 3, "file": "nan.npy"}, "one finite number"),
    ],
)
def test_a_draw_that_makes_no_sense_is_one_sentence(
    dataset, tmp_path, monkeypatch, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("1")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut short")
    np.save("short.npy", np.zeros(3))
    np.savez("names.npz", a=np.zeros(40), b=np.zeros(40))
    np.save("nan.npy", np.full(40, np.nan))
    with pytest.raises(ValueError, match=sentence) as caught:
        draw_hard(dataset, **arguments)
    assert "\n" not in str(caught.value)


def test_an_absent_file_and_absent_classes_are_said(dataset):
    with pytest.raises(FileNotFoundError, match="does not exist, expected"):
        draw_hard(dataset, kind="highest", size=3, file="nowhere.npy")
    with pytest.raises(ValueError, match="which has no classes"):
        draw_hard(quadratic(0, (10, 5)), kind="clustered", size=2, label=0)
    with pytest.raises(ValueError, match="direction 3 was asked"):
        clustered_set(np.eye(9)[:, :3], 2, direction=3)
    with pytest.raises(ValueError, match="NaN or infinite"):
        clustered_set(np.full((4, 2), np.nan), 2)
    with pytest.raises(ValueError, match="without a label for each"):
        clustered_set(np.eye(4), 2, label=1)
