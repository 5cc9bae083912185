"""Train with and without the authors, forget them, and ask about them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.authors.build import Setting, as_read
from experiments.authors.judge import (
    DIVERGED,
    Heard,
    Judges,
    divergences,
    heard,
    judges,
    told_of,
)
from experiments.authors.probing import Probed, rows_of_probes
from experiments.authors.vectors import Moved, mover
from experiments.frame.bench import Bench
from experiments.language.contest import Court, at, both_kinds, contest
from experiments.language.trials import ORACLE, ORIGINAL, losses_rows
from unlearn_jax.evaluation.muse import privacy_leak
from unlearn_jax.evaluation.ranking import area
from unlearn_jax.evaluation.tofu import forget_quality
from unlearn_jax.results.rows import Row


class Known(NamedTuple):
    """Value: all that is asked of several models, once for however many rows.

    Attributes:
        said: (models, n, t, k) logits on the questions that are compared.
        relearned: (models, 3), see ``Judges``.
        heard: Of each model.
        probed: Of each model; empty where nothing is asked for otherwise.
        moved: Value vectors of each, beside the original's.
    """

    said: np.ndarray
    relearned: np.ndarray
    heard: list[Heard]
    probed: list[Probed]
    moved: list[Moved]


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Every number of oracles, originals and methods."""
    setting = as_read(setting)
    task = setting.task
    models = both_kinds(bench, task, setting.oracle)
    judged = judges(setting)
    moved = mover(setting, models[ORIGINAL])

    def known(params: np.ndarray) -> Known:
        return _known(setting, judged, params, moved)

    oracles = known(models[ORACLE])
    originals = _probed(judged, models[ORIGINAL])

    def rows(name: str, choice: str, known: Known) -> Iterator[Row]:
        yield from _rows(setting, judged, name, choice, known, oracles)
        for seed, (own, first) in enumerate(zip(known.probed, originals, strict=True)):
            yield from rows_of_probes(own, first, at(name, choice, seed=seed))

    yield from rows(ORACLE, "", oracles)
    yield from losses_rows(judged.losses(models[ORACLE]), at(ORACLE, ""))
    court = Court(judged.losses, known, rows)
    yield from contest(bench, task, setting.config, models[ORIGINAL], court)


def _known(
    setting: Setting,
    judged: Judges,
    params: np.ndarray,
    moved: Callable[[Any], list[Moved]],
) -> Known:
    told, spoken = judged.told(params), judged.spoken(params)
    seen = [
        heard(setting, judged, told_of(told, model), spoken[model])
        for model in range(len(params))
    ]
    relearned, probed = judged.relearned(params), _probed(judged, params)
    return Known(judged.logits(params), relearned, seen, probed, moved(params))


def _probed(judged: Judges, params: np.ndarray) -> list[Probed]:
    return judged.probed(params) if judged.probed else []


def _rows(
    setting: Setting,
    judged: Judges,
    name: str,
    choice: str,
    known: Known,
    court: Known,
) -> Iterator[Row]:
    """Of one name; of oracles each against the others."""
    gaps = divergences(setting, judged, known.said, court.said)
    for seed, own in enumerate(known.heard):
        where = at(name, choice, seed=seed)
        count = len(court.heard)
        others = [i for i in range(count) if not (name == ORACLE and i == seed)]
        for metric, value in own.values.items():
            yield Row(metric.replace(" ", "_"), value, "1", where)
        start, end, height = known.relearned[seed]
        yield Row("relearn_start", float(start), "nats", where)
        yield Row("relearn_end", float(end), "nats", where)
        yield Row("relearn_height", float(height), "nats", where)
        yield Row("concept_jaccard", known.moved[seed].jaccard, "1", where)
        yield Row("concept_cosine", known.moved[seed].cosine, "1", where)
        if not others:
            continue
        for part, gap in zip(DIVERGED, gaps[seed, others].mean(0), strict=True):
            yield Row("kl_oracle", float(gap), "nats", {**where, "split": part})
        yield from _against(own, [court.heard[i] for i in others], where)


def _against(
    own: Heard, others: list[Heard], where: Mapping[str, Any]
) -> Iterator[Row]:
    """Forget quality and leak of privacy, means over retrained models."""
    if not np.isfinite(own.ratios).all():
        told = "truth ratios are not finite: the model is destroyed"
        yield Row("forget_quality", None, "1", where, told)
        return
    tests = [forget_quality(own.ratios, other.ratios) for other in others]
    yield Row("forget_quality", float(np.mean([t.p for t in tests])), "1", where)
    yield Row(
        "quality_distance", float(np.mean([t.statistic for t in tests])), "1", where
    )
    yield Row("quality_floor", tests[0].floor, "1", where)
    mine, theirs = auc_of(own), [auc_of(other) for other in others]
    leaks = [privacy_leak(mine, one).value for one in theirs if one > 0]
    if leaks:
        yield Row("privacy_leak", float(np.mean(leaks)), "1", where)


def auc_of(one: Heard) -> float:
    """MUSE's: how often a holdout author is more familiar than a forgotten one."""
    forget, holdout = one.attack
    return area(holdout, forget).auc
