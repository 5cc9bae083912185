import errno
import os
import resource

import pytest

from unlearn_jax.storage import write
from unlearn_jax.storage.write import (
    StorageError,
    create,
    private_folder,
    readable_bytes,
    remove_leftovers,
    temporary_path,
    write_bytes,
)


def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(tmp_path):
    path = tmp_path / "big.bin"
    write_bytes(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageError) as caught:
            write_bytes(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = str(caught.value)
    assert "big.bin (100 kB)" in message
    assert str(tmp_path) in message
    assert "run the same command again: everything finished is kept" in message
    assert "\n" not in message
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["big.bin"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "not permitted"),
    ],
)
def test_reasons_are_named(tmp_path, monkeypatch, code, words):
    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(write.os, "fsync", refuse)
    with pytest.raises(StorageError, match=words):
        write_bytes(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_told_and_stays(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="a file of that name is in the way"):
        write_bytes(tmp_path / "file" / "a", b"x")
    assert (tmp_path / "file").read_text() == "mine"


def test_other_errors_keep_their_name(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(write.os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_bytes(tmp_path / "a", b"x")
    assert not isinstance(caught.value, StorageError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7 bytes"), (1500, "1.5 kB"), (2_340_000_000, "2.34 GB")]
)
def test_sizes_are_readable(count, text):
    assert readable_bytes(count) == text


def mode(path):
    return path.stat().st_mode & 0o777


def test_private_files_and_folders_are_for_their_owner_alone(tmp_path):
    old = os.umask(0o022)
    try:
        write_bytes(tmp_path / "rows", b"x", private=True)
        write_bytes(tmp_path / "table", b"x")
        open_one = tmp_path / "open"
        open_one.mkdir(mode=0o755)
        for folder in (tmp_path / "a" / "new", open_one):
            private_folder(folder)
            assert mode(folder) == 0o700
    finally:
        os.umask(old)
    assert (mode(tmp_path / "rows"), mode(tmp_path / "table")) == (0o600, 0o644)


def test_a_new_file_is_never_one_that_is_there_nor_what_a_link_points_to(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("mine", "link"):
        with pytest.raises(FileExistsError):
            create(tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(tmp_path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_text() == "precious"
    assert (tmp_path / "link").read_bytes() == b"new"


def test_only_our_own_leftovers_are_removed(tmp_path):
    theirs = [".notes.tmp", "a.tmp", ".unlearn-notes", ".unlearn-x.tmp", ".a.17.tmp"]
    for name in theirs:
        (tmp_path / name).mkdir()
    temporary_path(tmp_path).write_bytes(b"half")
    labelled = temporary_path(tmp_path, "a")
    labelled.mkdir()
    (labelled / "part").write_bytes(b"half")
    other = temporary_path(tmp_path, "ab")
    other.mkdir()
    remove_leftovers(tmp_path, "a")
    assert not labelled.exists()
    assert other.exists()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(theirs)
    remove_leftovers(tmp_path / "nowhere")
