"""Words of a command line to what was asked; refusals are one sentence."""

import collections
import contextlib
import io
import itertools
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

AskedT = TypeVar("AskedT")

_FRAME = "│|╭╮╰╯+ "
_RULE = set("─-")
_HINT = "Perhaps you meant:"


def asked(kind: type[AskedT], arguments: Sequence[str], **words: Any) -> AskedT:
    """What ``tyro.cli`` makes of a command line, but for how it refuses.

    Args:
        kind: A dataclass, see ``tyro.cli``.
        arguments: The command line.
        words: Further ones of ``tyro.cli``: ``default``, ``prog``, ``description``.

    Raises:
        ValueError: what cannot be read, on one line; tyro prints a box of many. A flag
            that is given twice, of which tyro takes the last.
        SystemExit: help was asked for, and printed.
    """
    _check_once(arguments)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = tyro.cli(kind, args=list(arguments), **words)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(f"{one_line(said.getvalue())}; --help lists all") from None
    sys.stderr.write(said.getvalue())
    return found


def _check_once(arguments: Sequence[str]) -> None:
    flags = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    counted = collections.Counter(flag.replace("_", "-") for flag in flags)
    twice = next((flag for flag in flags if counted[flag.replace("_", "-")] > 1), None)
    if twice is not None:
        raise ValueError(
            f"{twice} is given more than once: give all that it takes once"
        )


def one_line(box: str) -> str:
    """The sentence of a box that tyro prints, and its first hint."""
    lines = [line.strip(_FRAME) for line in box.strip().splitlines()[1:-1]]
    ruled = itertools.groupby(lines, lambda line: set(line) <= _RULE)
    parts = [list(part) for rule, part in ruled if not rule]
    hints = [part[1] for part in parts if part[0] == _HINT and len(part) > 1]
    said = " ".join(parts[0]).rstrip(".") if parts else "cannot read these words"
    return f"{said}; perhaps you meant {hints[0]}" if hints else said
