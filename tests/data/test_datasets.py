import numpy as np
import pytest

from unlearn_jax.data import DATASETS
from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.checks import check
from unlearn_jax.data.forget import draw


def test_the_table_is_in_the_published_order():
    assert list(DATASETS) == [
        "digits",
        "digits_coarse",
        "diabetes",
        "diamonds",
        "gaussian_classes",
        "fashion_mnist",
        "fashion_mnist_coarse",
        "cifar10",
        "faces",
        "faces_coarse",
    ]


@pytest.mark.parametrize("name", DATASETS)
def test_every_set_is_sound_in_memory_and_as_the_table_says(name, no_network):
    source = DATASETS[name]
    reason = source.missing(None)
    if reason is not None:
        pytest.skip(reason)
    dataset = source.load(None)
    assert isinstance(dataset, Dataset)
    assert dataset.name == name
    assert dataset.task == source.task
    assert dataset.title.startswith(source.title)
    for split in dataset.splits:
        assert all(isinstance(field, np.ndarray) for field in split)
        assert split.inputs.dtype == np.float32
        np.testing.assert_array_equal(split.weights, 1)
        check(split, task=dataset.task, classes=dataset.classes, name=name)


@pytest.mark.parametrize("name", ["digits_coarse", "fashion_mnist_coarse"])
def test_a_finer_class_of_a_coarse_set_can_be_forgotten(name):
    reason = DATASETS[name].missing(None)
    if reason is not None:
        pytest.skip(reason)
    dataset = DATASETS[name].load(None)
    targets = np.asarray(dataset.splits.train.targets)
    labels = range(10)
    drawn = [draw(dataset, kind="sub_class", label=label) for label in labels]
    assert sum(map(len, drawn)) == len(targets)
    for indices in drawn:
        assert len(np.unique(targets[indices])) == 1


def test_what_is_missing_is_said_without_loading(tmp_path, no_network):
    for name in ("fashion_mnist", "fashion_mnist_coarse", "cifar10"):
        reason = DATASETS[name].missing(tmp_path)
        assert reason is not None
        assert "is not on disk" in reason
    for name in ("digits", "digits_coarse", "diabetes", "gaussian_classes"):
        assert DATASETS[name].missing(tmp_path) is None
