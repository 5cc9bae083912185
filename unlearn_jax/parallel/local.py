"""Pieces in processes of this machine; one that dies takes no other with it."""

import contextlib
import multiprocessing
import os
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

_ATTEMPTS = 2


class LaunchError(ChildProcessError):
    """Pieces were lost with their process or job; says how many and what to do."""


class _Worker(NamedTuple):
    process: Any
    pipe: Connection
    cores: frozenset[int]


def run_in_processes(
    function: Callable[[Any], object],
    pieces: Sequence[Any],
    *,
    workers: int,
    advance: Callable[[Any], object],
) -> None:
    """Give pieces to processes as they come free; see ``launch``.

    A process is started afresh (never forked: threads of the array library would not
    survive it) and runs on its own share of the cores.

    Raises:
        LaunchError: a piece was lost twice with its process.
    """
    waiting = deque((piece, 1) for piece in pieces)
    free = deque(_shares(min(workers, len(pieces))))
    busy: dict[Connection, tuple[_Worker, Any, int]] = {}
    idle: list[_Worker] = []
    lost: list[tuple[Any, int | None]] = []
    errors: list[BaseException] = []
    try:
        while waiting or busy:
            while waiting and (idle or free):
                worker = idle.pop() if idle else _start(function, free.popleft())
                piece, attempt = waiting.popleft()
                busy[worker.pipe] = (worker, piece, attempt)
                with contextlib.suppress(OSError):  # noticed below: the pipe has ended
                    worker.pipe.send(piece)
            for pipe in wait(list(busy)):
                worker, piece, attempt = busy.pop(pipe)  # type: ignore[index]
                try:
                    error = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    worker.pipe.close()
                    free.append(worker.cores)
                    if attempt < _ATTEMPTS:
                        waiting.append((piece, attempt + 1))
                    else:
                        lost.append((piece, worker.process.exitcode))
                    continue
                idle.append(worker)
                if error is None:
                    advance(piece)
                else:
                    errors.append(error)
    finally:
        for worker in [*idle, *(entry[0] for entry in busy.values())]:
            worker.pipe.close()
            if worker not in idle:
                worker.process.terminate()
            worker.process.join()
    if errors:
        raise errors[0]
    if lost:
        piece, code = lost[0]
        raise LaunchError(
            f"{len(lost)} of {len(pieces)} pieces were lost twice with their process, "
            f"the first is {piece!r} (exit code {code}; -9 often means that memory ran "
            "out: use fewer workers). Run the same command again: what is finished is "
            "kept"
        )


def _start(function: Callable[[Any], object], cores: frozenset[int]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(theirs, function, cores), daemon=True
    )
    process.start()
    theirs.close()
    return _Worker(process, ours, cores)


def _serve(pipe: Connection, function: Callable[[Any], object], cores: Any) -> None:
    """What a process does: pieces, until the other end of the pipe is gone."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            piece = pipe.recv()
            try:
                function(piece)
                error = None
            except Exception as caught:
                error = _portable(caught)
            pipe.send(error)


def _portable(error: Exception) -> Exception:
    """The error, or its text where it does not survive the pipe."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _shares(workers: int) -> list[frozenset[int]]:
    """This process's cores, dealt to the workers; all of them where they are few."""
    if not hasattr(os, "sched_getaffinity"):
        return [frozenset()] * workers
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < workers:
        return [frozenset(cores)] * workers
    return [frozenset(cores[number::workers]) for number in range(workers)]
