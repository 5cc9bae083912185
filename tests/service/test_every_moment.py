"""Whatever moment a kill or a power cut hits, the state that comes back is right."""

import os
import warnings
from collections import Counter

import pytest
from service.toy import bits, open_toy, requests, told, undisturbed
from service.watch import Watch, lay_out

from unlearn_jax.service.audit import verify

STREAM = requests(9)
EVERY = 3


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("reference") / "a", STREAM)


def run_watched(folder, stream, **options):
    """Trees of a run of the whole stream."""
    with pytest.MonkeyPatch.context() as patch:
        watch = Watch(folder, patch)
        with open_toy(folder, snapshot_every=EVERY, **options) as service:
            for request in stream:
                service.submit(*request)
                watch.told = len(service.entries)
    watch.free()
    return list(watch.trees.values())


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    return run_watched(tmp_path_factory.mktemp("watched") / "a", STREAM)


def names(folder):
    return sorted(os.listdir(folder))


def check(folder, reference, least):
    """Open what was left: the state is one of the undisturbed run, nothing told is
    lost, nothing superfluous stays; at the end all is as in the undisturbed run."""
    states, entries = reference
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(half-written|went back)")
        service = open_toy(folder, snapshot_every=EVERY)
    found = service.entries
    assert least <= len(found) <= least + 1
    assert bits(service.state) == states[len(found)]
    assert told(found) == entries[: len(found)]
    assert verify(folder).pending is None
    snapshots = names(folder / "snapshots")
    base = int(snapshots[0]) if snapshots else 0
    assert len(snapshots) <= 1
    needed = {f"{e.sequence}.npz" for e in found[base:] if e.outcome == "applied"}
    assert set(names(folder / "pieces")) == needed
    return service


def test_the_watch_sees_every_kind_of_moment(moments):
    kinds = Counter(kind for all_kinds, *_ in moments for kind in all_kinds)
    assert kinds["killed"] > 100
    assert kinds["cut"] > 30
    assert kinds["mixed"] > 30
    assert any("tmp" in name for _, _, tree in moments for name in tree)
    assert {least for _, least, _ in moments} >= set(range(8))


def test_every_moment_gives_the_state_of_the_undisturbed_run(
    moments, reference, quick_path
):
    states, entries = reference
    for i, (_, least, tree) in enumerate(moments):
        folder = quick_path / str(i)
        lay_out(tree, folder)
        service = check(folder, reference, least)
        if i % 16:
            service.close(snapshot=False)
        else:
            with service:
                for request in STREAM:
                    service.submit(*request)
            assert bits(service.state) == states[len(entries)]
            assert told(service.entries) == entries
            assert names(folder / "pieces") == []
            assert names(folder / "snapshots") == [str(len(entries))]


@pytest.mark.parametrize("case", ["damaged", "unforced"])
def test_every_moment_of_a_recovery_does_too(moments, reference, quick_path, case):
    """The process died when a new snapshot had its name and all rows were there still.

    Then the power goes while the service is opened again. The snapshot is damaged, so
    that it is passed over and replaced; or its name was not yet forced to disk.
    """
    old = {f"pieces/{number}.npz" for number in (1, 2, 3)}
    least, tree = next(
        (least, tree)
        for _, least, tree in moments
        if {"snapshots/3/seal", *old} <= set(tree)
    )
    damage = {"snapshots/3/seal": b""} if case == "damaged" else {}
    folder = quick_path / "first"
    lay_out(tree | damage, folder)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*went back to request 0")
        unforced = folder / "snapshots" if case == "unforced" else None
        watch = Watch(folder, patch, unforced)
        open_toy(folder, snapshot_every=EVERY).close(snapshot=False)
    watch.free()
    assert len(watch.trees) > 5
    for i, (_, _, tree) in enumerate(watch.trees.values()):
        lay_out(tree, quick_path / str(i))
        check(quick_path / str(i), reference, least).close(snapshot=False)
