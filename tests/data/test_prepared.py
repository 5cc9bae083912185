import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from unlearn_jax.data.prepared import find_prepared, missing

NAME = "tiny_shapes"


def shard(data_dir, split="train"):
    return next((data_dir / NAME / "1.0.0").glob(f"*-{split}.array_record-*"))


def edit(data_dir, file, change):
    path = data_dir / NAME / "1.0.0" / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_whole_set_is_described(data_dir, no_network):
    prepared = find_prepared(NAME, data_dir)
    assert prepared.folder == data_dir / NAME / "1.0.0"
    assert prepared.lengths == {"train": 24, "test": 12}
    assert prepared.shape == (6, 5, 3)
    assert prepared.classes == 3
    assert not prepared.jpeg
    assert missing(NAME, data_dir) is None


def test_the_argument_goes_before_the_environment(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_DATA", str(data_dir))
    assert find_prepared(NAME, None).root == data_dir
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/elsewhere does not exist"):
        find_prepared(NAME, tmp_path / "elsewhere")


def test_the_newest_version_is_taken_and_unfinished_ones_are_not(data_dir):
    for version in ("0.9.0", "incomplete.ABC_2.0.0", "1.0.0-old"):
        (data_dir / NAME / version).mkdir()
    assert find_prepared(NAME, data_dir).version == "1.0.0"
    shutil.copytree(data_dir / NAME / "1.0.0", data_dir / NAME / "1.0.10")
    shutil.copytree(data_dir / NAME / "1.0.0", data_dir / NAME / "1.0.9")
    assert find_prepared(NAME, data_dir).version == "1.0.10"


def test_a_set_that_is_not_there_says_name_folder_and_both_ways(data_dir, no_network):
    sentence = missing("no_such_set", data_dir)
    assert sentence is not None
    assert "\n" not in sentence
    for part in (
        "'no_such_set' is not on disk",
        f"{data_dir}/no_such_set holds no prepared version",
        "--data.dir",
        "UNLEARN_DATA",
        "tensorflow_datasets.builder('no_such_set'",
        "download_and_prepare()",
    ):
        assert part in sentence


@pytest.mark.parametrize("value", [None, ""])
def test_with_no_folder_named_that_is_what_is_said(monkeypatch, value):
    monkeypatch.delenv("UNLEARN_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("UNLEARN_DATA", value)
    with pytest.raises(FileNotFoundError, match="no folder was named to look in"):
        find_prepared("fashion_mnist", None)


def test_absence_is_answered_within_two_seconds_and_without_tfds(tmp_path):
    program = (
        "import sys, time\n"
        "from unlearn_jax.data import DATASETS\n"
        "start = time.perf_counter()\n"
        "for name in ('fashion_mnist', 'fashion_mnist_coarse', 'cifar10'):\n"
        "    assert 'not on disk' in DATASETS[name].missing(None)\n"
        "    try:\n"
        "        DATASETS[name].load(None)\n"
        "    except FileNotFoundError:\n"
        "        pass\n"
        "assert time.perf_counter() - start < 2\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
    )
    environment = {**os.environ, "UNLEARN_DATA": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_a_damaged_set_is_answered_within_two_seconds(data_dir, no_network):
    shard(data_dir).unlink()
    start = time.perf_counter()
    assert missing(NAME, data_dir) is not None
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_half_copied_set_names_the_missing_file(data_dir, no_network, split):
    shard(data_dir, split).unlink()
    with pytest.raises(
        ValueError, match=rf"half copied: {NAME}-{split}.*is not there; copy the whole"
    ):
        find_prepared(NAME, data_dir)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
def test_a_file_cut_short_is_found_before_it_is_read(data_dir, no_network, share):
    path = shard(data_dir)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        ValueError,
        match=r"half copied.*holds 0 of 24 examples|half copied.*does not open",
    ):
        find_prepared(NAME, data_dir)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_a_missing_or_cut_description_is_named(data_dir, file):
    path = data_dir / NAME / "1.0.0" / file
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match=f"half copied: {file} is no JSON"):
        find_prepared(NAME, data_dir)
    path.unlink()
    with pytest.raises(ValueError, match=f"half copied: {file} is not there"):
        find_prepared(NAME, data_dir)


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        (
            "dataset_info.json",
            lambda info: info["splits"][0].update(shardLengths=["25"]),
            "holds 24 of 25 examples",
        ),
        (
            "dataset_info.json",
            lambda info: info["splits"].pop(),
            "dataset_info.json lists no test examples",
        ),
        (
            "dataset_info.json",
            lambda info: info.pop("splits"),
            "its description lacks 'splits'",
        ),
        (
            "dataset_info.json",
            lambda info: info.update(fileFormat="tfrecord"),
            "is in format 'tfrecord', expected 'array_record': prepare it again",
        ),
        (
            "features.json",
            lambda f: f["featuresDict"]["features"].pop("label"),
            "has the features image, expected an image called 'image' and a class",
        ),
        (
            "features.json",
            lambda f: f["featuresDict"]["features"]["image"]["image"]["shape"].update(
                dimensions=["-1", "-1", "3"]
            ),
            r"images of shape \(-1, -1, 3\) .*expected uint8 of one known size",
        ),
    ],
)
def test_a_set_that_cannot_be_used_is_one_sentence(data_dir, file, change, sentence):
    edit(data_dir, file, change)
    with pytest.raises(ValueError, match=sentence) as caught:
        find_prepared(NAME, data_dir)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("dataset_info.json", lambda i: i.update(description="From JPEG copies.")),
        (
            "features.json",
            lambda f: f["featuresDict"]["features"]["image"]["image"].update(
                encodingFormat="jpeg"
            ),
        ),
    ],
)
def test_lossy_images_are_recognised_and_change_the_fingerprint(data_dir, file, change):
    before = find_prepared(NAME, data_dir)
    edit(data_dir, file, change)
    after = find_prepared(NAME, data_dir)
    assert not before.jpeg
    assert after.jpeg
    assert before.fingerprint != after.fingerprint
