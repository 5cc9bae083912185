"""Open a service: read its log, find its state, go on where it was."""

import contextlib
import warnings
from pathlib import Path
from typing import Any

import jax

from unlearn_jax.results.store import Store
from unlearn_jax.service.digest import KEY_FILE, make_key, read_key
from unlearn_jax.service.disk import ServiceError, sync
from unlearn_jax.service.history import APPLIED, REFUSED, History, read_history
from unlearn_jax.service.log import LOG_FILE, now, read_log, start_log
from unlearn_jax.service.service import SNAPSHOTS, Apply, Service
from unlearn_jax.service.snapshot import (
    adopt,
    describe,
    digest_state,
    read_snapshot,
    sequences,
)
from unlearn_jax.storage.write import raise_storage_error


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
    written to disk before it is applied: first its arrays, then a line in the log.
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

    The folder: ``log.jsonl`` (see :func:`read_log`), ``digest.key`` (secret),
    ``pieces`` (rows of the requests since the snapshot), ``snapshots/NUMBER`` (one at
    rest).

    Args:
        folder: Of this service alone; locked while it is open.
        start_state: Pytree of arrays before the first request, the same bit for bit
            every time; all that decides what the requests do belongs in it or in the
            code of ``apply``. Shapes may change later, the structure may not.
        apply: ``apply(state, kind, arrays) -> (state, figures)`` with a name and a
            number each (residual, margin). Deterministic. ``ValueError`` (such as
            ``RefusedError``) and ``TypeError`` refuse the request; the state that was
            handed in then goes on, so it must not have been donated.
        snapshot_every: Take one after so many applied requests.
        snapshot_after: And after each applied request of these kinds.
        withdraw: Id of a request that was accepted and ends in an error each time;
            it is refused instead of applied, so that the service opens again.

    Returns:
        The open service; use it as a context manager.

    Raises:
        BusyError: another process holds the folder.
        StorageError: the folder cannot be written.
        CheckpointError: the snapshot that is due cannot be written.
        ServiceError: the log, the key, a snapshot or a payload that is needed is
            damaged or missing, or the start state is another one.
        ValueError: a leaf of the start state is no array, or
            ``snapshot_every`` is below one.

    Cost: one snapshot read, and the requests since then applied again.
    Source: own. Write-ahead logging as databases have it.
    """
    if snapshot_every < 1:
        raise ValueError(f"snapshot_every is {snapshot_every}, expected at least 1")
    start = adopt(start_state)
    store = Store(Path(folder))
    with contextlib.ExitStack() as undo:
        undo.callback(store.close)
        key, events, crc = _open_log(store, start)
        history = read_history(store.folder, events)
        _check_start(store.folder, events[0], key, start)
        state, base, damaged = _base(store, key, history, start)
        service = Service(
            store,
            key,
            state,
            apply,
            history,
            crc=crc,
            base=base,
            snapshot_every=snapshot_every,
            snapshot_after=snapshot_after,
        )
        for entry in history.entries[base:]:
            if entry.outcome == APPLIED:
                service.replay(entry)
        if history.pending is not None:
            service.finish(history.pending, withdrawn=history.pending.id == withdraw)
        if damaged or service.due():
            service.snapshot()
        else:
            service.clear()
        undo.pop_all()
    return service


def _open_log(store: Store, start: Any) -> tuple[bytes, list[dict], int]:
    """Key, events and checksum; a new folder gets its files, each forced to disk."""
    folder = store.folder
    parts = (store.path("1").parent, folder / SNAPSHOTS)
    try:
        for part in parts:
            part.mkdir(exist_ok=True)
    except OSError as error:
        raise_storage_error(folder / SNAPSHOTS, 0, error)
    sync(folder)
    sync(folder.absolute().parent)
    if (folder / LOG_FILE).is_file():
        return (read_key(folder), *read_log(folder, repair=True))
    if left := [path for part in parts for path in part.iterdir()]:
        raise ServiceError(
            f"{folder} holds {left[0].name} and no {LOG_FILE}: put the log back from a "
            "copy, or choose another folder"
        )
    key = make_key(folder)
    first = {"event": "started", "format": 1, "started": now()}
    about = {"leaves": describe(start), "digest": digest_state(key, start)}
    return (key, *start_log(folder, first | about))


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
    store: Store, key: bytes, history: History, start: Any
) -> tuple[Any, int, list[str]]:
    """The newest state that is whole and that the payloads lead on from.

    Returns:
        It, the number of its last request, and what is damaged among newer ones.
    """
    snapshots, damaged = store.folder / SNAPSHOTS, []
    for base in [*sequences(snapshots), 0]:
        if base > history.done:
            raise ServiceError(
                f"{snapshots / str(base)} is ahead of {store.folder / LOG_FILE}, which "
                f"ends with request {history.done}: lines of the log were lost; put it "
                "back from a copy that has them"
            )
        since = [e for e in history.entries[base:] if not e.outcome.startswith(REFUSED)]
        lost = [e for e in since if not store.path(str(e.sequence)).is_file()]
        if lost:
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
