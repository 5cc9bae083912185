"""Open a service: read its log, find its state, go on where it was."""

import contextlib
import warnings
from pathlib import Path
from typing import Any

import jax

from unlearn_jax.service.disk import ServiceError, make_private, sync
from unlearn_jax.service.end import END_FILE, End, read_end, write_end
from unlearn_jax.service.history import (
    APPLIED,
    REFUSED,
    Entry,
    History,
    read_history,
)
from unlearn_jax.service.key import KEY_FILE, make_key, read_key
from unlearn_jax.service.log import LOG_FILE, now, read_log, start_log
from unlearn_jax.service.service import SNAPSHOTS, Apply, Service
from unlearn_jax.service.snapshot import (
    adopt,
    describe,
    digest_state,
    read_snapshot,
    sequences,
)
from unlearn_jax.storage.store import Store
from unlearn_jax.storage.write import private_folder


def open_service(
    folder: str | Path,
    start_state: Any,
    apply: Apply,
    *,
    snapshot_every: int = 64,
    snapshot_after: tuple[str, ...] = ("forget", "replace"),
    withdraw: str = "",
) -> Service:
    """Open the service of a folder, or begin one; go on where it was.

    After a kill or a power cut at any moment the state equals, bit for bit, that of a
    run which was never disturbed, and each request is applied once. A request is
    written to disk before it is applied: first its arrays, then a line in the log. How
    far the log went is kept in a file beside it before anybody is told an outcome, so
    that a log which lost lines at its end is noticed, and refused.
    They are deleted as soon as a snapshot that has the request within is on disk;
    until then a power cut would lose it. So rows to be learned lie in the folder for
    at most ``snapshot_every`` requests, and after a kind named in ``snapshot_after``
    no rows and no older state are left. Deleting frees the blocks of a file; it does
    not overwrite them.

    What stays of rows for good is the digest of their request in the log, under the
    key that lies beside it: whoever has the whole folder can confirm a guess of all
    rows of a request, so of an erased row if it was learned or forgotten alone. Nobody
    can with the log only. The service needs the key to open and to know a request
    again; guard the folder as the rows, and hand on the log without ``digest.key``.

    The folder: ``log.jsonl`` (see :func:`read_log`), ``log.end`` (how far it went),
    ``digest.key`` (secret), ``pieces`` (rows of the requests since the snapshot),
    ``snapshots/NUMBER`` (one at rest); all of it for its owner alone (0700, 0600).

    Args:
        folder: Of this service alone; locked while it is open.
        start_state: Pytree of arrays before the first request, the same bit for bit
            every time; all that decides what the requests do belongs in it or in the
            code of ``apply``. Shapes may change later, the structure may not.
        apply: ``apply(state, kind, arrays) -> (state, figures)`` with a name and a
            number each (residual, margin). Deterministic. ``ValueError`` (such as
            ``RefusedError``) and ``TypeError`` refuse the request; the state that was
            handed in then goes on, so it must not have been donated. Where it has a
            method ``check(kind, arrays)``, that is asked before anything is written:
            what it raises reaches the caller, and the folder stays as it was.
        snapshot_every: Take one after so many applied requests.
        snapshot_after: And after each applied request of these kinds.
        withdraw: Id of a request that was accepted and ends in an error each time, or
            whose rows were lost before it had an outcome; it is refused instead of
            applied, with a line in the log, so that the service opens again. One that
            was withdrawn already is fine.

    Returns:
        The open service; use it as a context manager.

    Raises:
        BusyError: another process, or another service of this one, holds the folder.
        StorageError: the folder cannot be written.
        CheckpointError: the snapshot that is due cannot be written.
        ServiceError: the log, the key, a snapshot or a payload that is needed is
            damaged or missing, or the start state is another one; the request under
            way ends in an error; or there is nothing to withdraw.
        ValueError: a leaf of the start state is no array, or
            ``snapshot_every`` is below one.

    Cost: one snapshot read, and the requests since then applied again.
    Source: own. Write-ahead logging as databases have it.
    """
    if snapshot_every < 1:
        raise ValueError(f"snapshot_every is {snapshot_every}, expected at least 1")
    start = adopt(start_state)
    store = Store(Path(folder), private=True)
    with contextlib.ExitStack() as undo:
        undo.callback(store.close)
        key, events, end = _open_log(store, start)
        history = read_history(store.folder, events)
        _check_start(store.folder, events[0], key, start)
        withdrawn = _withdrawn(history, withdraw)
        state, base, damaged = _base(store, key, history, start, withdrawn)
        service = Service(
            store,
            key,
            state,
            apply,
            history,
            end=end,
            base=base,
            snapshot_every=snapshot_every,
            snapshot_after=snapshot_after,
        )
        for entry in history.entries[base:]:
            if entry.outcome == APPLIED:
                service.replay(entry)
        if history.pending is not None:
            service.finish(history.pending, withdrawn=withdrawn is not None)
        if damaged or service.due():
            service.snapshot()
        else:
            service.clear()
        undo.pop_all()
    return service


