"""What a service promises its caller: once, in order, told, refused, cleared."""

import os
import stat
import threading
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from service.toy import ROWS, apply, bits, learn, open_toy, requests, start_state, tree

from unlearn_jax.service.audit import audit, verify
from unlearn_jax.service.disk import ServiceError
from unlearn_jax.service.key import read_key
from unlearn_jax.service.open import open_service
from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.storage.store import BusyError


def refused(name):
    return name, "forget", learn(name, 9 * ROWS)[2]


def payloads(folder):
    return sorted(os.listdir(folder / "pieces"))


def snapshots(folder):
    return sorted(os.listdir(folder / "snapshots"))


def test_the_same_id_again_is_told_the_outcome_and_applied_once(tmp_path):
    with open_toy(tmp_path) as service:
        first = service.submit(*learn("a"))
        after = bits(service.state)
        assert service.submit(*learn("a")) == first
        assert bits(service.state) == after
        service.submit(*learn("b"))
        assert bits(service.state) != after
    with open_toy(tmp_path) as service:
        again = service.submit(*learn("a"))
        assert again._replace(cleared="") == first
        assert len(service.entries) == 2


@pytest.mark.parametrize(
    "other",
    [
        learn("a", ROWS + 1e-15),
        learn("a", ROWS.reshape(4, 2)),
        learn("a", ROWS.astype("float32")),
        ("a", "forget", learn("a")[2]),
        ("a", "learn", {"rows": ROWS}),
    ],
)
def test_the_same_id_for_another_request_is_an_error(tmp_path, other):
    with open_toy(tmp_path) as service:
        service.submit(*learn("a"))
        before = bits(service.state)
        with pytest.raises(ValueError, match=r"'a' was used for another .*number 1"):
            service.submit(*other)
        assert bits(service.state) == before
        service.submit(*learn("b"))
        assert [e.id for e in service.entries] == ["a", "b"]


def test_a_refused_request_leaves_the_state_its_line_and_no_rows(tmp_path):
    with open_toy(tmp_path) as service:
        service.submit(*learn("a"))
        before = bits(service.state)
        entry = service.submit(*refused("b"))
        assert entry.outcome.startswith("refused: not positive definite (")
        assert bits(service.state) == before
        assert payloads(tmp_path) == ["1.npz"]
        wrong = service.submit("c", "learn", {"rows": ROWS, "targets": np.zeros(3)})
        assert wrong.outcome.startswith("refused: ")
        assert verify(tmp_path).entries == service.entries


def test_rows_are_gone_after_a_kind_that_clears_and_at_the_end(tmp_path):
    with open_toy(tmp_path, snapshot_every=99, snapshot_after=("forget",)) as service:
        service.submit(*learn("a"))
        service.submit(*learn("b", ROWS[::-1]))
        assert payloads(tmp_path) == ["1.npz", "2.npz"]
        assert snapshots(tmp_path) == []
        service.submit("c", "forget", learn("a")[2])
        assert payloads(tmp_path) == []
        assert snapshots(tmp_path) == ["3"]
        assert all(e.cleared for e in service.entries)
        service.submit(*learn("d"))
        assert payloads(tmp_path) == ["4.npz"]
    assert payloads(tmp_path) == []
    assert snapshots(tmp_path) == ["4"]
    rows = ROWS.tobytes()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(rows in path.read_bytes() for path in files)


def test_unless_told_otherwise_what_forgets_or_replaces_clears(tmp_path):
    def same(state, kind, arrays):
        return state, {}

    with open_service(tmp_path, start_state(), same) as service:
        for i, kind in enumerate(("forget", "replace")):
            service.submit(f"l{i}", *learn("")[1:])
            assert len(payloads(tmp_path)) == 1
            service.submit(kind, kind, {"rows": ROWS, "new_rows": ROWS})
            assert payloads(tmp_path) == []
            assert all(e.cleared for e in service.entries)


def test_whoever_has_the_key_can_confirm_a_guess_and_the_audit_says_so(tmp_path):
    with open_toy(tmp_path, snapshot_after=("forget",)) as service:
        service.submit(*learn("a"))
        _, kind, rows = learn("a")
        entry = service.submit("b", "forget", rows)
    guess = digest_arrays(read_key(tmp_path), kind, rows).hex()
    assert guess != entry.digest
    guess = digest_arrays(read_key(tmp_path), "forget", rows).hex()
    assert guess == entry.digest
    assert digest_arrays(bytes(32), "forget", rows).hex() != entry.digest
    notes = " ".join(audit(tmp_path).footnotes)
    assert "with digest.key, a guess of all the rows can be confirmed" in notes
    assert "Of a refused request: the time of its outcome, after which" in notes


