"""A tiny prepared image set, written once and copied for each test that harms it."""

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

TRAIN, TEST, SHAPE = 24, 12, (6, 5, 3)


def tiny_pixels(split):
    """The images of the tiny set before they are encoded, in generated order."""
    count = {"train": TRAIN, "test": TEST}[split]
    return np.random.default_rng(count).integers(0, 256, (count, *SHAPE), np.uint8)


def prepare(root, class_name, encoding="png", version="1.0.0"):
    """Write a set called like the class in snake case with tfds, no network."""
    import tensorflow_datasets as tfds
    from PIL import Image

    def info(self):
        features = {
            "image": tfds.features.Image(shape=SHAPE, encoding_format=encoding),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Noise in three classes.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def splits(self, _):
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def examples(_, split):
        for i, pixels in enumerate(tiny_pixels(split)):
            yield i, {"image": Image.fromarray(pixels), "label": i % 3}

    with tfds.core.registered.skip_registration():
        body = {
            "VERSION": tfds.core.Version(version),
            "pkg_dir_path": None,
            "__module__": __name__,
            "_info": info,
            "_split_generators": splits,
            "_generate_examples": examples,
        }
        builder = type(class_name, (tfds.core.GeneratorBasedBuilder,), body)
    tfds.disable_progress_bar()
    builder(data_dir=str(root), file_format="array_record").download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


@pytest.fixture
def tiny_images():
    return tiny_pixels


@pytest.fixture
def prepare_set():
    return prepare


@pytest.fixture(scope="session")
def prepared_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    prepare(root, "TinyShapes")
    return root


@pytest.fixture
def data_dir(prepared_once, tmp_path, monkeypatch):
    """A folder of one's own that holds the set; the user's cache is elsewhere."""
    monkeypatch.delenv("UNLEARN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(prepared_once, tmp_path / "sets")
    return tmp_path / "sets"


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **_):
        raise AssertionError(f"the network was asked: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def real_data_dir():
    folder = os.environ.get("UNLEARN_DATA")
    if not folder:
        pytest.skip("UNLEARN_DATA is unset: it names the folder of prepared image sets")
    return Path(folder)
