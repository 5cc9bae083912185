"""Pieces by content: made once, found by another process, swept for good."""

import numpy as np
import pytest

from unlearn_jax.storage.contents import Contents
from unlearn_jax.storage.piece import PieceError
from unlearn_jax.storage.store import Store


def made(log, value):
    def make():
        log.append(value)
        return {"value": np.full(2, value, np.float32)}

    return make


@pytest.fixture(params=["memory", "disk"])
def contents(request, tmp_path):
    if request.param == "memory":
        yield Contents()
    else:
        with Store(tmp_path) as store:
            yield Contents(store)


def test_what_is_there_is_not_made_again(contents):
    log = []
    for _ in range(2):
        contents.keep("a", made(log, 1))
        contents.keep("b", made(log, 2))
    assert log == [1, 2]
    assert np.array_equal(contents.load("b")["value"], [2, 2])
    assert contents.load("b")["value"].dtype == np.float32


def test_a_sweep_leaves_what_is_named_and_nothing_else(contents):
    log = []
    for name in "abc":
        contents.keep(name, made(log, 1))
    assert contents.sweep({"b", "never"}) == 2
    assert [contents.has(name) for name in "abc"] == [False, True, False]
    with pytest.raises(KeyError):
        contents.load("a")
    assert contents.sweep({"b"}) == 0


def test_the_next_process_finds_them(tmp_path):
    log = []
    for _ in range(2):
        with Store(tmp_path) as store:
            Contents(store).keep("a", made(log, 3))
    assert log == [3]


def test_a_damaged_piece_is_told_and_never_used(tmp_path):
    with Store(tmp_path) as store:
        contents = Contents(store)
        contents.keep("a", made([], 3))
        path = store.path("a")
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(PieceError, match=r"Delete that file"):
            contents.load("a")
        path.unlink()
        contents.keep("a", made([], 3))
        assert np.array_equal(contents.load("a")["value"], [3, 3])