def _open_log(store: Store, start: Any) -> tuple[bytes, list[dict], End]:
    """Key, events and end of the log; a new folder gets its files, each on disk."""
    folder = store.folder
    parts = (store.path("1").parent, folder / SNAPSHOTS)
    for part in parts:
        private_folder(part)
    make_private(folder)
    sync(folder)
    sync(folder.absolute().parent)
    end = read_end(folder)
    if (folder / LOG_FILE).is_file():
        key = read_key(folder)
        events, crc = read_log(folder, end, repair=True)
        return key, events, _confirmed(folder, events, End(len(events), crc), end)
    left = [path for part in parts for path in part.iterdir()]
    left += [folder / END_FILE] if end is not None and end.lines > 1 else []
    if left:
        raise ServiceError(
            f"{folder} holds {left[0].name} and no {LOG_FILE}: put the log back from a "
            "copy, or choose another folder"
        )
    key = make_key(folder)
    first = {"event": "started", "format": 2, "started": now()}
    about = {"leaves": describe(start), "digest": digest_state(key, start)}
    events, crc = start_log(folder, first | about)
    return key, events, End(1, crc)


def _confirmed(folder: Path, events: list[dict], found: End, told: End | None) -> End:
    """The end of a log that was read, kept beside it from now on."""
    if told is None and events[0]["format"] > 1:
        warnings.warn(
            f"{folder / END_FILE} was missing and is written anew: whether {LOG_FILE} "
            f"lost lines behind its line {found.lines} could not be checked",
            stacklevel=4,
        )
    if found != told:
        sync(folder / LOG_FILE)
        write_end(folder, found)
    return found


def _withdrawn(history: History, id: str) -> Entry | None:
    """The request under way, if that is the one to withdraw.

    Raises:
        ServiceError: another one is meant, which cannot be withdrawn.
    """
    pending = history.pending
    if not id or (pending is not None and pending.id == id):
        return pending if id else None
    outcome = {entry.id: entry.outcome for entry in history.entries}.get(id)
    if outcome is None:
        waiting = "none is" if pending is None else f"{pending.id!r} is"
        raise ServiceError(
            f"no request has the id {id!r}, so that it cannot be withdrawn; {waiting} "
            "under way"
        )
    if outcome == APPLIED:
        raise ServiceError(
            f"the request {id!r} was applied and can no longer be withdrawn: open the "
            "service without withdraw, and forget its rows by a request of its own"
        )
    return None


def _check_start(folder: Path, first: dict, key: bytes, start: Any) -> None:
    expected, found = first["leaves"], describe(start)
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            raise ServiceError(
                f"the start state has {name} = {found.get(name, 'missing')}, and "
                f"{folder} began with {expected.get(name, 'no such leaf')}: open it "
                "with the configuration that it began with, or choose another folder"
            )
    if digest_state(key, start) != first["digest"]:
        raise ServiceError(
            f"the start state has the shapes that {folder} began with, but other "
            f"values (another seed or setting, or another {KEY_FILE}): open it with "
            "the configuration that it began with, or choose another folder"
        )


def _base(
    store: Store, key: bytes, history: History, start: Any, withdrawn: Entry | None
) -> tuple[Any, int, list[str]]:
    """The newest state that is whole and that the payloads lead on from.

    Returns:
        It, the number of its last request, and what is damaged among newer ones.
    """
    snapshots, damaged = store.folder / SNAPSHOTS, []
    _check_orphans(store, history)
    for base in [*sequences(snapshots), 0]:
        if base > history.done:
            raise ServiceError(
                f"{snapshots / str(base)} is ahead of {store.folder / LOG_FILE}, which "
                f"ends with request {history.done}: lines of the log were lost; put it "
                "back from a copy that has them"
            )
        since = [e for e in history.entries[base:] if not e.outcome.startswith(REFUSED)]
        lost = [e for e in since if not store.path(str(e.sequence)).is_file()]
        lost = [entry for entry in lost if entry != withdrawn]
        if lost:
            if lost == [history.pending]:
                raise ServiceError(
                    f"the rows of request {lost[0].sequence} ({lost[0].id!r}), which "
                    f"has no outcome yet, are not in {store.path('1').parent}: put "
                    f"them back from a copy, or open the service with "
                    f"withdraw={lost[0].id!r} to take it back"
                )
            reasons = damaged or [f"no newer one is in {snapshots}"]
            raise ServiceError(
                f"no state to go on from: {'; '.join(reasons)}; and the rows of "
                f"request {lost[0].sequence} ({lost[0].id!r}), which would be needed "
                f"to go on from request {base}, are not in {store.path('1').parent}. "
                f"Put {snapshots} back from a copy; nothing was changed"
            )
        try:
            state = (
                read_snapshot(snapshots, key, base, start)
                if base
                else jax.tree.map(lambda leaf: leaf.copy(), start)
            )
        except ServiceError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(
                f"went back to request {base} and applied what came later once more: "
                f"{'; '.join(damaged)}",
                stacklevel=3,
            )
        return state, base, damaged
    raise AssertionError("the start state is always whole")


def _check_orphans(store: Store, history: History) -> None:
    """Refuse payloads of requests that the log does not know.

    A kill leaves one at most: on disk before the line of its request was.

    Raises:
        ServiceError: names the first.
    """
    pieces = store.path("1").parent
    numbers = [path.stem for path in pieces.glob("*.npz")]
    ahead = [int(n) for n in numbers if n.isdigit() and int(n) > history.done + 1]
    if ahead:
        raise ServiceError(
            f"{pieces} holds the rows of request {min(ahead)}, and "
            f"{store.folder / LOG_FILE} ends with request {history.done}: lines of "
            "the log were lost; put it back from a copy that has them; nothing was "
            "changed"
        )
