"""Train with and without, let every method forget, and judge what was chosen."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.frame.bench import Bench, piece_of, rows_of
from experiments.frame.progress import progress
from experiments.language.config import LanguageConfig
from experiments.language.trials import (
    CHOICES,
    ORACLE,
    ORIGINAL,
    Task,
    chosen,
    rows_of_choice,
    trained,
    tried,
)
from unlearn_jax.results.rows import Row
from unlearn_jax.storage.piece import Piece
from unlearn_jax.types import Batch


class Court(NamedTuple):
    """Description: how a study looks at models.

    Attributes:
        losses: See ``losses_of``; settings are chosen by it.
        known: ``params (models, p) -> what is asked of them``, however many rows it is
            for.
        rows: ``(name, choice, known) -> rows``.
    """

    losses: Callable[[Any], np.ndarray]
    known: Callable[[np.ndarray], Any]
    rows: Callable[[str, str, Any], Iterator[Row]]


def both_kinds(bench: Bench, task: Task, oracle: Batch) -> dict[str, np.ndarray]:
    """Originals and retrained models, parameters (models, p) of each.

    Args:
        bench: Of the run.
        task: Whose originals are trained on all of it.
        oracle: What retrained models are trained on.
    """
    models = {}
    for name, data in ((ORIGINAL, task.train), (ORACLE, oracle)):
        with progress(f"train {name}", 1):
            make = functools.partial(trained, task, name, data)
            models[name] = bench.keep(name, make).arrays["params"]
    return models


def contest(
    bench: Bench,
    task: Task,
    config: LanguageConfig,
    originals: np.ndarray,
    court: Court,
) -> Iterator[Row]:
    """Rows of all methods; each is kept as soon as it is done."""
    with bench.progress("forget", len(config.methods)) as advance:
        for name in config.methods:
            make = functools.partial(_contended, task, config, name, originals, court)
            yield from rows_of(bench.keep(f"forget/{name}", make))
            advance(1)


def at(name: str, choice: str, **where: str | int) -> Mapping[str, str | int | float]:
    """Where a row belongs; nothing was chosen of what has no choice."""
    return {"method": name, **({"choice": choice} if choice else {}), **where}


def _contended(
    task: Task,
    config: LanguageConfig,
    name: str,
    originals: np.ndarray,
    court: Court,
) -> Piece:
    """All trials of a method; what two choices take is looked at once."""
    before = court.losses(originals)
    made = tried(task, name, config.trials, originals, court.losses)
    rows = [Row("forget_seconds", made.seconds, "s", {"method": name})]
    known: dict[int, Any] = {}
    for choice in CHOICES:
        place = chosen(made.losses.mean(1), before.mean(0), config.budget, choice)
        if place not in known:
            known[place] = court.known(made.params[place])
        rows += court.rows(name, choice, known[place])
        rows += rows_of_choice(name, choice, made, place, before)
    return piece_of(rows)
