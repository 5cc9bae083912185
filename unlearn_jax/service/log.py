"""The request log: one JSON line for each event, chained by checksums."""

import json
import warnings
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unlearn_jax.service.disk import ServiceError, append, cut
from unlearn_jax.service.end import END_FILE, End, write_end
from unlearn_jax.storage.write import write_bytes

LOG_FILE = "log.jsonl"
_MARK = ', "crc": "'
_TAIL = len(_MARK) + 8 + len('"}\n')


def start_log(folder: Path, event: Mapping[str, Any]) -> tuple[list[dict], int]:
    """Create the log with its first line, whole or not at all.

    Returns:
        The events, and the checksum that the next line goes on from.
    """
    line, crc = _encode(event, 0)
    write_end(folder, End(1, crc))  # first, so that no log is ever without it
    write_bytes(folder / LOG_FILE, line, private=True)
    return [dict(event)], crc


def add_line(folder: Path, event: Mapping[str, Any], crc: int) -> int:
    """Append an event and force it to disk; the checksum for the next line.

    Raises:
        StorageError: part of the line may be there; read the log again with
            ``repair`` before the next one.
    """
    line, crc = _encode(event, crc)
    append(folder / LOG_FILE, line)
    return crc


def read_log(
    folder: Path, end: End | None, *, repair: bool = False
) -> tuple[list[dict], int]:
    """All events of a log, every line checked.

    The checksum of a line covers all lines before it, so that a line which was
    changed, lost or moved is noticed. Only the last one can be half-written (without
    its end, or with blocks of zeros), when the power went; nobody was told yet that it
    was there, and it is left out.

    Args:
        folder: Of the service.
        end: From ``read_end``, read before: how far the log has to reach at least.
        repair: Cut a half-written last line off (with a warning); else it is just
            left out.

    Returns:
        The events, and the checksum that the next line goes on from.

    Raises:
        ServiceError: a damaged line, by file and number; or the log ends before
            ``end``.
    """
    path = folder / LOG_FILE
    content = path.read_bytes()
    events, crc, kept, reached = [], 0, 0, None
    lines = [line + b"\n" for line in content.split(b"\n")]
    lines[-1] = lines[-1][:-1]  # what stands behind the last newline: torn, or nothing
    lines = lines if lines[-1] else lines[:-1]
    for number, line in enumerate(lines, start=1):
        event, following = _decode(line, crc)
        torn = not line.endswith(b"\n") or b"\0" in line  # zeros: blocks never written
        if event is None and torn and number == len(lines) > 1:
            _check_end(path, number - 1, reached, end)
            if repair:
                cut(path, kept)
                warnings.warn(
                    f"{path}, line {number} was half-written ({len(line)} bytes) and "
                    "was cut off; its request goes on from the line before",
                    stacklevel=2,
                )
            break
        if event is None:
            raise ServiceError(
                f"{path}, line {number} is damaged: the checksum does not match. Put "
                "the file back from a copy that has at least as many lines; nothing "
                "was changed"
            )
        events.append(event)
        crc, kept = following, kept + len(line)
        if end is not None and number == end.lines:
            reached = crc
    if not events:
        raise ServiceError(
            f"{path} is empty: put the file back from a copy; nothing was changed"
        )
    _check_end(path, len(events), reached, end)
    return events, crc


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _encode(event: Mapping[str, Any], crc: int) -> tuple[bytes, int]:
    body = json.dumps(event, allow_nan=False)
    crc = zlib.crc32(body.encode(), crc)
    return f'{body[:-1]}{_MARK}{crc:08x}"}}\n'.encode(), crc


def _decode(line: bytes, crc: int) -> tuple[dict | None, int]:
    body = line[:-_TAIL] + b"}"
    crc = zlib.crc32(body, crc)
    if line[-_TAIL:] != f'{_MARK}{crc:08x}"}}\n'.encode():
        return None, crc
    return json.loads(body), crc


def _check_end(path: Path, lines: int, crc: int | None, end: End | None) -> None:
    """Refuse a log that lost what its caller was told; ``crc`` is that of line ``end``.

    Raises:
        ServiceError: it is shorter, or another one.
    """
    if end is None or crc == end.crc:
        return
    lost = f"ends with line {lines}" if lines < end.lines else "is another one"
    raise ServiceError(
        f"{path} {lost}, and by {END_FILE} line {end.lines} of it was on disk: lines "
        "were lost; put the file back from a copy that has them; nothing was changed"
    )
