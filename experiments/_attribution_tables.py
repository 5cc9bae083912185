"""From effects and retrained margins to scores: notes, tables, rows of figures."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments._attribution_run import RANDOM, Answer, Known, Removal, Truth
from experiments._attribution_setting import Competitor, Config, Setting
from experiments._study import Note, about, table
from unlearn_jax.evaluation.datamodelling_score import (
    Score,
    attainable,
    correlations,
    group_effects,
    linear_datamodelling_score,
    score,
)
from unlearn_jax.results.cells import NO_APPLICATION, mean_and_error
from unlearn_jax.results.run import Run
from unlearn_jax.results.table import Table


class Line(NamedTuple):
    """Value: one attribution from so many models or members.

    Attributes:
        label: As on the command line.
        count: How many.
        unit: "models" or "members".
        queries: How many were asked.
        lds: Mean rank correlation over new subsets.
        pearson: Mean correlation over them.
        slope: Regression of true on predicted changes, over all queries; 1 for effects
            in the right units, if what is predicted is free of noise.
        evidence_seconds: Of training what it reads.
        answer: With its seconds.
    """

    label: str
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    unit: str
    queries: int
    lds: Score
    pearson: Score
    slope: float
    evidence_seconds: float
    answer: Answer

    @property
    def seconds(self) -> float:
        """Training of the evidence, preparation and effects."""
        own = self.answer.prepare_seconds + self.answer.effects_seconds
        return self.evidence_seconds + own


def lines_of(
    setting: Setting,
    known: Known,
    truth: Truth,
    answers: Mapping[tuple[str, int], Answer],
) -> list[Line]:
    """Scores of everybody who gave an answer."""
    config, means = setting.config, truth.runs.mean(axis=0)
    drawn = {"bootstrap": config.bootstrap, "seed": config.seed}
    found = []
    for one in setting.competitors:
        for count in one.counts:
            answer = answers[one.label, count]
            if answer.failure:
                continue
            predicted = group_effects(answer.effects, truth.masks)
            true = means[: len(predicted)]
            per = known.member_seconds if one.from_members else known.model_seconds
            try:
                lds = linear_datamodelling_score(predicted, true, **drawn)
                pearson = score(predicted, true, ranks=False, **drawn)
            except ValueError:  # no spread: it says nothing about any query
                lds = pearson = Score(float("nan"), float("nan"))
            found.append(
                Line(
                    one.label,
                    count,
                    unit_of(one),
                    len(predicted),
                    lds,
                    pearson,
                    slope_of(predicted, true),
                    count * per,
                    answer,
                )
            )
    return found


def unit_of(competitor: Competitor) -> str:
    """What is counted."""
    return "members" if competitor.from_members else "models"


def slope_of(predicted: np.ndarray, true: np.ndarray) -> float:
    """One line through all queries, each without its mean; NaN without spread."""
    x, y = (side - side.mean(axis=1, keepdims=True) for side in (predicted, true))
    squares = float(np.sum(x**2))
    return float(np.sum(x * y)) / squares if squares > 0 else float("nan")


def ceiling_of(config: Config, truth: Truth) -> Score:
    """What the noise of the truth leaves to be reached."""
    return attainable(truth.runs, bootstrap=config.bootstrap, seed=config.seed)


def notes_of(
    setting: Setting,
    lines: list[Line],
    answers: Mapping[tuple[str, int], Answer],
    ceiling: Score,
    removals: Mapping[str, Removal],
) -> list[Note]:
    """Every number as a record."""
    notes = [
        Note("attainable", "lds", ceiling.value, "1"),
        Note("attainable", "lds_stderr", ceiling.stderr, "1"),
    ]
    for line in lines:
        request = words_of(line.count, line.unit)
        for metric, value, unit in (
            ("lds", line.lds.value, "1"),
            ("lds_stderr", line.lds.stderr, "1"),
            ("pearson", line.pearson.value, "1"),
            ("pearson_stderr", line.pearson.stderr, "1"),
            ("slope", line.slope, "1"),
            ("evidence_seconds", line.evidence_seconds, "s"),
            ("prepare_seconds", line.answer.prepare_seconds, "s"),
            ("effects_seconds", line.answer.effects_seconds, "s"),
            ("compile_seconds", line.answer.compile_seconds, "s"),
        ):
            failure = "" if np.isfinite(value) else "effects without spread"
            given = None if failure else value
            if not failure or metric == "lds":
                notes.append(
                    Note(line.label, metric, given, unit, request, "", 0, failure)
                )
    for one in setting.competitors:
        for count in one.counts:
            failure = answers[one.label, count].failure
            if failure:
                request = words_of(count, unit_of(one))
                notes.append(Note(one.label, "lds", None, "1", request, "", 0, failure))
    for name, removal in removals.items():
        outcome = removal.outcome
        for metric, value, unit in (
            ("predicted_shift", outcome.mean_predicted, "nats"),
            ("shift", outcome.mean_shift, "nats"),
            ("shift_stderr", outcome.mean_stderr, "nats"),
            ("sign_agreement", outcome.sign_agreement, "%"),
        ):
            notes.append(Note(name, metric, value, unit, "removal"))
        if removal.labels is not None:
            notes.append(Note(name, "flips", removal.labels.share, "%", "removal"))
    return notes


def words_of(count: int, unit: str) -> str:
    """``10 models``."""
    return f"{count} {unit if count > 1 else unit[:-1]}"


def tables_of(
    setting: Setting,
    known: Known,
    lines: list[Line],
    answers: Mapping[tuple[str, int], Answer],
    ceiling: Score,
    removals: Mapping[str, Removal],
    run: Run,
) -> list[Table]:
    """Scores, and what taking supporters out did."""
    tables = [_scores(setting, known, lines, answers, ceiling, run)]
    if removals:
        tables.append(_removals(setting.config, removals, run))
    return tables


def figure_rows(
    lines: list[Line], ceiling: Score, truth: Truth, removals: Mapping[str, Removal]
) -> list[dict[str, Any]]:
    """What ``attribution_figure`` draws; rows of all panels have the same fields."""
    rows = _score_rows(lines, ceiling)
    rows += _example_rows(lines, truth) + _removal_rows(removals)
    fields = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, "") for name in fields} for row in rows]


def _score_rows(lines: list[Line], ceiling: Score) -> list[dict[str, Any]]:
    """What the panel of scores draws."""
    return [
        {
            "panel": "scores",
            "attribution": line.label,
            "from": words_of(line.count, line.unit),
            "seconds": line.seconds,
            "lds": line.lds.value,
            "stderr": line.lds.stderr,
            "attainable": ceiling.value,
            "attainable_stderr": ceiling.stderr,
        }
        for line in lines
        if np.isfinite(line.lds.value)
    ]


def _example_rows(lines: list[Line], truth: Truth) -> list[dict[str, Any]]:
    """One query of the attribution with the best score: that of median correlation."""
    known = [line for line in lines if np.isfinite(line.lds.value)]
    if not known:
        return []
    line = max(known, key=lambda each: each.lds.value)
    predicted = group_effects(line.answer.effects, truth.masks)
    true = truth.runs.mean(axis=0)[: len(predicted)]
    each = np.nan_to_num(correlations(predicted, true, ranks=True), nan=-1.0)
    query = int(np.argsort(each)[len(each) // 2])
    x, y = predicted[query], true[query]
    name = f"{line.label}, {words_of(line.count, line.unit)}"
    return [
        {
            "panel": "example",
            "attribution": name,
            "predicted": float(a),
            "retrained": float(b),
        }
        for a, b in zip(x - x.mean(), y - y.mean(), strict=True)
    ]


def _removal_rows(removals: Mapping[str, Removal]) -> list[dict[str, Any]]:
    """True and predicted change of every query whose supporters went."""
    return [
        {
            "panel": "removals",
            "attribution": name,
            "predicted": float(predicted),
            "retrained": float(shift),
            "stderr": float(stderr),
        }
        for name, removal in removals.items()
        for predicted, shift, stderr in zip(*removal.outcome[:3], strict=True)
    ]


def _scores(
    setting: Setting,
    known: Known,
    lines: list[Line],
    answers: Mapping[tuple[str, int], Answer],
    ceiling: Score,
    run: Run,
) -> Table:
    config = setting.config
    rows: list[list[Any]] = [
        [
            "attainable",
            f"{config.retrainings} retrainings",
            mean_and_error(*ceiling),
            *[None] * 5,
        ]
    ]

    def of_best(line: Line) -> float:
        own = [x.lds.value for x in lines if x.label == line.label]
        return float(np.nanmax([*own, -2.0]))

    for line in sorted(lines, key=lambda x: (-of_best(x), x.label, -x.count)):
        few = f", {line.queries} queries" if line.queries < config.queries else ""
        rows.append(
            [
                line.label,
                words_of(line.count, line.unit) + few,
                mean_and_error(*line.lds),
                mean_and_error(*line.pearson),
                line.slope,
                line.evidence_seconds,
                line.answer.prepare_seconds,
                line.answer.effects_seconds,
            ]
        )
    reasons = []
    for one in setting.competitors:
        told = {count: answers[one.label, count].failure for count in one.counts}
        if not one.counts:
            told = {config.costly_models: "exact_queries is 0"}
        for count, why in told.items():
            if why:
                words, what = words_of(count, unit_of(one)), "failed"
                what = what if one.counts else "left out"
                rows.append([one.label, words, what, *[None] * 5])
                reasons.append(f"{one.label}, {words}, {what}: {why}.")
    header = (
        "attribution",
        "from",
        "LDS ↑",
        "correlation ↑",
        "slope",
        "training (s) ↓",
        "prepare (s) ↓",
        "effects (s) ↓",
    )
    trained = f"{1e3 * known.model_seconds:.3g} ms a model of all examples"
    if known.member_seconds:
        trained += f" and {1e3 * known.member_seconds:.3g} ms a member"
    notes = (
        f"Margins of {config.queries} test examples by models of {config.subsets} new "
        f"random subsets with a share of {config.share:g}, means of "
        f"{config.retrainings} retrainings each. LDS: rank correlation; both are means "
        "over queries, ± bootstrap standard error over queries and subsets.",
        "Attainable: what the noise left in those means allows a perfect predictor. "
        "Slope: of retrained on predicted changes; 1 says that effects have the right "
        "size, noise in what is predicted lowers it.",
        f"Training: of the models or members that it reads, {trained}. Seconds are of "
        "programs already compiled.",
        *reasons,
    )
    caption = f"How well attributions predict retraining. {about(run)}"
    return table("attribution", caption, header, rows, notes)


def _removals(config: Config, removals: Mapping[str, Removal], run: Run) -> Table:
    rows = []
    for name, (outcome, labels) in removals.items():
        truth = mean_and_error(outcome.mean_shift, outcome.mean_stderr)
        flipped = mean_and_error(*labels[:2]) if labels else NO_APPLICATION
        fit = float("nan")
        if np.std(outcome.predicted) > 0 and np.std(outcome.shift) > 0:
            fit = float(np.corrcoef(outcome.predicted, outcome.shift)[0, 1])
        rows.append(
            [
                f"{name} (control)" if name == RANDOM else name,
                outcome.mean_predicted,
                truth,
                outcome.sign_agreement,
                fit if np.isfinite(fit) else None,
                flipped,
            ]
        )
    header = (
        "supporters by",
        "predicted (nats)",
        "retrained (nats) ↓",
        "sign right (%) ↑",
        "correlation ↑",
        "flipped (%) ↑",
    )
    notes = (
        f"Change of a query's margin when its {config.removed} strongest supporters "
        f"are taken out; mean over {config.removal_queries} queries, ± standard error "
        f"over them; {config.removal_retrainings} retrainings without each, against "
        f"{config.models} models of all examples. Predictions for random removals are "
        "those of the first attribution.",
        "Flipped: share of rightly classified queries that most models without the "
        "supporters get wrong.",
    )
    caption = f"Without the strongest supporters. {about(run)}"
    return table("removals", caption, header, rows, notes)
