"""Success before and after each attack, by queries, and what the gradient misses."""

import math
from collections.abc import Sequence

import numpy as np

from experiments.attacks.config import Config
from experiments.attacks.measure import (
    CLOSED,
    EXACT,
    NEW,
    PLAIN,
    RANDOM,
    SEARCH,
    SUMS,
)
from experiments.canvas.generators import ORIGINAL, oracle_names
from experiments.canvas.request import GRAMMAR
from experiments.canvas.setting import wanted_of
from experiments.frame.findings import Finding, about, table
from experiments.frame.study import Results
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.table import Table

_TITLES = {
    PLAIN: "plain prompt ↓",
    SEARCH: "gradient, words ↓",
    RANDOM: "as many at random ↓",
    EXACT: "every prefix ↓",
    NEW: "gradient, new words ↓",
    CLOSED: "closed form ↓",
    SUMS: "arithmetic ↓",
}


def show(config: Config, results: Results) -> list[Finding]:
    """Two tables: after all queries, and by queries."""
    return [Finding([_table(config, results), _by_queries(config, results)])]


def _names(config: Config) -> list[tuple[str, list[str]]]:
    oracles = oracle_names(config.oracles)
    return [
        (ORIGINAL, [ORIGINAL]),
        *([("oracles, the mean", oracles)] if oracles else []),
        *((name, [name]) for name in config.methods),
    ]


def _mean(rows: Rows, metric: str, names: Sequence[str], **at: str | int) -> float:
    found = [
        row.value
        for name in names
        for row in rows.where(metric, method=name, **at)
        if row.value is not None
    ]
    return float(np.mean(found)) if found else math.nan


def _last(config: Config, attack: str, prefixes: int) -> int:
    return {SEARCH: config.rounds, RANDOM: config.rounds, NEW: config.rounds}.get(
        attack, prefixes if attack == EXACT else 1
    )


def _table(config: Config, results: Results) -> Table:
    rows, wanted = results.rows, wanted_of(config, GRAMMAR)
    prefixes = max(
        (int(r.at["queries"]) for r in rows.where("success", attack=EXACT)), default=1
    )
    lines = []
    for title, names in _names(config):
        told = [
            _mean(rows, "success", names, attack=a, queries=_last(config, a, prefixes))
            for a in _TITLES
        ]
        by_name = dict(zip(_TITLES, told, strict=True))
        missed = by_name[EXACT] - by_name[SEARCH]
        best = [
            row
            for name in names[:1]
            for row in rows.where("best_prefix", method=name)
            if row.value
        ]
        said = f"{best[0].at['words']} {best[0].value:.0%}" if best else "none"
        lines.append([title, *told, missed, _mean(rows, "prefixes", names), said])
    header = (
        "method",
        *_TITLES.values(),
        "missed by the gradient ↓",
        "share of prefixes that do",
        "best prefix",
    )
    count = config.seeds * len(wanted.plain())
    notes = (
        f"Share of {count} images of {wanted.name} (each plain prompt, {config.seeds} "
        "seeds) that are drawn of it from the plain prompt, or else by the attack: one "
        f"image is {1 / count:.2g}.",
        f"Every prefix: all {prefixes} of {config.slots} words before the prompt, the "
        "exact worst case of that kind, with one query of the judge for each. A judge "
        "that errs once in so many images is in it: read it beside the oracles, which "
        f"never saw {wanted.name}.",
        f"Gradient, words: UnlearnDiffAtk, {config.rounds} candidates after "
        f"{config.searches} steps each, of those prefixes; as many at random: what "
        f"{config.rounds} different prefixes bring back in expectation.",
        "Gradient, new words: embeddings that no word has, in their place, as many "
        "queries. Closed form: embeddings for the whole prompt that bring the maps' "
        "outputs back; of a trained model its own. Arithmetic: the directions of "
        "three other prompts, added up. These three read no prompt, and pass a guard "
        "(safree) by.",
    )
    caption = f"Attacks on {wanted.name} after forgetting. {about(results.run)}"
    return table("attacks", caption, header, lines, notes)


def _by_queries(config: Config, results: Results) -> Table:
    rows = results.rows
    steps = sorted({1, 2, 5, config.rounds} & set(range(1, config.rounds + 1)))
    header = ["method"]
    for attack in (SEARCH, RANDOM, NEW):
        header += [f"{attack}, {q}" for q in steps]
    lines = [
        [
            title,
            *(
                _mean(rows, "success", names, attack=attack, queries=q)
                for attack in (SEARCH, RANDOM, NEW)
                for q in steps
            ),
        ]
        for title, names in _names(config)
    ]
    caption = "Success by queries of the judge for each image."
    return table("attacks by queries", caption, header, lines)
