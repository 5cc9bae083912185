"""What each process of a program has to say, known to all of them."""

import jax
import numpy as np
from jax.experimental import multihost_utils

_ROOM = 1024


def said_by_all(text: str) -> list[str]:
    """The text of every process, in the order of their numbers.

    Every process calls it, and waits for the others there.

    Args:
        text: What this one says; what is beyond a kilobyte is cut off.

    Cost: a kilobyte from each process to each other one.
    """
    said = text.encode()[:_ROOM]
    if jax.process_count() == 1:
        return [said.decode(errors="ignore")]
    row = np.zeros(_ROOM, np.uint8)
    row[: len(said)] = np.frombuffer(said, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(row), np.uint8)
    return [one.tobytes().rstrip(b"\0").decode(errors="ignore") for one in rows]


def wrong_anywhere(problem: Exception | None) -> None:
    """Raise what went wrong here, else what did in the first other process.

    Args:
        problem: What did; None where nothing did. Every process calls this.

    Raises:
        Exception: the problem itself.
        ValueError: that of another process.
    """
    told = "" if problem is None else f"{type(problem).__name__}: {problem}"
    said = said_by_all(told)
    if problem is not None:
        raise problem
    for number, text in enumerate(said):
        if text:
            raise ValueError(f"in process {number}: {text}")
