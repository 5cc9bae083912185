import json

import numpy as np
import pytest

from unlearn_jax.data import tfds
from unlearn_jax.data.checks import check
from unlearn_jax.data.prepared import missing
from unlearn_jax.data.tfds import (
    FASHION_GROUPS,
    cifar10,
    fashion_mnist,
    fashion_mnist_coarse,
    load_images,
)

MEAN, STD = (0.5, 0.25, 0.1), (0.2, 0.4, 1.0)


def load(data_dir):
    return load_images("tiny_shapes", data_dir, mean=MEAN, std=STD)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_every_pixel_comes_back_standardised(data_dir, no_network, tiny_images):
    for split, batch in load(data_dir)._asdict().items():
        pixels = tiny_images(split)
        check(batch, task="classification", classes=3, name=split)
        assert batch.inputs.dtype == np.float32
        # The stored order is a shuffle: compare as sets of images.
        raw = np.asarray(batch.inputs, np.float64) * STD + MEAN
        raw = np.rint(255 * raw).astype(np.uint8)
        by_image = {p.tobytes(): i % 3 for i, p in enumerate(pixels)}
        assert len(raw) == len(pixels)
        for image, label in zip(raw, batch.targets, strict=True):
            assert by_image.pop(image.tobytes()) == label
        assert not by_image


def test_the_second_start_decodes_nothing(data_dir, monkeypatch):
    first = load(data_dir)

    def decode(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(tfds, "_decode", decode)
    second = load(data_dir)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.targets, other.targets)


def test_the_cache_lies_beside_the_set_one_file_a_split(data_dir, tmp_path):
    load(data_dir)
    kept = files(data_dir / "unlearn_jax_cache")
    assert [name.split("-")[0] for name in kept] == [
        "tiny_shapes/1.0.0/test",
        "tiny_shapes/1.0.0/train",
    ]
    assert not (tmp_path / "cache").exists()


def test_a_read_only_folder_is_left_as_it_is(data_dir, tmp_path):
    before = files(data_dir)
    data_dir.chmod(0o555)
    load(data_dir)
    data_dir.chmod(0o755)
    assert files(data_dir) == before
    assert len(files(tmp_path / "cache" / "unlearn_jax" / "tiny_shapes")) == 2


def test_a_set_prepared_anew_is_decoded_anew(data_dir):
    load(data_dir)
    path = data_dir / "tiny_shapes" / "1.0.0" / "dataset_info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "description": "Prepared again."}))
    load(data_dir)
    assert len(files(data_dir / "unlearn_jax_cache")) == 4


def test_bytes_spoiled_inside_a_file_are_one_sentence(data_dir):
    path = next((data_dir / "tiny_shapes").rglob("*-train.array_record-*"))
    raw = bytearray(path.read_bytes())
    raw[300:600] = bytes(300)
    path.write_bytes(raw)
    assert missing("tiny_shapes", data_dir) is None
    with pytest.raises(
        ValueError, match="is damaged: its train examples do not decode"
    ):
        load(data_dir)


def test_a_mean_for_each_channel_is_asked_for(data_dir):
    with pytest.raises(ValueError, match=r"got 1 means and 1 standard .*expected 3"):
        load_images("tiny_shapes", data_dir, mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize(
    ("encoding", "title"), [("png", "CIFAR-10"), ("jpeg", "CIFAR-10 (JPEG)")]
)
def test_lossy_copies_are_not_called_cifar10(
    tmp_path, monkeypatch, no_network, prepare_set, encoding, title
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prepare_set(tmp_path, "Cifar10", encoding)
    dataset = cifar10(tmp_path)
    assert dataset.title == title
    assert dataset.splits.train.inputs.shape == (24, 6, 5, 3)


def test_groups_hold_every_class_of_fashion_mnist_once():
    assert sorted(c for group in FASHION_GROUPS.values() for c in group) == [*range(10)]


def test_real_fashion_mnist_is_whole(real_data_dir, no_network):
    dataset = fashion_mnist(real_data_dir)
    assert dataset.title == "Fashion-MNIST"
    train, test = dataset.splits
    assert train.inputs.shape == (60000, 28, 28, 1)
    assert test.inputs.shape == (10000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(train.targets), [6000] * 10)
    np.testing.assert_array_equal(np.bincount(test.targets), [1000] * 10)
    assert abs(train.inputs.mean(dtype=np.float64)) < 1e-3
    assert abs(train.inputs.std(dtype=np.float64) - 1) < 1e-3


def test_real_coarse_fashion_mnist_keeps_the_original_class(real_data_dir, no_network):
    fine, coarse = fashion_mnist(real_data_dir), fashion_mnist_coarse(real_data_dir)
    np.testing.assert_array_equal(coarse.subclasses, fine.splits.train.targets)
    np.testing.assert_array_equal(coarse.test_subclasses, fine.splits.test.targets)
    counts = np.bincount(coarse.splits.train.targets)
    np.testing.assert_array_equal(counts, [24000, 6000, 6000, 18000, 6000])


def test_real_cifar10_is_whole_and_truly_named(real_data_dir, no_network):
    dataset = cifar10(real_data_dir)
    folder = real_data_dir / "cifar10"
    lossy = "jpeg" in next(folder.glob("*/features.json")).read_text().lower()
    assert dataset.title == ("CIFAR-10 (JPEG)" if lossy else "CIFAR-10")
    train, test = dataset.splits
    assert train.inputs.shape == (50000, 32, 32, 3)
    assert test.inputs.shape == (10000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(train.targets), [5000] * 10)
    assert np.abs(train.inputs.mean(axis=(0, 1, 2), dtype=np.float64)).max() < 1e-2
