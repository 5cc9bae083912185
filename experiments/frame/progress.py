"""Progress: a bar on a terminal, one line per finished stage in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

Advance: TypeAlias = Callable[[float], None]


EVERY = 60.0
"""Seconds between two lines about one stage in a log."""


@contextlib.contextmanager
def progress(title: str, total: float) -> Iterator[Advance]:
    """Show that ``title`` is under way; the body calls ``advance(share)``.

    Args:
        title: What is being done.
        total: Sum of all shares.
    """
    start = time.perf_counter()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description:34}", markup=False),  # a colon is a colon
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=total)
            yield lambda share: bar.advance(task, share)
            bar.update(task, completed=total)
        return
    yield _told_now_and_then(title, total)
    print(f"{title}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


def _told_now_and_then(title: str, total: float) -> Advance:
    done, told = 0.0, time.perf_counter()

    def advance(share: float) -> None:
        nonlocal done, told
        done += share
        if time.perf_counter() - told > EVERY:
            told = time.perf_counter()
            print(f"{title}: {done / total:.0%}", file=sys.stderr, flush=True)

    return advance
