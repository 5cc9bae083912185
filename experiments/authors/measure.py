"""Train with and without the authors, forget them, and ask about them."""

import functools
from collections.abc import Iterator
from typing import Any

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
    said = judged.logits(models[ORACLE])
    court = _heard(setting, judged, models[ORACLE])
    yield from _rows(setting, judged, ORACLE, models[ORACLE], said, court, {})
    with bench.progress("forget", len(config.methods)) as advance:
        for name in config.methods:
            make = functools.partial(
                _contended, setting, judged, name, models[ORIGINAL], said, court
            )
            yield from rows_of(bench.keep(f"forget/{name}", make))
            advance(1)


def _contended(
    setting: Setting,
    judged: Judges,
    name: str,
    originals: np.ndarray,
    said: np.ndarray,
    court: list[Heard],
) -> Piece:
    """All trials of a method, and the rows of those that are chosen."""
    config = setting.config
    before = judged.losses(originals)
    made = tried(setting.task, name, config.trials, originals, judged.losses)
    rows = [Row("forget_seconds", made.seconds, "s", {"method": name})]
    for choice in CHOICES:
        place = chosen(made.losses.mean(1), before.mean(0), config.budget, choice)
        own = made.params[place]
        at = {"choice": choice}
        rows += _rows(setting, judged, name, own, said, court, at)
        rows += rows_of_choice(name, choice, made, place, before)
    return piece_of(rows)


def _heard(setting: Setting, judged: Judges, params: np.ndarray) -> list[Heard]:
    told, spoken = judged.told(params), judged.spoken(params)
    return [
        heard(setting, judged, told_of(told, model), spoken[model])
        for model in range(len(params))
    ]


def _rows(
    setting: Setting,
    judged: Judges,
    name: str,
    params: np.ndarray,
    oracle_said: np.ndarray,
    court: list[Heard],
    where: dict[str, Any],
) -> Iterator[Row]:
    """Of one name; of oracles each against the others."""
    said = judged.logits(params)
    gaps = divergences(setting, judged, said, oracle_said)
    relearned = judged.relearned(params)
    known = court if name == ORACLE else _heard(setting, judged, params)
    for seed, own in enumerate(known):
        at = {"method": name, **where, "seed": seed}
        others = [i for i in range(len(court)) if not (name == ORACLE and i == seed)]
        for metric, value in own.values.items():
            yield Row(metric.replace(" ", "_"), value, "1", at)
        start, end, height = relearned[seed]
        yield Row("relearn_start", float(start), "nats", at)
        yield Row("relearn_end", float(end), "nats", at)
        yield Row("relearn_height", float(height), "nats", at)
        if not others:
            continue
        for part, gap in zip(DIVERGED, gaps[seed, others].mean(0), strict=True):
            yield Row("kl_oracle", float(gap), "nats", {**at, "split": part})
        yield from _against(own, [court[i] for i in others], at)


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
