"""Damaged, lost and foreign files: noticed, named, never a wrong state."""

import errno
import os
import shutil
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from service.toy import apply, bits, open_toy, requests, start_state, undisturbed

from unlearn_jax.service.audit import verify
from unlearn_jax.service.disk import ServiceError
from unlearn_jax.service.open import open_service
from unlearn_jax.storage.write import StorageError
from unlearn_jax.train.checkpoint import CheckpointError

STREAM = requests(6)  # all applied
EVERY = 4  # so that two payloads stay behind the snapshot


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("reference") / "a", STREAM)[0]


@pytest.fixture
def folder(quick_path):
    """Six requests, the last two behind the snapshot; closed without another one."""
    service = open_toy(quick_path / "a", snapshot_every=EVERY)
    before = b""
    for request in STREAM:
        before = (quick_path / "a" / "log.end").read_bytes()
        service.submit(*request)
    service.close(snapshot=False)
    (quick_path / "before.end").write_bytes(before)
    return quick_path / "a"


def not_told(folder):
    """As if the power went before the caller was told of the last request."""
    shutil.copy(folder.parent / "before.end", folder / "log.end")


def reopened(folder, **options):
    service = open_toy(folder, snapshot_every=99, **options)
    service.close(snapshot=False)
    return bits(service.state), len(service.entries)


def largest(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("event", ["accepted", "done"])
def test_a_last_line_cut_at_any_byte_is_cut_off(folder, states, event):
    log = folder / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    assert b'"done"' in lines[-1]
    lines = lines if event == "done" else lines[:-1]
    whole, last = b"".join(lines[:-1]), lines[-1]
    step = 1 if event == "done" else 9
    not_told(folder)
    for size in range(0, len(last), step):
        copy = folder.with_name(f"copy{size}")
        shutil.copytree(folder, copy)
        (copy / "log.jsonl").write_bytes(whole + last[:size])
        known = 6 if event == "done" else 5
        assert len(verify(copy).entries) == known
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state, number = reopened(copy)
        assert len(caught) == (size > 0)
        assert all("was half-written" in str(each.message) for each in caught)
        assert number == known
        assert state == states[number]
        if size % 32 == 0:
            with open_toy(copy) as service:
                service.submit(*STREAM[-1])
                assert bits(service.state) == states[6]


def test_a_last_line_of_zeros_is_cut_off(folder, states):
    """The length of the file was forced to disk before its blocks."""
    log = folder / "log.jsonl"
    content = log.read_bytes()
    for zeros in (1, 30):
        log.write_bytes(content[:-zeros] + b"\0" * zeros)
        not_told(folder)
        with pytest.warns(UserWarning, match="half-written"):
            assert reopened(folder) == (states[6], 6)


def test_a_changed_byte_in_any_line_is_named(folder):
    log = folder / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        places = [0, len(lines[number - 1]) // 2, -3, -1]
        for place in places if number < len(lines) else places[:-1]:
            changed = bytearray(lines[number - 1])
            changed[place] ^= 4
            parts = [*lines[: number - 1], bytes(changed), *lines[number:]]
            log.write_bytes(b"".join(parts))
            words = rf"log.jsonl, line {number} is damaged: .*back from a copy"
            with pytest.raises(ServiceError, match=words):
                reopened(folder)
            assert log.read_bytes() == b"".join(parts)


@pytest.mark.parametrize("change", ["lost", "twice", "swapped"])
def test_a_line_lost_repeated_or_moved_is_noticed(folder, change):
    lines = (folder / "log.jsonl").read_bytes().splitlines(keepends=True)
    put = {
        "lost": lines[:4] + lines[5:],
        "twice": [*lines[:5], lines[4], *lines[5:]],
        "swapped": [*lines[:4], lines[5], lines[4], *lines[6:]],
    }
    (folder / "log.jsonl").write_bytes(b"".join(put[change]))
    with pytest.raises(ServiceError, match=r"line [56] is damaged"):
        verify(folder)


def test_a_log_that_lost_what_was_told_is_refused(folder, states):
    """Whole lines or a part of one: the outcome was on disk before it was told."""
    log = folder / "log.jsonl"
    content = log.read_bytes()
    lines = content.splitlines(keepends=True)
    before = sorted(str(each) for each in folder.rglob("*"))
    left = [b"".join(lines[:n]) for n in range(1, len(lines))]
    for less in [*left, content[:-1], content[:-40], content[:-20] + 20 * b"\0"]:
        log.write_bytes(less)
        words = (
            rf"ends with line \d+, and by log.end line {len(lines)} of it was on disk"
        )
        for read in (verify, reopened):
            with pytest.raises(ServiceError, match=words):
                read(folder)
        assert log.read_bytes() == less
        assert sorted(str(each) for each in folder.rglob("*")) == before
    log.write_bytes(content)
    assert reopened(folder) == (states[6], 6)


def test_the_log_of_another_service_is_noticed(folder, quick_path):
    with open_toy(quick_path / "b", snapshot_every=99) as other:
        for request in STREAM:
            other.submit(*request)
    for name in ("log.jsonl", "digest.key"):
        shutil.copy(quick_path / "b" / name, folder / name)
    with pytest.raises(ServiceError, match=r"log.jsonl (is another one|ends with)"):
        reopened(folder)


def test_without_its_end_rows_that_the_log_does_not_know_tell_what_it_lost(folder):
    """An older version kept no end; it may have been lost, too."""
    log = folder / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:10]))
    (folder / "log.end").unlink()
    shutil.rmtree(folder / "snapshots")
    words = r"pieces holds the rows of request 6, and .*ends with request 4: .*lost"
    with (
        pytest.warns(UserWarning, match="log.end was missing"),
        pytest.raises(ServiceError, match=words),
    ):
        reopened(folder)
    assert (folder / "pieces" / "6.npz").is_file()


