"""Train with and without the authors, forget them, and ask about them."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.authors.build import Setting
from experiments.authors.judge import (
    DIVERGED,
    Heard,
    Judges,
    divergences,
    heard,
    judges,
    told_of,
)
from experiments.frame.bench import Bench, piece_of, rows_of
from experiments.frame.progress import progress
from experiments.language.trials import (
    CHOICES,
    ORACLE,
    ORIGINAL,
    chosen,
    rows_of_choice,
    trained,
    tried,
)
from unlearn_jax.evaluation.muse import privacy_leak
from unlearn_jax.evaluation.ranking import area
from unlearn_jax.evaluation.tofu import forget_quality
from unlearn_jax.results.rows import Row
from unlearn_jax.storage.piece import Piece


class Known(NamedTuple):
    """Value: all that is asked of several models, once for however many rows.

    Attributes:
        said: (models, n, t, k) logits on the questions that are compared.
        relearned: (models, 3), see ``Judges``.
        heard: Of each model.
    """

    said: np.ndarray
    relearned: np.ndarray
    heard: list[Heard]


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Every number of oracles, originals and methods."""
    config, task = setting.config, setting.task
    sets = {ORIGINAL: task.train, ORACLE: setting.oracle}
    models = {}
    for name, data in sets.items():
        with progress(f"train {name}", 1):
            make = functools.partial(trained, task, name, data)
            models[name] = bench.keep(name, make).arrays["params"]
    judged = judges(setting)
    court = _known(setting, judged, models[ORACLE])
    yield from _rows(setting, judged, ORACLE, court, court, {})
    with bench.progress("forget", len(config.methods)) as advance:
        for name in config.methods:
            make = functools.partial(
                _contended, setting, judged, name, models[ORIGINAL], court
            )
            yield from rows_of(bench.keep(f"forget/{name}", make))
            advance(1)


def _contended(
    setting: Setting,
    judged: Judges,
    name: str,
    originals: np.ndarray,
    court: Known,
) -> Piece:
    """All trials of a method, and the rows of those that are chosen."""
    config = setting.config
    before = judged.losses(originals)
    made = tried(setting.task, name, config.trials, originals, judged.losses)
    rows = [Row("forget_seconds", made.seconds, "s", {"method": name})]
    known: dict[int, Known] = {}
    for choice in CHOICES:
        place = chosen(made.losses.mean(1), before.mean(0), config.budget, choice)
        if place not in known:
            known[place] = _known(setting, judged, made.params[place])
        at = {"choice": choice}
        rows += _rows(setting, judged, name, known[place], court, at)
        rows += rows_of_choice(name, choice, made, place, before)
    return piece_of(rows)


def _known(setting: Setting, judged: Judges, params: np.ndarray) -> Known:
    told, spoken = judged.told(params), judged.spoken(params)
    seen = [
        heard(setting, judged, told_of(told, model), spoken[model])
        for model in range(len(params))
    ]
    return Known(judged.logits(params), judged.relearned(params), seen)


def _rows(
    setting: Setting,
    judged: Judges,
    name: str,
    known: Known,
    court: Known,
    where: dict[str, Any],
) -> Iterator[Row]:
    """Of one name; of oracles each against the others."""
    gaps = divergences(setting, judged, known.said, court.said)
    for seed, own in enumerate(known.heard):
        at = {"method": name, **where, "seed": seed}
        count = len(court.heard)
        others = [i for i in range(count) if not (name == ORACLE and i == seed)]
        for metric, value in own.values.items():
            yield Row(metric.replace(" ", "_"), value, "1", at)
        start, end, height = known.relearned[seed]
        yield Row("relearn_start", float(start), "nats", at)
        yield Row("relearn_end", float(end), "nats", at)
        yield Row("relearn_height", float(height), "nats", at)
        if not others:
            continue
        for part, gap in zip(DIVERGED, gaps[seed, others].mean(0), strict=True):
            yield Row("kl_oracle", float(gap), "nats", {**at, "split": part})
        yield from _against(own, [court.heard[i] for i in others], at)


def _against(own: Heard, others: list[Heard], at: dict[str, Any]) -> Iterator[Row]:
    """Forget quality and leak of privacy, means over retrained models."""
    if not np.isfinite(own.ratios).all():
        told = "truth ratios are not finite: the model is destroyed"
        yield Row("forget_quality", None, "1", at, told)
        return
    tests = [forget_quality(own.ratios, other.ratios) for other in others]
    yield Row("forget_quality", float(np.mean([t.p for t in tests])), "1", at)
    yield Row("quality_distance", float(np.mean([t.statistic for t in tests])), "1", at)
    yield Row("quality_floor", tests[0].floor, "1", at)
    mine, theirs = auc_of(own), [auc_of(other) for other in others]
    leaks = [privacy_leak(mine, one).value for one in theirs if one > 0]
    if leaks:
        yield Row("privacy_leak", float(np.mean(leaks)), "1", at)


def auc_of(one: Heard) -> float:
    """MUSE's: how often a holdout author is more familiar than a forgotten one."""
    forget, holdout = one.attack
    return area(holdout, forget).auc
