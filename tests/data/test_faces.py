import numpy as np
import pytest

from experiments.frame.requests import draw_request, parse_request
from unlearn_jax.data.checks import check
from unlearn_jax.data.faces import FILE, faces, faces_coarse, missing, shrunk
from unlearn_jax.data.forget import draw


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Five people, ten images of 12×9 pixels each, in no order."""
    monkeypatch.delenv("UNLEARN_DATA", raising=False)
    random = np.random.default_rng(0)
    people = random.permutation(np.repeat(np.arange(5), 10)).astype(np.int32)
    images = random.integers(0, 256, (50, 12, 9), np.uint8)
    np.savez(tmp_path / FILE, images=images, identity=people)
    (tmp_path / "tfds").mkdir()
    return tmp_path


def test_every_person_has_seven_images_to_learn_and_three_to_judge(folder):
    dataset = faces(folder)
    assert (dataset.name, dataset.task, dataset.classes) == (
        "faces",
        "classification",
        5,
    )
    train, test = dataset.splits
    np.testing.assert_array_equal(np.bincount(train.targets), 7)
    np.testing.assert_array_equal(np.bincount(test.targets), 3)
    assert train.inputs.shape == (35, 3, 2, 1)
    for split in dataset.splits:
        assert split.inputs.dtype == np.float32
        check(split, task="classification", classes=5, name="faces")
    assert abs(train.inputs.mean()) < 1e-6
    assert abs(train.inputs.std() - 1) < 1e-6


def test_no_image_is_in_both_parts_or_in_none(folder):
    train, test = faces(folder).splits
    joined = np.concatenate([train.inputs, test.inputs]).reshape(50, -1)
    assert len(np.unique(joined, axis=0)) == 50
    again = faces(folder).splits
    np.testing.assert_array_equal(train.inputs, again.train.inputs)


def test_a_whole_person_can_be_forgotten(folder):
    dataset = faces(folder)
    indices = draw(dataset, kind="class", label=4)
    assert len(indices) == 7
    assert (dataset.splits.train.targets[indices] == 4).all()


def test_people_are_forgotten_while_their_circle_stays(folder):
    random = np.random.default_rng(1)
    people = np.repeat(np.arange(7), 4)
    images = random.integers(0, 256, (28, 12, 9), np.uint8)
    np.savez(folder / FILE, images=images, identity=people)
    dataset, whole = faces_coarse(folder), faces(folder)
    assert dataset.classes == 2
    np.testing.assert_array_equal(dataset.subclasses, whole.splits.train.targets)
    np.testing.assert_array_equal(dataset.test_subclasses, whole.splits.test.targets)
    np.testing.assert_array_equal(dataset.splits.train.targets, dataset.subclasses // 5)
    assert set(dataset.splits.test.targets[dataset.test_subclasses > 4]) == {1}
    lost = draw_request(parse_request("sub_class:6,1"), dataset)
    assert set(dataset.subclasses[lost]) == {1, 6}
    assert len(lost) == 6
    left = np.delete(dataset.splits.train.targets, lost)
    assert set(left) == {0, 1}


def test_one_circle_is_no_task(folder):
    with pytest.raises(ValueError, match="a single circle of 5: expected two"):
        faces_coarse(folder)


def test_pixels_are_means_of_blocks():
    images = np.arange(2 * 5 * 8, dtype=np.uint8).reshape(2, 5, 8)
    found = shrunk(images, 4)
    assert found.shape == (2, 1, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[1, 0, 1], images[1, :4, 4:].mean())


def test_the_file_may_lie_beside_the_folder(folder, monkeypatch):
    beside = faces(folder / "tfds")
    monkeypatch.setenv("UNLEARN_DATA", str(folder))
    np.testing.assert_array_equal(faces().splits.test.inputs, beside.splits.test.inputs)
    assert missing(None) is None


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("UNLEARN_DATA", raising=False)
    assert "no folder was named" in missing(None)
    empty = tmp_path / "a" / "b"
    empty.mkdir(parents=True)
    assert "is not on disk" in missing(empty)
    with pytest.raises(FileNotFoundError, match="nor its parent holds it"):
        faces(empty)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"faces": np.zeros(3)}, "could not be read"),
        ({"images": np.zeros((4, 8, 8)), "identity": np.zeros(4, int)}, "uint8"),
        (
            {"images": np.zeros((4, 8, 8), np.uint8), "identity": np.zeros(3, int)},
            r"integers \(n,\)",
        ),
        (
            {
                "images": np.zeros((4, 8, 8), np.uint8),
                "identity": np.array([0, 0, 2, 2]),
            },
            "numbered from 0",
        ),
        (
            {
                "images": np.zeros((4, 8, 8), np.uint8),
                "identity": np.array([0, 0, 1, 1]),
            },
            "all pixels are the same",
        ),
    ],
)
def test_another_file_is_refused(tmp_path, arrays, sentence):
    np.savez(tmp_path / FILE, **arrays)
    with pytest.raises(ValueError, match=sentence):
        faces(tmp_path)


@pytest.mark.parametrize("held", [b"not an archive", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, held):
    (tmp_path / FILE).write_bytes(held)
    with pytest.raises(ValueError, match="could not be read"):
        faces(tmp_path)


def test_the_real_file_is_forty_people():
    if missing(None) is not None:
        pytest.skip(missing(None))
    dataset = faces()
    assert dataset.classes == 40
    train, test = dataset.splits
    assert train.inputs.shape == (280, 28, 23, 1)
    assert test.inputs.shape == (120, 28, 23, 1)
    # Neighbours in pixels are mostly the same person: it is a task that can be learnt.
    a, b = (x.inputs.reshape(len(x.inputs), -1) for x in (test, train))
    nearest = np.argmin(((a[:, None] - b[None]) ** 2).sum(-1), axis=1)
    assert np.mean(train.targets[nearest] == test.targets) > 0.85
