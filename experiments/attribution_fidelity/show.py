"""Rows to the tables of scores and removals, and to their figure."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.attribution_fidelity.config import Config
from experiments.attribution_fidelity.measure import ATTAINABLE
from experiments.attribution_fidelity.removals import RANDOM
from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from unlearn_jax.results.cells import NO_APPLICATION, mean_and_error
from unlearn_jax.results.plot_attribution import attribution_figure
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.table import Table
from unlearn_jax.solvers.solution import REASONS

SECONDS = ("evidence_seconds", "prepare_seconds", "effects_seconds")


class Line(NamedTuple):
    """Value: an attribution from so many models or members.

    Attributes:
        label: As on the command line.
        asked: With how many.
        words: The same, "10 models".
        queries: How many it was asked.
        own: Its numbers by metric.
        failure: Why there are none.
    """

    label: str
    asked: int
    words: str
    queries: int
    own: dict[str, float]
    failure: str = ""

    def numbers(self, *metrics: str) -> list[float]:
        """NaN for those that are missing."""
        return [self.own.get(metric, np.nan) for metric in metrics]


def show(config: Config, results: Results) -> list[Finding]:
    """One or two tables, one figure."""
    lines = list(_lines(config, results.rows))
    tables = [_scores(config, results, lines)]
    if results.rows.places("supporters"):
        tables.append(_removals(config, results))
    drawn = figure_rows(results, lines)
    caption = (
        "Left: linear datamodelling score against seconds (training of what is read, "
        "preparation, effects). Middle: predicted against retrained margin of one test "
        "example on new subsets, both without their mean. Right: change of margins "
        "when the strongest supporters are taken out."
    )
    if not drawn:
        return [Finding(tables)]
    figure = attribution_figure(drawn)
    return [Finding(tables, [Drawing("attribution", figure, drawn, caption)])]


def figure_rows(results: Results, lines: list[Line]) -> list[dict[str, Any]]:
    """What ``attribution_figure`` draws; rows of all panels have the same fields."""
    ceiling, stderr = _ceiling(results.rows)
    rows: list[dict[str, Any]] = [
        {
            "panel": "scores",
            "attribution": line.label,
            "from": line.words,
            "seconds": sum(line.numbers(*SECONDS)),
            "lds": line.own["lds"],
            "stderr": line.own["lds_stderr"],
            "attainable": ceiling,
            "attainable_stderr": stderr,
        }
        for line in lines
        if np.isfinite(line.own.get("lds", np.nan))
    ]
    names = {f"example/{x.label}/{x.asked}": f"{x.label}, {x.words}" for x in lines}
    for key, values in results.arrays.items():
        panel, _, name = key.partition("/")
        fields = ("predicted", "retrained", "stderr")[: len(values)]
        first = {
            "panel": "removals" if panel == "removals" else "example",
            "attribution": names.get(key, name),
        }
        rows += [
            first | dict(zip(fields, map(float, column), strict=True))
            for column in values.T
        ]
    fields = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, "") for name in fields} for row in rows]


def _lines(config: Config, rows: Rows) -> Iterator[Line]:
    """Everybody who was asked, then who was left out."""
    for one, count in config.jobs():
        own = rows.where(attribution=one.label, count=count)
        numbers = {row.metric: row.value for row in own if row.value is not None}
        failure = "" if SECONDS[0] in numbers else f"failed: {own[0].failure}"
        words = _counted(count, one.unit)
        yield Line(one.label, count, words, config.queries_of(one), numbers, failure)
    for one in config.attributions:
        if not config.counts_of(one):
            words = _counted(config.costly_models, one.unit)
            yield Line(one.label, 0, words, 0, {}, "left out: exact_queries is 0")


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit if count > 1 else unit[:-1]}"


def _ceiling(rows: Rows) -> tuple[float, float]:
    at = {"attribution": ATTAINABLE}
    return rows.value("lds", **at), rows.value("lds_stderr", **at)


def _scores(config: Config, results: Results, lines: list[Line]) -> Table:
    rows = results.rows
    ceiling = mean_and_error(*_ceiling(rows))
    first = [ATTAINABLE, f"{config.retrainings} retrainings", ceiling, *[None] * 5]
    shown: list[list[Any]] = [first]
    best: dict[str, float] = {}
    for line in lines:
        lds = line.own.get("lds", -2.0)
        best[line.label] = max(best.get(line.label, -2.0), lds)
    answered = [line for line in lines if not line.failure]
    for line in sorted(answered, key=lambda x: (-best[x.label], x.label, -x.asked)):
        few = f", {line.queries} queries" if line.queries < config.queries else ""
        shown.append(
            [
                line.label,
                line.words + few,
                mean_and_error(*line.numbers("lds", "lds_stderr")),
                mean_and_error(*line.numbers("pearson", "pearson_stderr")),
                *line.numbers("slope", *SECONDS),
            ]
        )
    missing = [line for line in lines if line.failure]
    cut = [line for line in answered if line.own.get("solver_failure")]
    for line in missing:
        word = line.failure.partition(":")[0]
        shown.append([line.label, line.words, word, *[None] * 5])
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
    seconds = {unit: rows.value("train_seconds", of=unit) for unit in rows.places("of")}
    trained = f"{1e3 * seconds['models']:.3g} ms a model of all examples"
    if "members" in seconds:
        trained += f" and {1e3 * seconds['members']:.3g} ms a member"
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
        *(f"{line.label}, {line.words}, {line.failure}." for line in missing),
        *(
            f"{line.label}, {line.words}: a solve ended early, "
            f"{REASONS[round(line.own['solver_failure'])]}."
            for line in cut
        ),
    )
    caption = f"How well attributions predict retraining. {about(results.run)}"
    return table("attribution", caption, header, shown, notes)


def _removals(config: Config, results: Results) -> Table:
    rows, shown = results.rows, []
    for name in rows.places("supporters"):
        own = functools.partial(rows.value, supporters=name)
        predicted, shift, _ = results.arrays[f"removals/{name}"]
        spread = np.std(predicted) > 0 and np.std(shift) > 0
        flipped = len(rows.where("flips", supporters=name))
        shown.append(
            [
                f"{name} (control)" if name == RANDOM else name,
                own("predicted_shift"),
                mean_and_error(own("shift"), own("shift_stderr")),
                own("sign_agreement"),
                float(np.corrcoef(predicted, shift)[0, 1]) if spread else None,
                mean_and_error(own("flips"), own("flips_stderr"))
                if flipped
                else NO_APPLICATION,
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
    caption = f"Without the strongest supporters. {about(results.run)}"
    return table("removals", caption, header, shown, notes)
