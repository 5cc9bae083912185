"""What a stream showed: three tables and the figure."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from experiments.continual.config import Config
from experiments.continual.follow import DELETIONS
from experiments.continual.heads import SCRATCH
from experiments.continual.sgd import RETRAIN
from experiments.continual.stream import KINDS, LEARN, UNKNOWN, span, tasks_of
from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from unlearn_jax.results.plot_continual import continual_figure
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.run import Run
from unlearn_jax.results.table import Table

PANELS = {
    ("accuracy", "test"): "test accuracy,\nclasses within (%)",
    ("accuracy", "unseen"): "test accuracy,\nforgotten classes (%)",
    ("prediction_difference", ""): "difference to the\nexact oracle (log)",
    ("seconds", ""): "seconds for the\nrequest (log)",
}
"""Metric and split -> label of its panel in the figure."""
_REQUESTS = tuple(kind for kind in KINDS if kind != UNKNOWN)
_APPLIED = (LEARN, *_REQUESTS)


def show(config: Config, results: Results) -> list[Finding]:
    """Quality, costs, the stream event by event; and its figure."""
    rows, run = results.rows, results.run
    found = [
        _quality(rows, run, _words(config, rows)),
        _costs(rows, run),
        _requests(rows, run),
    ]
    drawn = figure_rows(rows)
    caption = (
        "The stream from left to right; grey columns are learning phases, crosses rows "
        "that were never learned, and yet subtracted. Seconds are those of requests, "
        "compiled before. Ridge heads are compared with "
        f"“{SCRATCH}”, SGD heads (logits) with “{RETRAIN}”."
    )
    return [
        Finding(found, [Drawing("continual", continual_figure(drawn), drawn, caption)])
    ]


def figure_rows(rows: Rows) -> list[dict[str, Any]]:
    """One row for each point of the figure."""
    places = {request: i for i, request in enumerate(rows.places("request"))}
    drawn = []
    for (metric, split), panel in PANELS.items():
        chosen = rows.where(metric, **({"split": split} if split else {}))
        for method, own in rows.by("method"):
            refusing = all(_values(own, "refused", (UNKNOWN,)))
            for row in chosen.where(method=method):
                kind, request = str(row.at["kind"]), str(row.at["request"])
                untimed = metric == "seconds" and kind == LEARN
                if not untimed and not (kind == UNKNOWN and refusing):
                    drawn.append(
                        {
                            "panel": panel,
                            "method": method,
                            "position": places[request],
                            "event": _event(request),
                            "kind": kind,
                            "value": row.value,
                        }
                    )
    return drawn


def _quality(rows: Rows, run: Run, words: Sequence[str]) -> Table:
    header = (
        "head",
        "test, classes within: mean (%)",
        "at the end (%)",
        "retained rows at the end (%)",
        "forgotten rows (%)",
        "forgotten classes, test (%)",
        "membership AUC before",
        "after",
        "largest difference of weights",
        "of predictions",
    )
    lines = []
    for method, own in rows.by("method"):
        test, retain = (
            _values(own, "accuracy", _APPLIED, split=split)
            for split in ("test", "retain")
        )
        lines.append(
            [
                method,
                _or_none(np.mean, test),
                _or_none(np.mean, test[-1:]),
                _or_none(np.mean, retain[-1:]),
                _or_none(np.mean, _values(own, "accuracy", DELETIONS, split="forget")),
                _or_none(np.mean, _values(own, "accuracy", _APPLIED, split="unseen")),
                _or_none(np.mean, _values(own, "membership_auc_before", DELETIONS)),
                _or_none(np.mean, _values(own, "membership_auc", DELETIONS)),
                _or_none(max, _values(own, "weight_difference", _APPLIED)),
                _or_none(max, _values(own, "prediction_difference", _APPLIED)),
            ]
        )
    notes = (
        *words,
        "Differences are relative to the largest entry, over all events: of ridge "
        f"heads to “{SCRATCH}”, of SGD heads (logits) to “{RETRAIN}”.",
        "Forgotten rows: accuracy on the labels they had, after requests for rows, "
        "users, classes and tasks; what the oracle has is right, not 0. A ridge head "
        "has no output for a class that left; SGD heads keep theirs.",
        "Membership: a threshold on the loss, forgotten rows against test examples of "
        "the same classes; 0.5 finds nothing. The frozen backbone has seen the base "
        "classes' rows and keeps what it saw.",
    )
    caption = f"A stream of learning and forgetting: what is known. {about(run)}"
    return table("continual", caption, header, lines, notes)


def _costs(rows: Rows, run: Run) -> Table:
    header = (
        "head",
        "seconds per request: median",
        "largest",
        "compiling for requests (s)",
        "learning phases, with compiling (s)",
        "state (MB)",
        "stored rows",
        "stored data (MB)",
        "rows never learned",
    )
    lines = []
    for method, own in rows.by("method"):
        times = _values(own, "seconds", _REQUESTS)
        lines.append(
            [
                method,
                _or_none(np.median, times),
                _or_none(max, times),
                sum(_values(own, "compile_seconds", _REQUESTS)),
                sum(
                    sum(_values(own, metric, (LEARN,)))
                    for metric in ("seconds", "compile_seconds")
                ),
                *(
                    _or_none(np.mean, factor * _values(own, metric, _APPLIED)[-1:])
                    for metric, factor in (
                        ("state_bytes", 1e-6),
                        ("stored_rows", 1.0),
                        ("stored_bytes", 1e-6),
                    )
                ),
                _strange(own),
            ]
        )
    notes = (
        "Seconds: by the wall clock, compiled before; requests are all but learning "
        "phases. State: all that is kept, random features included, without data.",
        "Rows never learned: a request in which they hide among rows that were. Where "
        "it was applied, the state was put back, so that the stream goes on.",
    )
    caption = f"What it costs, and what must be stored. {about(run)}"
    return table("costs", caption, header, lines, notes)


def _strange(own: Rows) -> str | None:
    """What a head made of rows that were never learned."""
    refused = _values(own, "refused", (UNKNOWN,))
    if not refused.size:
        return None
    if not all(refused):
        harm = _values(own, "prediction_difference", (UNKNOWN,))
        return f"applied: off by {max(harm):.1e}"
    unharmed = all(_values(own, "unharmed", (UNKNOWN,)))
    return "refused" if unharmed else "refused, state changed"


def _requests(rows: Rows, run: Run) -> Table:
    header = (
        "event",
        "rows",
        "rows within",
        "test, ACU (%)",
        "test, oracle (%)",
        "difference of weights",
        "residual",
        "left error",
        "no history, bit for bit",
        "ACU (s)",
        "oracle (s)",
        "outcome",
    )
    lines = []
    for request, here in rows.by("request"):
        acu, oracle = (here.where(method=name) for name in ("ACU", SCRATCH))
        same = _only(acu, "bit_identical")
        lines.append(
            [
                _event(request),
                here.value("asked_rows"),
                here.value("rows_within"),
                _only(acu, "accuracy", split="test"),
                _only(oracle, "accuracy", split="test"),
                _only(acu, "weight_difference"),
                _only(acu, "residual"),
                _only(acu, "error"),
                None if same is None else ("yes" if same else "no"),
                _only(acu, "seconds"),
                _only(oracle, "seconds"),
                "refused, unharmed"
                if _only(acu, "unharmed")
                else ("refused" if _only(acu, "refused") else "applied"),
            ]
        )
    notes = (
        "Residual: backward error with twice the digits; left error: the next "
        "correction of the refinement, relative to the weights.",
        "No history: all bits of the state (sums, weights, ledger) against a state "
        "that learned only what is left.",
    )
    caption = f"The stream, event by event: ACU against the oracle. {about(run)}"
    return table("requests", caption, header, lines, notes)


def _words(config: Config, rows: Rows) -> list[str]:
    tasks = tasks_of(int(rows.value("classes")), config.phases)
    return [
        f"Classes by phase: {', '.join(map(span, tasks))}; "
        f"{len(rows.places('request'))} events, {rows.value('training_rows'):.0f} "
        f"training rows; backbone {config.model.name}, {rows.value('features'):.0f} "
        f"frozen features; ridge heads: {config.width} random features, l2 = "
        f"{config.l2:g}; SGD heads: softmax on the frozen features."
    ]


def _event(request: str) -> str:
    return request.partition(" ")[2]


def _values(rows: Rows, metric: str, kinds: Collection[str], **at: str) -> np.ndarray:
    """A metric over the events of some kinds, where it was measured."""
    found = rows.where(metric, **at)
    return np.array([row.value for row in found if row.at["kind"] in kinds], float)


def _only(rows: Rows, metric: str, **at: str) -> float | None:
    found = rows.where(metric, **at)
    return found[0].value if found else None


def _or_none(what: Callable[[Any], Any], values: np.ndarray) -> float | None:
    return float(what(values)) if values.size else None
