"""Around every experiment's work: presets, errors in one line, exit codes."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments._config import Config
from experiments._presets import SCALES, preset
from experiments.report import write_report
from unlearn_jax.results.run import Run
from unlearn_jax.results.store import BusyError
from unlearn_jax.storage.piece import PieceError
from unlearn_jax.train.checkpoint import CheckpointError


def main(work: Callable[[Sequence[str]], int]) -> None:
    """Run a command; what the user can mend is one line on stderr and exit code 2."""
    # A kill in the middle of a restart must not print a traceback of our making.
    with contextlib.suppress(BrokenPipeError):
        try:
            code = work(sys.argv[1:])
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            code = 130
        except (
            ValueError,
            FileNotFoundError,
            OSError,
            BusyError,
            PieceError,
            CheckpointError,
            ModuleNotFoundError,
        ) as error:
            if isinstance(error, ModuleNotFoundError) and error.name is not None:
                hint = (
                    f"{error.name} is missing: pip install 'unlearn_jax[experiments]'"
                )
                print(f"error: {hint}", file=sys.stderr)
            else:
                print(f"error: {error}", file=sys.stderr)
            code = 2
        sys.exit(code)


def chosen_preset(arguments: Sequence[str]) -> Config:
    """The preset that ``--scale`` and ``--data.name`` on a command line stand for.

    Raises:
        ValueError: no such scale.
    """
    scale = word_after(arguments, "--scale") or "small"
    data = word_after(arguments, "--data.name") or "digits"
    if scale not in SCALES:
        raise ValueError(f"--scale is {scale!r}; choose from {', '.join(SCALES)}")
    return preset(scale, data)


def labelled(config: Config) -> Config:
    """The configuration with a scale that is true: "custom" once it was changed."""
    if config.scale not in SCALES:
        return config
    named = preset(config.scale, config.data.name)
    free = {"results": config.results, "members": config.members}
    data = dataclasses.replace(named.data, dir=config.data.dir)
    if dataclasses.replace(named, data=data, **free) == config:
        return config
    return dataclasses.replace(config, scale="custom")


def finish(folder: Path, run: Run) -> int:
    """Print tables and failures of a run, and where its page lies."""
    code = write_report(folder, run=run)
    print(f"tables, figures and page: {folder / 'index.html'}", file=sys.stderr)
    return code


def word_after(arguments: Sequence[str], flag: str) -> str | None:
    """The value of ``--flag value`` or ``--flag=value``, before anything is parsed."""
    for position, word in enumerate(arguments):
        if word == flag and position + 1 < len(arguments):
            return arguments[position + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
