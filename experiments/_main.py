"""Presets of a comparison, and its report; what studies of the old shape import."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments._config import Config
from experiments._presets import SCALES, preset
from experiments.frame.command import main as main
from experiments.frame.config import word_after as word_after
from experiments.report import write_report
from unlearn_jax.results.run import Run


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