def test_snapshots_come_after_so_many_applied_requests(tmp_path):
    with open_toy(tmp_path, snapshot_every=2) as service:
        seen = []
        for request in (learn("a"), learn("b"), refused("c"), learn("d")):
            service.submit(*request)
            seen.append(snapshots(tmp_path))
    assert seen == [[], ["2"], ["2"], ["2"]]
    assert snapshots(tmp_path) == ["4"]


def test_opening_and_closing_changes_nothing(tmp_path):
    with open_toy(tmp_path) as service:
        service.submit(*learn("a"))

    def files():
        paths = [path for path in tmp_path.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in paths}

    before = files()
    for _ in range(2):
        with open_toy(tmp_path) as service:
            service.submit(*learn("a"))
    assert files() == before


def test_the_log_and_the_audit_tell_what_happened(tmp_path):
    with open_toy(tmp_path) as service:
        for request in requests(8):
            service.submit(*request)
        table = audit(tmp_path)  # while it is open, too
    assert len(table.rows) == len(service.entries) == 7
    first, refusal = table.rows[1], table.rows[-1]
    assert [cell.text for cell in first[:4]] == ["2", "l1", "learn", "5"]
    assert first[6].text == "applied"
    assert first[7].text.startswith("smallest ")
    assert refusal[6].text.startswith("refused: ")
    assert "6 applied, 1 refused, 0 under way" in table.caption
    assert first[1].text in table.to_markdown()
    by_id = {e.id: e for e in verify(tmp_path).entries}
    assert by_id["l1"].accepted <= by_id["l1"].done <= by_id["l1"].cleared


def test_the_log_holds_no_rows_and_digests_need_the_key(tmp_path):
    for name in ("one", "two"):
        with open_toy(tmp_path / name) as service:
            service.submit(*learn("a"))
    one, two = (verify(tmp_path / name).entries[0] for name in ("one", "two"))
    assert one.digest != two.digest
    mode = (tmp_path / "one" / "digest.key").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_figures_that_are_no_numbers_of_json_come_back(tmp_path):
    def figures(state, kind, arrays):
        del kind, arrays
        return state, {"a": float("nan"), "b": jnp.float32(0.1), "c": float("inf")}

    with open_toy(tmp_path, apply=figures) as service:
        service.submit(*learn("a"))
    numbers = dict(verify(tmp_path).entries[0].figures)
    assert np.isnan(numbers["a"])
    assert numbers["b"] == float(np.float32(0.1))
    assert numbers["c"] == float("inf")


def test_an_error_in_between_stops_and_opening_again_goes_on(tmp_path):
    def failing(*_):
        raise MemoryError("no room")

    service = open_toy(tmp_path, apply=failing)
    words = r"request 1 \('a'\) has no outcome: it ended in MemoryError \(no room\)"
    with pytest.raises(ServiceError, match=words):
        service.submit(*learn("a"))
    with pytest.raises(ServiceError, match=r"request 1 \('a'\) ended in MemoryError"):
        service.submit(*learn("b"))
    service.close()
    with pytest.raises(ServiceError, match=rf"{words}.*or with withdraw='a'"):
        open_toy(tmp_path, apply=failing)
    pending = verify(tmp_path).pending
    assert pending is not None
    assert "1 under way" in audit(tmp_path).caption
    with open_toy(tmp_path) as service:
        assert service.entries[0].outcome == "applied"


