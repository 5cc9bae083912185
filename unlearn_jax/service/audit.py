"""The log for people: what was asked, when, what became of it, and is it sound."""

from pathlib import Path

from unlearn_jax.results.table import Cell, Table
from unlearn_jax.service.end import read_end
from unlearn_jax.service.history import REFUSED, Entry, History, read_history
from unlearn_jax.service.log import LOG_FILE, read_log

_HEADER = (
    "request",
    "id",
    "kind",
    "rows",
    "digest",
    "accepted",
    "outcome",
    "figures",
    "rows gone",
)


def verify(folder: str | Path) -> History:
    """Read a log and check it; the service may be open, or its folder a copy.

    Every line has the checksum that the lines before it lead to; the sequence has no
    gap; no id stands twice; each request has one outcome, but for a last one that is
    under way (``History.pending``). Where ``log.end`` is there, no line is missing at
    the end.

    Args:
        folder: Of the service; ``log.jsonl`` alone is enough.

    Returns:
        All requests.

    Raises:
        FileNotFoundError: no log there.
        ServiceError: names file and line, and what is wrong.
    """
    folder = Path(folder)
    end = read_end(folder)  # before the log, which may grow meanwhile
    return read_history(folder, read_log(folder, end)[0])


def audit(folder: str | Path) -> Table:
    """The log as a table: a line per request.

    Args:
        folder: Of the service.

    Returns:
        Number, id, kind, rows, digest, when accepted, outcome, figures, and when the
        rows went; the footnotes say what that means.

    Raises:
        FileNotFoundError: no log there.
        ServiceError: the log does not hold; see :func:`verify`.
    """
    history = verify(folder)
    entries = history.entries
    refused = sum(entry.outcome.startswith(REFUSED) for entry in entries)
    applied = history.done - refused
    return Table(
        name="audit",
        caption=f"Requests in {Path(folder) / LOG_FILE}: {applied} applied, {refused} "
        f"refused, {len(entries) - history.done} under way; the log holds",
        header=_HEADER,
        rows=tuple(tuple(map(Cell, _texts(entry))) for entry in entries),
        footnotes=(
            "digest: keyed BLAKE2b of kind and rows; equal requests have equal ones. "
            "It stays: with digest.key, a guess of all the rows can be confirmed.",
            "rows gone: from then on neither the rows nor a state older than the "
            "request are in the folder. Of a refused request: the time of its outcome, "
            "after which its rows are deleted at once, or when the service is opened "
            "again if it died in between.",
        ),
    )


def _texts(entry: Entry) -> tuple[str, ...]:
    figures = ", ".join(f"{name} {value:.3g}" for name, value in entry.figures)
    gone = entry.cleared or (entry.done if entry.outcome.startswith(REFUSED) else "")
    return (
        str(entry.sequence),
        entry.id or "-",
        entry.kind or "-",
        str(entry.rows),
        entry.digest,
        entry.accepted,
        entry.outcome or "under way",
        figures or "-",
        gone or "-",
    )