def test_an_end_that_is_damaged_is_named_and_one_that_is_deleted_told(folder, states):
    end = folder / "log.end"
    flip(end, 12)
    words = r"log.end is damaged \(.*back from a copy, or delete it if you know"
    with pytest.raises(ServiceError, match=words):
        reopened(folder)
    end.unlink()
    with pytest.warns(UserWarning, match=r"log.end was missing and is written anew"):
        assert reopened(folder) == (states[6], 6)
    assert reopened(folder) == (states[6], 6)


def test_a_flipped_bit_in_any_file_is_told_or_harmless(folder, states):
    """A sample of each kind of file; what opens has the right state and all entries."""
    draw = np.random.default_rng(5)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = {path.name if path.parent == folder else path.parent.name for path in files}
    assert {"log.jsonl", "log.end", "digest.key", "pieces", "4"} <= kinds
    told = 0
    for path in files:
        content = path.read_bytes()
        for place in draw.integers(0, 8 * len(content), 6 if content else 0):
            changed = bytearray(content)
            changed[place // 8] ^= 1 << (place % 8)
            path.write_bytes(changed)
            before = {each: each.read_bytes() for each in files}
            try:
                assert reopened(folder) == (states[6], 6), (path, place)
            except ServiceError:
                told += 1
                assert {each: each.read_bytes() for each in files} == before
            path.write_bytes(content)
    assert told > 50
    assert reopened(folder) == (states[6], 6)


@pytest.mark.parametrize("name", ["log.jsonl", "digest.key"])
def test_a_lost_log_or_key_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ServiceError, match=rf"{name}.*back from a copy"):
        reopened(folder)


def test_an_empty_log_is_named(folder):
    (folder / "log.jsonl").write_bytes(b"")
    with pytest.raises(ServiceError, match=r"log.jsonl is empty"):
        reopened(folder)


