"""Around every command: errors in one line, interrupts, exit codes."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from experiments.frame.study import Study, run
from unlearn_jax.parallel.processes import check_alone
from unlearn_jax.storage.piece import PieceError
from unlearn_jax.storage.store import BusyError
from unlearn_jax.train.checkpoint import CheckpointError

MENDABLE = (
    ValueError,
    OSError,
    BusyError,
    PieceError,
    CheckpointError,
    ModuleNotFoundError,
    MemoryError,
    OverflowError,
    RecursionError,
)
"""What comes from words, files and folders that a user gave."""

AGAIN_SECONDS = 5.0


def main(work: Callable[[Sequence[str]], int] | Study[Any, Any]) -> None:
    """Run a study or a command; what the user can mend is one line and exit code 2."""
    # A kill in the middle of a restart must not print a traceback of our making.
    with contextlib.suppress(BrokenPipeError), interruptible() as stop_asking:
        try:
            asked = sys.argv[1:]
            if isinstance(work, Study):
                code = run(work, asked)
            else:
                check_alone("this command")
                code = work(asked)
        except KeyboardInterrupt:
            pressed = stop_asking()
            print("interrupted; the same command goes on from here", file=sys.stderr)
            code = 130
            if pressed:
                _leave(code)
        except MENDABLE as error:
            print(f"error: {_told(error)}", file=sys.stderr)
            code = 2
        if jax.distributed.is_initialized():  # its farewell would wait for the others
            _leave(code)
        sys.exit(code)


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C end the work even where its first exception is swallowed.

    Python drops what is raised in a callback from compiled code, as it may happen while
    XLA compiles: so the interrupt is raised again every five seconds until ``main`` has
    it. Where interrupts are ignored (a job in the background) they stay so.

    Yields:
        A function that ends the asking, and tells whether Ctrl-C was pressed.
    """
    asked = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        raise KeyboardInterrupt

    def stop_asking() -> bool:
        if asked:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return asked

    able = threading.current_thread() is threading.main_thread()
    if not able or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stop_asking
        return
    kept = [signal.signal(s, interrupt) for s in (signal.SIGINT, signal.SIGALRM)]
    try:
        yield stop_asking
    finally:
        stop_asking()
        for number, handler in zip((signal.SIGINT, signal.SIGALRM), kept, strict=True):
            signal.signal(number, handler)


def _leave(code: int) -> None:
    """End without tearing the interpreter down, which a compilation would not survive.

    Every block on the way out has ended by now, and locks end with the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _told(error: BaseException) -> str:
    """An error on one line; some say nothing but their name."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return f"{error.name} is missing: pip install 'unlearn_jax[experiments]'"
    return " ".join(str(error).split()) or type(error).__name__
