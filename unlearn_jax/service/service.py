"""A state that requests change one after another, each exactly once, come what may."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from unlearn_jax.service.arguments import check_text, count_of, own_arrays
from unlearn_jax.service.disk import ServiceError, remove, sync
from unlearn_jax.service.end import End, write_end
from unlearn_jax.service.history import (
    APPLIED,
    REFUSED,
    Entry,
    History,
    accepted_event,
    cleared_event,
    done_event,
)
from unlearn_jax.service.log import add_line, now
from unlearn_jax.service.snapshot import adopt, write_snapshot
from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.storage.piece import unpack
from unlearn_jax.storage.store import Store

SNAPSHOTS = "snapshots"
Apply = Callable[[Any, str, dict[str, np.ndarray]], tuple[Any, Mapping[str, Any]]]
_LONGEST_REASON = 300
_NESTED = "the service was called by its own apply function: return first"


class Service:
    """A state, its log and its folder; made by :func:`open_service`.

    Threads may share it: one request comes after the other. A forked process must open
    a service of its own. Where anything fails between the acceptance of a request and
    its outcome, the service stops: what is on disk is right, and opening it again goes
    on.

    Attributes:
        state: After all requests so far; read only.
    """

    def __init__(
        self,
        store: Store,
        key: bytes,
        state: Any,
        apply: Apply,
        history: History,
        *,
        end: End,
        base: int,
        snapshot_every: int,
        snapshot_after: tuple[str, ...],
    ):
        self.state = state
        self._store, self._key, self._apply = store, key, apply
        self._snapshots = store.folder / SNAPSHOTS
        self._entries, self._cleared = list(history.entries), history.cleared
        self._by_id = {entry.id: entry.sequence for entry in history.entries}
        self._end, self._base = end, base
        self._every, self._after = snapshot_every, snapshot_after
        self._stopped = ""
        self._turn, self._busy, self._process = threading.RLock(), False, os.getpid()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All requests so far, in order."""
        return tuple(self._entries)

    def submit(
        self,
        request_id: str,
        kind: str,
        arrays: Mapping[str, Any],
        *,
        rows: int | None = None,
    ) -> Entry:
        """Apply a request once, however often it is submitted.

        When this returns, the outcome is on disk. If it raises, or the process dies,
        submit the same request again: it is then applied if it was not yet, else its
        recorded outcome comes back. A refused request stays refused; to try again,
        choose another id.

        Args:
            request_id: The caller's own name of the request, printable text.
            kind: Given to the apply function: ``learn``, ``forget``, …
            arrays: Given to the apply function, by name: numbers or text, no objects;
                on disk until the next snapshot.
            rows: Number of rows for the log; by default the longest first axis.

        Returns:
            The entry of the log: outcome, figures, times.

        Raises:
            ValueError: the id was used for another request; an argument cannot be
                kept or, where the apply function can tell, is none of its requests.
                Nothing was written.
            StorageError: the disk is full or not writable.
            CheckpointError: applied, but the snapshot that is due cannot be written,
                so that the rows are still in the folder.
            ServiceError: the service is closed or has stopped; or the request ended in
                an error, and says how to go on.

        Cost: four files or lines forced to disk, and the snapshots.
        """
        check_text("the id of the request", request_id)
        check_text("the kind of the request", kind)
        own = own_arrays(arrays)
        lengths = [len(array) for array in own.values() if array.ndim]
        rows = max(lengths, default=0) if rows is None else count_of(rows)
        with self._alone():
            return self._submit(request_id, kind, own, rows)

    def _submit(
        self, request_id: str, kind: str, own: dict[str, np.ndarray], rows: int
    ) -> Entry:
        digest = digest_arrays(self._key, kind, own).hex()
        if request_id in self._by_id:
            entry = self._entries[self._by_id[request_id] - 1]
            if entry.digest != digest:
                raise ValueError(
                    f"the id {request_id!r} was used for another request (number "
                    f"{entry.sequence}, {entry.kind}, {entry.rows} rows): give this "
                    "one an id of its own"
                )
        else:
            if (check := getattr(self._apply, "check", None)) is not None:
                check(kind, own)
            number = len(self._entries) + 1
            entry = Entry(number, request_id, kind, rows, digest, now())
            read = self._kept(entry, own)
            with self._stop_on_error(f"request {number} ({request_id!r})"):
                self._write(accepted_event(entry))
                self._entries.append(entry)
                self._by_id[request_id] = number
                entry = self.finish(entry, read)
        if self.due():
            self._snapshot()
        return entry

    def due(self) -> bool:
        """Whether a snapshot is to be taken now."""
        since = [e for e in self._entries[self._base :] if e.outcome == APPLIED]
        return len(since) >= self._every or any(e.kind in self._after for e in since)

    def snapshot(self) -> None:
        """Write the state, then delete every payload and every older state.

        Raises:
            CheckpointError: the disk is full; nothing was deleted.
            StorageError: a file cannot be forced to disk or deleted.
        """
        with self._alone():
            self._snapshot()

    def _snapshot(self) -> None:
        last = len(self._entries)
        write_snapshot(self._snapshots, self._key, last, self.state)
        self._base = last
        with self._stop_on_error(f"clearing up to request {last}"):
            self.clear()

    def close(self, *, snapshot: bool = True) -> None:
        """Free the folder, with a snapshot first, so that no rows stay behind.

        Args:
            snapshot: If False, the payloads since the last one stay; opening the
                service again goes on from there.
        """
        with self._turn:
            if self._busy:
                raise ServiceError(_NESTED)
            try:
                since = [e for e in self._entries[self._base :] if e.outcome == APPLIED]
                if snapshot and since and not self._stopped and self._is_own():
                    self._snapshot()
            finally:
                self._stopped = self._stopped or "it was closed"
                self._store.close()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.close(snapshot=kind is None)

    def finish(
        self,
        entry: Entry,
        arrays: dict[str, np.ndarray] | None = None,
        *,
        withdrawn: bool = False,
    ) -> Entry:
        """Give an accepted request its outcome, on disk; ``submit`` calls this.

        Raises:
            ServiceError: applying it ended in an error other than a refusal.
        """
        state, outcome, numbers = self.state, f"{REFUSED}withdrawn by the caller", ()
        if not withdrawn:
            try:
                arrays = self._payload(entry) if arrays is None else arrays
                state, outcome, numbers = self._try(entry, arrays)
            except Exception as error:
                raise ServiceError(
                    f"request {entry.sequence} ({entry.id!r}) has no outcome: it "
                    f"ended in {_told(error)}. Open the service again to try it once "
                    f"more, or with withdraw={entry.id!r} to take it back"
                ) from error
        entry = entry._replace(outcome=outcome, figures=numbers, done=now())
        self._write(done_event(entry))
        self._entries[entry.sequence - 1] = entry
        if outcome != APPLIED:  # the state is as before: it need never be replayed
            remove(self._store.path(str(entry.sequence)))
            sync(self._store.path("1").parent)
            if _deleted(state):
                raise ServiceError(
                    f"request {entry.sequence} was refused ({outcome}), and the apply "
                    "function had given the buffers of the state away. Open the "
                    "service again; let apply donate its state only where nothing can "
                    "be refused any more"
                )
        self.state = state
        return entry

    def replay(self, entry: Entry) -> None:
        """Apply once more what was applied before the process died.

        Raises:
            ServiceError: its payload is missing or damaged, or it is refused now.
        """
        arrays = self._payload(entry)
        try:
            self.state, outcome, _ = self._try(entry, arrays)
        except Exception as error:
            outcome = f"ending in {_told(error)}"
        if outcome != APPLIED:
            raise ServiceError(
                f"request {entry.sequence} ({entry.id!r}) was applied before and is "
                f"now {outcome}. The apply function or its settings changed: open the "
                "service with those it had, let it take a snapshot, then change them"
            )

    def clear(self) -> None:
        """Delete what the newest snapshot makes superfluous, and note it in the log."""
        sync(self._snapshots)  # its name may not be on disk, if the process died
        payloads = self._store.path("1").parent
        for path in sorted(payloads.iterdir()):
            if path.name not in self._needed():
                remove(path)
        for path in sorted(self._snapshots.iterdir()):
            if path.name != str(self._base):
                remove(path)
        sync(payloads)
        sync(self._snapshots)
        if self._base > self._cleared:
            time = now()
            self._write(cleared_event(self._base, time))
            for i in range(self._cleared, self._base):
                self._entries[i] = self._entries[i]._replace(cleared=time)
            self._cleared = self._base

    def _needed(self) -> set[str]:
        since = self._entries[self._base :]
        kept = [e.sequence for e in since if not e.outcome.startswith(REFUSED)]
        return {self._store.path(str(number)).name for number in kept}

    def _try(
        self, entry: Entry, arrays: dict[str, np.ndarray]
    ) -> tuple[Any, str, tuple[tuple[str, float], ...]]:
        """State, outcome and figures; an error other than a refusal goes through."""
        try:
            state, figures = self._apply(self.state, entry.kind, arrays)
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            reason = reason.removeprefix("refused, ")
            return self.state, f"{REFUSED}{reason[:_LONGEST_REASON]}", ()
        if jax.tree.structure(state) != jax.tree.structure(self.state):
            raise ServiceError(
                f"the apply function returned {jax.tree.structure(state)}, expected "
                f"{jax.tree.structure(self.state)}: shapes may change, the structure "
                "may not"
            )
        numbers = tuple((str(n), float(value)) for n, value in figures.items())
        return adopt(state), APPLIED, numbers

    def _kept(self, entry: Entry, own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays as they come back from disk, before the log names them.

        Raises:
            ValueError: they do not come back as they were given.
        """
        self._store.save(str(entry.sequence), own)
        try:
            return self._payload(entry)
        except ServiceError as error:
            remove(self._store.path(str(entry.sequence)))
            raise ValueError(
                f"the arrays {', '.join(map(repr, own))} do not come back from disk as "
                "they were given: take other names, or plain dtypes of numpy"
            ) from error

    def _payload(self, entry: Entry) -> dict[str, np.ndarray]:
        path = self._store.path(str(entry.sequence))
        try:
            arrays = unpack(path.read_bytes()).arrays
            if digest_arrays(self._key, entry.kind, arrays).hex() == entry.digest:
                return arrays
            reason = "it belongs to another request"
        except (OSError, ValueError, KeyError) as error:
            reason = str(error)
        raise ServiceError(
            f"the rows of request {entry.sequence} ({entry.id!r}) in {path} cannot be "
            f"read ({reason}). Put the file back from a copy; nothing was changed"
        )

    def _write(self, event: Mapping[str, Any]) -> None:
        crc = add_line(self._store.folder, event, self._end.crc)
        self._end = End(self._end.lines + 1, crc)
        if event["event"] != "accepted":  # of which nobody is told before its outcome
            write_end(self._store.folder, self._end)

    def _is_own(self) -> bool:
        return os.getpid() == self._process

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """The turn of one thread, in a service that takes requests."""
        with self._turn:
            if self._busy:
                raise ServiceError(_NESTED)
            if self._stopped:
                raise ServiceError(
                    f"the service of {self._store.folder} takes no requests: "
                    f"{self._stopped}. Open it again; everything on disk is kept"
                )
            if not self._is_own():
                raise ServiceError(
                    f"the service of {self._store.folder} was opened by process "
                    f"{self._process}, of which this one is a fork: send requests there"
                )
            self._busy = True
            try:
                yield
            finally:
                self._busy = False

    @contextlib.contextmanager
    def _stop_on_error(self, what: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            cause = error.__cause__ if isinstance(error, ServiceError) else None
            self._stopped = f"{what} ended in {_told(cause or error)}"
            raise


def _deleted(state: Any) -> bool:
    leaves = jax.tree.leaves(state)
    return any(leaf.is_deleted() for leaf in leaves if isinstance(leaf, jax.Array))


def _told(error: BaseException) -> str:
    return f"{type(error).__name__} ({' '.join(str(error).split())})"
