"""What the log tells of every request, and whether it can be true."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unlearn_jax.results.record import decode_number, encode_number
from unlearn_jax.service.disk import ServiceError
from unlearn_jax.service.log import LOG_FILE

APPLIED = "applied"
REFUSED = "refused: "


class Entry(NamedTuple):
    """One request: what was asked, and what became of it.

    Attributes:
        sequence: 1 for the first request of the service.
        id: The caller's own name of the request.
        kind: ``learn``, ``forget``, … as the caller named it.
        rows: Number of rows.
        digest: Keyed digest of kind and arrays, hexadecimal.
        accepted: When it was taken, UTC.
        outcome: ``applied`` or ``refused: REASON``; empty while it is under way.
        figures: What the apply function gave, by name: residual, margin, ...
        done: When its outcome was on disk, UTC.
        cleared: When its rows were gone from the folder, and every older state with
            them, UTC; empty until then.
    """

    sequence: int
    id: str
    kind: str
    rows: int
    digest: str
    accepted: str
    outcome: str = ""
    figures: tuple[tuple[str, float | None], ...] = ()
    done: str = ""
    cleared: str = ""


class History(NamedTuple):
    """All requests, in order.

    Attributes:
        entries: Entry i has sequence number i + 1; only the last can be under way.
        cleared: Rows of requests up to this number are gone from the folder.
    """

    entries: tuple[Entry, ...]
    cleared: int

    @property
    def done(self) -> int:
        """Number of requests with an outcome, so the number of the last of them."""
        return len(self.entries) - (1 if self.pending else 0)

    @property
    def pending(self) -> Entry | None:
        """The request that was accepted and has no outcome yet."""
        last = self.entries[-1] if self.entries else None
        return last if last is not None and not last.outcome else None


def accepted_event(entry: Entry) -> dict[str, Any]:
    """The line of a request that is about to be applied."""
    names = ("sequence", "id", "kind", "rows", "digest", "accepted")
    return {"event": "accepted"} | {name: getattr(entry, name) for name in names}


def done_event(entry: Entry) -> dict[str, Any]:
    """The line of its outcome."""
    figures = {name: encode_number(value) for name, value in entry.figures}
    outcome = {"outcome": entry.outcome, "figures": figures, "done": entry.done}
    return {"event": "done", "sequence": entry.sequence} | outcome


def cleared_event(sequence: int, time: str) -> dict[str, Any]:
    """The line that says: the rows of all requests up to this one are gone."""
    return {"event": "cleared", "sequence": sequence, "cleared": time}


def read_history(folder: Path, events: Sequence[dict[str, Any]]) -> History:
    """The requests of a log, checked: no gap, each one done once, no id twice.

    Raises:
        ServiceError: the log contradicts itself; names file and line.
    """
    entries: list[Entry] = []
    ids: set[str] = set()
    cleared = 0
    for number, event in enumerate(events[1:], start=2):
        wrong = ""
        pending = bool(entries) and not entries[-1].outcome
        kind, sequence = event["event"], int(event["sequence"])
        if kind == "accepted":
            entry = Entry(**{k: v for k, v in event.items() if k != "event"})
            if pending:
                wrong = f"request {entries[-1].sequence} has no outcome yet"
            elif sequence != len(entries) + 1:
                wrong = f"expected request {len(entries) + 1}, found {sequence}"
            elif entry.id in ids:
                wrong = f"the id {entry.id!r} was accepted before"
            ids.add(entry.id)
            entries.append(entry)
        elif kind == "done":
            if not pending or sequence != len(entries):
                wrong = f"an outcome of request {sequence}, which is not under way"
            else:
                figures = event["figures"].items()
                entries[-1] = entries[-1]._replace(
                    outcome=event["outcome"],
                    figures=tuple((name, decode_number(x)) for name, x in figures),
                    done=event["done"],
                )
        elif kind == "cleared" and cleared <= sequence <= len(entries) - pending:
            for i in range(cleared, sequence):
                entries[i] = entries[i]._replace(cleared=event["cleared"])
            cleared = sequence
        else:
            wrong = f"unexpected event {kind!r} of request {sequence}"
        if wrong:
            raise ServiceError(
                f"{folder / LOG_FILE}, line {number}: {wrong}. The log was changed by "
                "hand; put it back from a copy"
            )
    return History(tuple(entries), cleared)