def test_every_byte_of_a_snapshot_counts(folder, states):
    snapshot = folder / "snapshots" / "4"
    files = sorted(path for path in snapshot.rglob("*") if path.is_file())
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(ServiceError, match=r"no state to go on .*snapshots/4"):
            reopened(folder)
        for place in range(0, len(content), max(1, len(content) // 8)):
            path.write_bytes(content)
            flip(path, place)
            with pytest.raises(ServiceError, match="snapshots/4 is damaged: its seal"):
                reopened(folder)
        path.write_bytes(content)
    assert reopened(folder) == (states[6], 6)


def test_a_snapshot_under_another_number_is_noticed(folder):
    (folder / "snapshots" / "4").rename(folder / "snapshots" / "5")
    with pytest.raises(ServiceError, match="its seal does not match"):
        reopened(folder)


def test_a_damaged_newest_snapshot_is_passed_over_while_the_rows_are_there(
    folder, states
):
    """As between the new snapshot's name and the deletion of what it replaces."""
    shutil.copytree(folder / "snapshots" / "4", folder / "snapshots" / "6")
    with pytest.warns(UserWarning, match=r"went back to request 4 .*snapshots/6 is"):
        assert reopened(folder) == (states[6], 6)
    assert os.listdir(folder / "snapshots") == ["6"]
    assert os.listdir(folder / "pieces") == []
    assert reopened(folder) == (states[6], 6)


@pytest.mark.parametrize("how", ["changed", "lost", "exchanged"])
def test_damaged_rows_are_named(folder, how):
    path = folder / "pieces" / "5.npz"
    words = r"rows of request 5 \('l4'\) in .*5.npz cannot be read"
    if how == "changed":
        flip(path, 100)
    elif how == "exchanged":
        shutil.copy(folder / "pieces" / "6.npz", path)
        words += r" \(it belongs to another request"
    else:
        path.unlink()
        words = r"rows of request 5 \('l4'\), .* are not in .*pieces"
    before = sorted(str(each) for each in folder.rglob("*"))
    with pytest.raises(ServiceError, match=words):
        reopened(folder)
    assert sorted(str(each) for each in folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gram": jnp.eye(5)}, r"'gram'\] = float64\[5, 5\], .* began with"),
        ({"gram": jnp.eye(4, dtype="float32")}, r"'gram'\] = float32"),
        ({"more": jnp.zeros(1)}, r"'more'\] = float64\[1\], .*no such leaf"),
        ({"gram": 2.0 * jnp.eye(4)}, "other values .*another seed or setting"),
        ({"gram": jnp.eye(4).at[0, 0].add(1e-15)}, "other values"),
    ],
)
def test_another_start_state_is_named(folder, change, words):
    with pytest.raises(ServiceError, match=words):
        open_service(folder, start_state() | change, apply)


def test_another_apply_function_is_noticed_where_it_refuses(folder):
    def strict(state, kind, arrays):
        raise ValueError("too strict")

    words = r"request 5 \('l4'\) was applied before and is now refused: too strict"
    with pytest.raises(ServiceError, match=words):
        reopened(folder, apply=strict)


@pytest.mark.parametrize("name", ["pieces", "log", "snapshot"])
def test_a_full_disk_is_told_and_the_same_request_goes_on_later(
    folder, states, monkeypatch, name
):
    import orbax.checkpoint as ocp

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    service = open_toy(folder, snapshot_every=3)
    rows = STREAM[1][2]["rows"]
    request = ("new", "learn", {"rows": rows, "targets": np.zeros((len(rows), 2))})
    error, words = StorageError, "the disk is full"
    if name == "pieces":
        monkeypatch.setattr(os, "replace", full)
    elif name == "log":
        monkeypatch.setattr(os, "write", full)
    else:
        error, words = CheckpointError, "could not write .*No space left"
        monkeypatch.setattr(ocp.StandardCheckpointer, "save", full)
    with pytest.raises(error, match=words):
        service.submit(*request)
    monkeypatch.undo()
    if name == "log":
        with pytest.raises(ServiceError, match=r"request 7 .*the disk is full.*Open"):
            service.submit(*request)
        service.close()
        service = open_toy(folder, snapshot_every=3)
    entry = service.submit(*request)
    assert (entry.sequence, entry.outcome) == (7, "applied")
    assert os.listdir(folder / "snapshots") == ["7"]
    assert os.listdir(folder / "pieces") == []
    service.close()
    assert float(service.state["count"]) == count(states[6]) + len(rows)


def count(state):
    return float(np.frombuffer(state["count"][2])[0])


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((StorageError, NotADirectoryError), match="file"):
        open_toy(tmp_path / "file" / "a")


def test_a_folder_that_forbids_writing_is_named(folder, monkeypatch):
    real = os.open

    def forbidden(path, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(StorageError, match="writing there is not permitted"):
        reopened(folder)
