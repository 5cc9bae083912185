import json

import numpy as np
import pytest

from unlearn_jax.data.indices import check_indices, read_indices, save_indices

SUFFIXES = [".npy", ".npz", ".txt", ".json"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_saved_is_read_back(tmp_path, suffix):
    path = save_indices(tmp_path / "new" / f"forget{suffix}", np.array([3, 1, 2]))
    np.testing.assert_array_equal(read_indices(path), [3, 1, 2])
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_list_is_read_and_then_refused(tmp_path, suffix):
    path = save_indices(tmp_path / f"forget{suffix}", np.zeros(0, int))
    with pytest.raises(ValueError, match="the forget set is empty"):
        check_indices(read_indices(path), 5)


def test_named_lists_are_found(tmp_path):
    np.savez(tmp_path / "a.npz", indices=[1, 2], other=[0.5])
    (tmp_path / "a.json").write_text(json.dumps({"indices": [1, 2], "seed": 0}))
    np.savez(tmp_path / "b.npz", anything=[1, 2])
    for name in ("a.npz", "a.json", "b.npz"):
        np.testing.assert_array_equal(read_indices(tmp_path / name), [1, 2])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"1,2", "ends in '.csv', expected .npy, .npz, .txt or .json"),
        (
            "a.txt",
            b"1\ntwo\n",
            "could not be read as .txt .*'two'.*write it with save_",
        ),
        ("a.json", b"[1, 2", "could not be read as .json"),
        ("a.json", b"[0.5]", r"holds float64 of shape \(1,\), expected a list of int"),
        ("a.json", b'{"forget": [1]}', "could not be read as .json .*indices"),
        ("a.npy", b"no array", "could not be read as .npy"),
        ("a.npy", b"", "could not be read as .npy"),
        ("a.npz", b"no archive", "could not be read as .npz"),
    ],
)
def test_a_file_that_holds_no_indices_is_one_sentence(
    tmp_path, name, content, sentence
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_indices(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"none\.npy does not exist, .*check the"
    ):
        read_indices(tmp_path / "none.npy")


def test_only_integers_and_known_formats_are_saved(tmp_path):
    with pytest.raises(ValueError, match="save_indices got float64"):
        save_indices(tmp_path / "a.npy", [0.5])
    with pytest.raises(ValueError, match=r"ends in '\.csv'"):
        save_indices(tmp_path / "a.csv", [1])
    assert not list(tmp_path.iterdir())


def test_good_indices_come_back_sorted():
    checked = check_indices(np.array([4, 0, 2], np.int32), 5)
    np.testing.assert_array_equal(checked, [0, 2, 4])
    assert checked.dtype == np.int64


@pytest.mark.parametrize(
    ("indices", "sentence"),
    [
        ([], "the forget set is empty, expected at least one index"),
        (
            [1, 7, 9],
            "holds index 7, expected indices from 0 to 4: was it drawn for ano",
        ),
        ([1, -1], "holds index -1, expected indices from 0 to 4"),
        ([1, 2, 2, 1, 2], "holds index 1 3 times|holds index 1 2 times"),
        ([0.5, 1.0], "the forget set is float64 .*expected a list of integers"),
        ([True, False], "the forget set is bool .*numpy.flatnonzero"),
        ([[1, 2]], r"shape \(1, 2\), expected a list of integers"),
        (range(5), "holds all 5 training examples, expected some to retain"),
    ],
)
def test_indices_that_make_no_forget_set_are_one_sentence(indices, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        check_indices(indices, 5)
    assert "\n" not in str(caught.value)
