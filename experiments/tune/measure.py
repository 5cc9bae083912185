"""Try every setting: what one sees of it, and how far from the oracles it is."""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from experiments.compare.contenders import Contender
from experiments.compare.court import Court
from experiments.compare.forget import Forgetter
from experiments.compare.judge import Judge, judge, split
from experiments.compare.measure import cell, floor_rows, placed
from experiments.compare.models import (
    oracles,
    original_words,
    originals,
    trained,
)
from experiments.compare.setting import Case, Setting, case_of
from experiments.compare.show import records_of
from experiments.frame.bench import Bench, piece_of, rows_of
from experiments.frame.ensembles import training_words
from experiments.frame.plugins import brought_digest
from experiments.frame.problem import seed_key
from experiments.frame.requests import trained_features
from experiments.tune.config import Config
from experiments.tune.halves import case_in_halves
from experiments.tune.signals import UNITS, finite, signals
from experiments.tune.trials import trial_of
from unlearn_jax.evaluation.outputs import SplitOutputs
from unlearn_jax.evaluation.tasks import TASKS
from unlearn_jax.results import checks
from unlearn_jax.results.rows import Row, Rows
from unlearn_jax.results.summary import ORIGINAL, summarise
from unlearn_jax.storage.piece import Piece
from unlearn_jax.types import Variables

METRICS = tuple(
    name for name in TASKS["classification"].metrics if name in dict(checks.CORE)
)
"""Those that the distance to the oracles, in floors, is made of."""


class Bar(NamedTuple):
    """Value: one request, from both sides.

    Attributes:
        court: Judges by oracles, on half of the test examples.
        mine: The request with the other half.
        surrogates: Outputs of small oracles there.
    """

    court: Court
    mine: Case
    surrogates: list[SplitOutputs]


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Signals of every trial on every original, and one distance of each trial."""
    models = originals(bench, setting)
    features = functools.lru_cache(
        functools.partial(trained_features, setting.learner, setting.train, models[0])
    )
    judged = judge(setting)
    bars = []
    for asked in setting.asked:
        seed = setting.config.seeds.first
        mine, kept = case_in_halves(case_of(setting, asked, features, seed=seed))
        own = oracles(bench, setting, kept)
        court = Court(setting, kept, judged, models, own, METRICS)
        small = [
            split(setting, mine, judged.outputs(model))
            for model in small_oracles(bench, setting, mine)
        ]
        bars.append(Bar(court, mine, small))
    found = {
        bar.court.case.name: list(floor_rows(bench, setting, bar.court)) for bar in bars
    }
    control = Contender("identity", "identity", setting.identity, {})
    for method, trials in itertools.groupby(
        [control, *setting.contenders], lambda one: one.method
    ):
        # One for each method, so that compiled programs do not pile up.
        place = bench.place("traces", training_words(setting.config))
        forgetter = Forgetter(setting, models, place)
        several = list(trials)
        count = len(several) * len(models) * len(bars)
        with bench.progress(f"try {method}", count) as advance:
            for contender, i, bar in itertools.product(
                several, range(len(models)), bars
            ):
                rows = _tried(bench, setting, judged, forgetter, contender, i, bar)
                found[bar.court.case.name] += rows
                advance(1)
    for request, rows in found.items():
        yield from _told(setting, request, Rows(rows))


def small_oracles(bench: Bench, setting: Setting, case: Case) -> list[Variables]:
    """Models trained on a share of the retained examples, drawn for each."""
    config = setting.config
    assert isinstance(config, Config)
    retain = np.asarray(case.request.retain.weights)
    staying = np.flatnonzero(retain > 0)
    size = max(1, round(config.share * len(staying)))
    weights = np.zeros((config.surrogates, len(retain)), retain.dtype)
    numbers = range(config.seeds.first, config.seeds.first + config.surrogates)
    for row, number in zip(weights, numbers, strict=True):
        row[np.random.default_rng(number).permutation(staying)[:size]] = 1
    keys = [seed_key("surrogate", number) for number in numbers]
    return trained(bench, setting, f"small oracles of {case.name}", keys, weights)


def _tried(
    bench: Bench,
    setting: Setting,
    judged: Judge,
    forgetter: Forgetter,
    contender: Contender,
    i: int,
    bar: Bar,
) -> list[Row]:
    config = setting.config
    assert isinstance(config, Config)

    def make() -> Piece:
        variables = forgetter(contender, i, 0, bar.court.case).variables
        outputs = split(setting, bar.mine, judged.outputs(variables))
        told = signals(seed_key("evaluate", i, 0), outputs, bar.surrogates)
        at = {"split": "", "evaluate_seed": 0}
        seen = [Row(name, value, UNITS[name], at) for name, value in told.items()]
        if not finite(outputs):  # a setting that diverges is no failure of the study
            return piece_of(seen)
        return piece_of([*bar.court.unlearned(variables, i, 0).rows, *seen])

    words = {
        "options": contender.options,
        "brought": brought_digest(contender.method),
        "surrogates": [config.surrogates, config.share],
        **original_words(setting, i),
    }
    name = ORIGINAL if contender.method == "identity" else contender.name
    what = f"tuning/{contender.method}"
    piece = cell(bench, setting, bar.court, what, (i, 0), make, words)
    return placed(rows_of(piece), bar.court, name, train_seed=i, unlearn_seed=0)


def _told(setting: Setting, request: str, rows: Rows) -> Iterator[Row]:
    """Rows as they are published, by method and trial."""
    judged = Rows(row for row in rows if row.metric not in UNITS)
    summaries = summarise(records_of(judged))
    places = {ORIGINAL: {"method": ORIGINAL, "trial": ORIGINAL}}
    for one in setting.contenders:
        places[one.name] = {"method": one.method, "trial": trial_of(one)}
    for name, place in places.items():
        at = {"request": request, **place}
        own = rows.where(method=name)
        reasons = dict.fromkeys(r.failure for r in own if r.failure)
        broken = "parameter_change" in {r.metric for r in own if r.failure}
        far = None if broken else checks.distance(name, summaries)
        # A seed whose model is not finite has no numbers that a mean could hold.
        seen = [row.value for row in own if row.metric in UNITS]
        if any(value is not None and math.isnan(value) for value in seen):
            far = math.inf
        failure = "; ".join(reasons) if broken else ""
        yield Row("distance", far, "floors", at, failure)
        for row in own:
            if row.metric in UNITS:
                seed = {"train_seed": row.at["train_seed"]}
                yield Row(row.metric, row.value, row.unit, at | seed)
