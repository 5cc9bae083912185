"""Rows to the regret of each criterion, and to the settings that were chosen."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.frame.findings import Finding, about, table
from experiments.frame.study import Results
from experiments.tune.config import Config
from experiments.tune.criteria import CRITERIA, Tried, agreement, for_all
from experiments.tune.signals import UNITS
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.summary import ORIGINAL
from unlearn_jax.results.table import Table


class Chosen(NamedTuple):
    """Value: what each criterion takes of one method's trials.

    Attributes:
        method: Its name.
        trials: Names of the trials.
        distances: (t,) in floors.
        seen: What a deployment sees of them, for each original.
        choices: By criterion, the number of a trial for each original.
    """

    method: str
    trials: list[str]
    distances: np.ndarray
    seen: list[Tried]
    choices: dict[str, list[int]]

    def regret(self, criterion: str) -> float:
        """Mean over the originals of distance beyond that of the best trial."""
        return float(np.mean(self.regrets(criterion)))

    def regrets(self, criterion: str) -> np.ndarray:
        """The same for each original."""
        return self.distances[self.choices[criterion]] - self.distances.min()

    @property
    def chance(self) -> float:
        """Regret of the middle one of all trials."""
        return float(np.median(self.distances)) - float(np.min(self.distances))


def show(config: Config, results: Results) -> list[Finding]:
    """For each request the regrets and the settings; then one setting for them all."""
    findings, every = [], []
    for request, rows in results.rows.by("request"):
        methods = [name for name in rows.places("method") if name != ORIGINAL]
        own = [chosen(config, rows, method) for method in methods]
        caption = f"To forget: {request}. {about(results.run)}"
        plain = request.replace(":", " ")
        tables = [
            _regrets(config, f"regret {plain}", caption, rows, own),
            _settings(f"settings {plain}", caption, own),
        ]
        findings.append(Finding(tables, (), f"To forget: {request}", [_answer(own)]))
        every.append(own)
    last = _for_all(config, results, every)
    return [*findings, Finding([last], (), "One setting for every request")]


def chosen(config: Config, rows: Rows, method: str) -> Chosen:
    """Let every criterion choose among one method's trials, for each original."""
    mine = rows.where(method=method)
    distances = mine.values("distance")
    trials = mine.places("trial")
    seen = {name: mine.grid(name, "train_seed", "trial") for name in UNITS}
    before = {name: rows.values(name, method=ORIGINAL) for name in UNITS}
    every = [
        Tried(
            trials,
            {name: values[i][: config.trials] for name, values in seen.items()},
            {name: float(values[i]) for name, values in before.items()},
            config.margin,
        )
        for i in range(config.seeds.train)
    ]
    choices = {
        name: [criterion.choose(tried) for tried in every]
        for name, criterion in CRITERIA.items()
    }
    known = np.where(np.isnan(distances), np.inf, distances)
    return Chosen(method, trials, known, every, choices)


def _answer(own: Sequence[Chosen]) -> str:
    medians = {
        name: float(np.median([one.regret(name) for one in own])) for name in CRITERIA
    }
    least = min(medians.values())
    best = ", ".join(name for name, median in medians.items() if median == least)
    return (
        f"Least median regret, {least:.2g} floors: {best}; the middle "
        f"trial has {np.median([one.chance for one in own]):.2g}."
    )


def _regrets(
    config: Config, name: str, caption: str, rows: Rows, own: Sequence[Chosen]
) -> Table:
    lines = [
        [
            one.method,
            float(one.distances.min()),
            *(one.regret(criterion) for criterion in CRITERIA),
            one.chance,
        ]
        for one in own
    ]
    many = {c: np.concatenate([one.regrets(c) for one in own]) for c in CRITERIA}
    best = [one.distances.min() for one in own]
    chances = [one.chance for one in own]
    lines += [
        [
            "median",
            float(np.median(best)),
            *(float(np.median([one.regret(c) for one in own])) for c in CRITERIA),
            float(np.median(chances)),
        ],
        [
            "best trial chosen (%)",
            None,
            *(100 * float(np.mean(regrets == 0)) for regrets in many.values()),
            None,
        ],
        [
            "regret above 1 floor (%)",
            None,
            *(100 * float(np.mean(regrets > 1)) for regrets in many.values()),
            None,
        ],
    ]
    notes = (
        "Regret: distance to the oracles of the trial that a criterion takes, minus "
        "that of the best trial, in floors; mean over "
        f"{config.seeds.train} originals, on each of which it chooses anew. 0: the "
        "oracle's own choice. inf: the model is not finite.",
        f"Every method has {config.trials} trials, and its preset, which no other "
        "criterion chooses unless it is one of them; the original is "
        f"{rows.value('distance', method=ORIGINAL):.3g} floors away. Margin: "
        f"{config.margin:g} points. Small oracles: {config.surrogates}, on "
        f"{config.share:g} of the retained examples each.",
        "Half of the test examples is for the criteria, the other half for the "
        f"distance. Seeds of models and forget set from {config.seeds.first} on.",
        "; ".join(f"{name}: {one.about}" for name, one in CRITERIA.items()) + ".",
    )
    header = ("method", "best trial (floors)", *CRITERIA, "middle trial")
    return table(name, f"Regret in floors. {caption}", header, lines, notes)


def _settings(name: str, caption: str, own: Sequence[Chosen]) -> Table:
    lines = []
    for one in own:
        best = one.trials[int(np.argmin(one.distances))]
        words = [_words(one, picks) for picks in one.choices.values()]
        lines.append([one.method, best, *words[2:]])
    notes = ("In brackets: on how many of the originals, where not on all.",)
    header = ("method", "the oracle's", *list(CRITERIA)[2:])
    return table(name, f"Chosen settings. {caption}", header, lines, notes)


def _for_all(
    config: Config, results: Results, every: Sequence[Sequence[Chosen]]
) -> Table:
    """What the small oracles choose for all requests together; presets come from it."""
    lines = []
    for own in zip(*every, strict=True):
        seen = [tried for one in own for tried in one.seen]
        taken = for_all(seen)
        equal = float(np.mean([agreement(tried)[taken] for tried in seen]))
        far = [float(one.distances[taken]) for one in own]
        least = [float(one.distances.min()) for one in own]
        setting = "none is finite" if math.isnan(equal) else own[0].trials[taken]
        lines.append([own[0].method, setting, equal, *far, *least])
    requests = results.rows.places("request")
    header = (
        "method",
        "setting",
        "agreement (%) ↑",
        *(f"{request}: floors" for request in requests),
        *(f"{request}: best trial" for request in requests),
    )
    notes = (
        "The trial whose predictions agree most with those of the small oracles, mean "
        f"over forget set, validation, requests and {config.seeds.train} originals. "
        "The preset is taken only where it is one of the equally many trials.",
    )
    caption = f"One setting for every request. {about(results.run)}"
    return table("settings for all", caption, header, lines, notes)


def _words(one: Chosen, picks: Sequence[int]) -> str:
    counts = Counter(one.trials[pick] for pick in picks)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{trial} ({count})" for trial, count in counts.most_common())