def test_threads_take_turns(quick_path):
    def slow(state, kind, arrays):
        time.sleep(0.002)
        return apply(state, kind, arrays)

    with open_toy(quick_path, apply=slow, snapshot_every=7) as service:

        def ask(thread):
            for i in range(10):
                service.submit(*learn(f"{thread}-{i}"))
                service.snapshot()

        threads = [threading.Thread(target=ask, args=(t,)) for t in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert [e.sequence for e in service.entries] == list(range(1, 31))
        assert {e.outcome for e in service.entries} == {"applied"}
        want = bits(service.state)
    with open_toy(quick_path) as service:
        assert bits(service.state) == want
        assert float(service.state["count"]) == 60


def test_the_apply_function_and_a_fork_are_kept_out(tmp_path):
    held = []

    def nested(state, kind, arrays):
        with pytest.raises(ServiceError, match="called by its own apply function"):
            held[0].submit(*learn("inner"))
        with pytest.raises(ServiceError, match="called by its own apply function"):
            held[0].close()
        return apply(state, kind, arrays)

    with open_toy(tmp_path, apply=nested) as service:
        held.append(service)
        service.submit(*learn("a"))
        before = tree(tmp_path)
        service._process -= 1  # as a fork sees it
        with pytest.raises(ServiceError, match="of which this one is a fork"):
            service.submit(*learn("b"))
        service.close()
        assert tree(tmp_path) == before
    with open_toy(tmp_path) as service:
        assert [e.id for e in service.entries] == ["a"]


def test_a_folder_is_locked_while_it_is_open(tmp_path):
    with open_toy(tmp_path), pytest.raises(BusyError):
        open_toy(tmp_path)
    service = open_toy(tmp_path)
    service.close()
    with pytest.raises(ServiceError, match="it was closed"):
        service.submit(*learn("a"))


class State(NamedTuple):
    """Value: leaves as they are met."""

    weak: Any
    half: Any
    empty: Any
    numpy: Any
    number: Any


def types(state):
    return [
        (type(leaf), leaf.dtype, leaf.shape, getattr(leaf, "weak_type", None))
        for leaf in state
    ]


def test_a_restart_gives_back_types_as_they_were(tmp_path):
    """Weak types would otherwise promote differently afterwards, and numpy's arrays
    add in another order than JAX's."""
    seen = []

    def watching(state, kind, arrays):
        del kind, arrays
        seen.append(types(state))
        weak, wide = jnp.asarray(1.5), np.asfortranarray(np.ones((2, 3), ">u8"))
        return State(weak, state.half * 2.0, state.empty, wide, np.float64(2.0)), {}

    start = State(
        jnp.asarray(0.5), jnp.ones(2, jnp.bfloat16), jnp.zeros((0, 2)),
        np.zeros((0, 2), np.uint64), 1.0,
    )  # fmt: skip
    assert start.weak.weak_type
    for name, opened in (("once", 1), ("often", 3)):
        for _ in range(opened):
            with open_service(tmp_path / name, start, watching) as service:
                for i in "abc"[: 3 if opened == 1 else len(service.entries) + 1]:
                    service.submit(i, "x", {"half": np.ones(2, jnp.bfloat16)})
    assert seen[:3] == seen[3:]
    assert not any(each[0][3] for each in seen)
    with open_service(tmp_path / "often", start, watching) as service:
        back = service.state
    assert type(back) is State
    assert np.asarray(back.half).tolist() == [8.0, 8.0]
    assert back.numpy.flags.writeable
    assert back.numpy.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_the_callers_arrays_are_copied_in_their_values(tmp_path):
    """Views, other orders and JAX arrays are one request with their plain copy."""
    with open_toy(tmp_path) as service:
        first = service.submit(*learn("a"))
        for rows in (np.asfortranarray(ROWS), jnp.asarray(ROWS), ROWS[::-1][::-1]):
            assert service.submit(*learn("a", rows)) == first


def test_what_cannot_be_kept_is_refused_before_it_is_accepted(tmp_path):
    with open_toy(tmp_path) as service:
        with pytest.raises(ValueError, match="'rows' holds objects"):
            service.submit("a", "learn", {"rows": np.array([object()])})
        assert service.entries == ()
        assert payloads(tmp_path) == []
    for leaf, words in (
        (jax.random.key(0), "random key"),
        (np.array([object()]), "expected an array"),
    ):
        with pytest.raises(ValueError, match=words):
            open_service(tmp_path / "b", {"x": leaf}, apply)
    with pytest.raises(ValueError, match="snapshot_every is 0"):
        open_toy(tmp_path, snapshot_every=0)


def test_a_state_that_changes_its_structure_stops_the_service(tmp_path):
    def more(state, kind, arrays):
        del kind, arrays
        return state | {"new": jnp.zeros(1)}, {}

    service = open_toy(tmp_path, apply=more)
    with pytest.raises(ServiceError, match="shapes may change, the structure may not"):
        service.submit(*learn("a"))
    service.close()


def test_a_state_given_away_and_then_refused_is_named(tmp_path):
    def donating(state, kind, arrays):
        if kind == "forget":
            state["gram"].delete()
        return apply(state, "learn", arrays) if kind == "learn" else refuse()

    def refuse():
        raise ValueError("no")

    service = open_toy(tmp_path, apply=donating)
    service.submit(*learn("a"))
    want = bits(service.state)
    with pytest.raises(ServiceError, match=r"request 2 was refused .*donate"):
        service.submit("b", "forget", {})
    service.close()
    with open_toy(tmp_path, apply=donating) as service:
        assert bits(service.state) == want
        assert service.entries[1].outcome == "refused: no"
