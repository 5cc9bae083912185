"""How far the log went when its caller was last told: lines lost since are noticed."""

import json
from pathlib import Path
from typing import NamedTuple

from unlearn_jax.service.disk import ServiceError
from unlearn_jax.storage.checksum import checked_row, with_check
from unlearn_jax.storage.write import write_bytes

END_FILE = "log.end"


class End(NamedTuple):
    """A place in the log that was on disk before anybody was told of it.

    Attributes:
        lines: Number of lines up to there.
        crc: Checksum of all of them, which the next line goes on from.
    """

    lines: int
    crc: int


def write_end(folder: Path, end: End) -> None:
    """Keep the place, whole or not at all; the log must be forced to disk before.

    A process that dies in between leaves a log that goes on behind the place, which
    is fine: a log that does not reach it has lost lines.

    Raises:
        StorageError: the disk is full or not writable.
    """
    row = with_check({"lines": end.lines, "crc": end.crc})
    write_bytes(folder / END_FILE, json.dumps(row).encode() + b"\n", private=True)


def read_end(folder: Path) -> End | None:
    """The place, or None where no file tells it.

    Raises:
        ServiceError: the file is damaged.
    """
    path = folder / END_FILE
    try:
        row = checked_row(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ServiceError(
            f"{path} is damaged ({error}), so that lines lost at the end of the log "
            "would not be noticed: put it back from a copy, or delete it if you know "
            "that the log has its last request, and open the service again"
        ) from error
    return End(row["lines"], row["crc"])
