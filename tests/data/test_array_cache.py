import os

import numpy as np
import pytest

from unlearn_jax.data import array_cache
from unlearn_jax.data.array_cache import cached, user_cache
from unlearn_jax.storage.write import temporary_path

DTYPE = np.dtype([("image", np.uint8, (2, 2)), ("label", np.int32)])


class Maker:
    """Counts how often the array had to be made."""

    def __init__(self, length=3):
        self.calls, self.length = 0, length

    def __call__(self):
        self.calls += 1
        made = np.zeros(self.length, DTYPE)
        made["label"] = np.arange(self.length)
        return made


def keep(folders, make, length=3, dtype=DTYPE):
    return cached(folders, "train.npy", dtype=dtype, length=length, make=make)


def test_the_second_time_nothing_is_made(tmp_path):
    make = Maker()
    first, second = keep([tmp_path / "a"], make), keep([tmp_path / "a"], make)
    assert make.calls == 1
    np.testing.assert_array_equal(first, second)
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["train.npy"]


def test_a_read_only_folder_is_left_alone_and_the_next_one_used(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    make = Maker()
    keep([closed / "new", tmp_path / "open"], make)
    keep([closed / "new", tmp_path / "open"], make)
    assert make.calls == 1
    assert not list(closed.iterdir())
    assert (tmp_path / "open" / "train.npy").is_file()


def test_with_nowhere_to_write_the_array_still_comes_with_a_warning(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.warns(RuntimeWarning, match="could not be kept .*XDG_CACHE_HOME"):
        assert len(keep([tmp_path / "a"], Maker())) == 3
    tmp_path.chmod(0o755)


@pytest.mark.parametrize(
    "harm", ["shorter", "other dtype", "no seal", "cut", "empty", "text", "flip"]
)
def test_a_kept_array_that_does_not_fit_is_made_again(tmp_path, harm):
    path = tmp_path / "train.npy"
    kept = {"shorter": np.zeros(2, DTYPE), "other dtype": np.zeros(3, np.uint8)}
    array_cache._write(path, kept.get(harm, Maker()()))
    whole = path.read_bytes()
    harmed = {"cut": whole[:-5], "empty": b"", "text": b"hello", "no seal": whole[:-73]}
    harmed["flip"] = whole[:-80] + bytes([whole[-80] ^ 1]) + whole[-79:]
    path.write_bytes(harmed.get(harm, whole))
    make = Maker()
    np.testing.assert_array_equal(keep([tmp_path], make), Maker()())
    assert make.calls == 1
    np.testing.assert_array_equal(np.load(path), Maker()())


def test_what_a_killed_writer_left_is_never_read(tmp_path):
    temporary_path(tmp_path).write_bytes(b"\x93NUMPY half of it")
    make = Maker()
    np.testing.assert_array_equal(keep([tmp_path], make), Maker()())
    assert make.calls == 1


@pytest.mark.parametrize("step", ["save", "replace"])
def test_a_writer_that_is_interrupted_leaves_no_half_array(tmp_path, monkeypatch, step):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    target = array_cache.np if step == "save" else os
    with monkeypatch.context() as patch:
        patch.setattr(target, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            keep([tmp_path], Maker())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_moves_on_to_the_next_folder(tmp_path, monkeypatch):
    write, seen = array_cache._write, []

    def full_once(path, array):
        seen.append(path.parent.name)
        if path.parent.name == "full":
            raise OSError(28, "No space left on device")
        write(path, array)

    monkeypatch.setattr(array_cache, "_write", full_once)
    keep([tmp_path / "full", tmp_path / "free"], Maker())
    assert seen == ["full", "free"]
    assert (tmp_path / "free" / "train.npy").is_file()


def test_the_user_cache_follows_the_desktop_standard(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "unlearn_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "unlearn_jax"
