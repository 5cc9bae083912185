"""What a stream showed, as tables and as the rows of its figure."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from experiments._stream import LEARN, UNKNOWN, Event
from experiments._stream_methods import SCRATCH, Contestant
from experiments._stream_run import DELETIONS, request_name
from experiments._study import Note, about, table
from unlearn_jax.results.run import Run
from unlearn_jax.results.table import Table

Found = dict[tuple[str, str, str, str], float]
PANELS = {
    ("accuracy", "test"): "test accuracy,\nclasses within (%)",
    ("accuracy", "unseen"): "test accuracy,\nforgotten classes (%)",
    ("prediction_difference", ""): "difference to the\nexact oracle (log)",
    ("seconds", ""): "seconds for the\nrequest (log)",
}
"""Metric and split -> label of its panel in the figure."""


def looked_up(notes: Sequence[Note]) -> Found:
    """Numbers by method, request, metric and split."""
    return {
        (n.method, n.request, n.metric, n.split): n.value
        for n in notes
        if n.value is not None
    }


def figure_rows(
    notes: Sequence[Note], events: Sequence[Event], contestants: Sequence[Contestant]
) -> list[dict[str, Any]]:
    """One row for each point of the figure."""
    found, rows = looked_up(notes), []
    for (metric, split), panel in PANELS.items():
        for contestant in contestants:
            for position, event in enumerate(events):
                request = request_name(position, event)
                place = (contestant.name, request, metric, split)
                refused = found.get((contestant.name, request, "refused", ""))
                timed = metric != "seconds" or event.kind != LEARN
                if place in found and timed and not refused:
                    rows.append(
                        {
                            "panel": panel,
                            "method": contestant.name,
                            "position": position,
                            "event": event.name,
                            "kind": event.kind,
                            "value": found[place],
                        }
                    )
    return rows


def tables(
    notes: Sequence[Note],
    events: Sequence[Event],
    contestants: Sequence[Contestant],
    run: Run,
    words: Sequence[str],
) -> list[Table]:
    """Quality, costs, and the stream itself; ``words`` are the setting's footnotes."""
    found = looked_up(notes)
    names = [c.name for c in contestants]
    return [
        _quality(found, events, contestants, run, words),
        _costs(found, events, names, run),
        _requests(found, events, run),
    ]


def _quality(
    found: Found,
    events: Sequence[Event],
    contestants: Sequence[Contestant],
    run: Run,
    words: Sequence[str],
) -> Table:
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
    asked = [(i, e) for i, e in enumerate(events) if not e.refused]
    gone = [(i, e) for i, e in asked if e.kind in DELETIONS]
    rows = []
    for contestant in contestants:
        own = contestant.name
        values = partial(_values, found, own)
        apart = (
            None
            if own == contestant.reference
            else _most(values(f"{what}_difference", "", asked))
            for what in ("weight", "prediction")
        )
        rows.append(
            [
                own,
                _mean(values("accuracy", "test", asked)),
                _mean(values("accuracy", "test", asked[-1:])),
                _mean(values("accuracy", "retain", asked[-1:])),
                _mean(values("accuracy", "forget", gone)),
                _mean(values("accuracy", "unseen", asked)),
                _mean(values("membership_auc_before", "", gone)),
                _mean(values("membership_auc", "", gone)),
                *apart,
            ]
        )
    notes = (
        *words,
        "Differences are relative to the largest entry, over all events: of ridge "
        f"heads to “{SCRATCH}”, of SGD heads (logits) to “SGD retrain”.",
        "Forgotten rows: accuracy on the labels they had, after requests for rows, "
        "users, classes and tasks; what the oracle has is right, not 0. A ridge head "
        "has no output for a class that left; SGD heads keep theirs.",
        "Membership: a threshold on the loss, forgotten rows against test examples of "
        "the same classes; 0.5 finds nothing. The frozen backbone has seen the base "
        "classes' rows and keeps what it saw.",
    )
    caption = f"A stream of learning and forgetting: what is known. {about(run)}"
    return table("continual", caption, header, rows, notes)


def _costs(
    found: Found, events: Sequence[Event], names: Sequence[str], run: Run
) -> Table:
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
    asked = [(i, e) for i, e in enumerate(events) if e.kind != LEARN and not e.refused]
    learned = [(i, e) for i, e in enumerate(events) if e.kind == LEARN]
    strange = [(i, e) for i, e in enumerate(events) if e.kind == UNKNOWN]
    last = [(i, e) for i, e in enumerate(events) if not e.refused][-1:]
    rows = []
    for own in names:
        values = partial(_values, found, own)
        times = values("seconds", "", asked)
        told = "refused"
        if not all(values("refused", "", strange)):
            harm = values("prediction_difference", "", strange)
            told = f"applied: off by {max(harm):.1e}"
        elif not all(values("unharmed", "", strange)):
            told = "refused, state changed"
        rows.append(
            [
                own,
                float(np.median(times)),
                max(times),
                sum(values("compile_seconds", "", asked)),
                sum(
                    sum(values(metric, "", learned))
                    for metric in ("seconds", "compile_seconds")
                ),
                _mean(values("state_bytes", "", last), 1e-6),
                _mean(values("stored_rows", "", last)),
                _mean(values("stored_bytes", "", last), 1e-6),
                told,
            ]
        )
    notes = (
        "Seconds: by the wall clock, compiled before; requests are all but learning "
        "phases. State: all that is kept, random features included, without data.",
        "Rows never learned: a request in which they hide among rows that were. Where "
        "it was applied, the state was put back, so that the stream goes on.",
    )
    caption = f"What it costs, and what must be stored. {about(run)}"
    return table("costs", caption, header, rows, notes)


def _requests(found: Found, events: Sequence[Event], run: Run) -> Table:
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
    rows = []
    for position, event in enumerate(events):
        name = request_name(position, event)

        def value(
            method: str, metric: str, split: str = "", name: str = name
        ) -> float | None:
            return found.get((method, name, metric, split))

        same = value("ACU", "bit_identical")
        rows.append(
            [
                event.name,
                float(max(len(event.forget), len(event.learn))),
                float(np.sum(event.labels >= 0)),
                value("ACU", "accuracy", "test"),
                value(SCRATCH, "accuracy", "test"),
                value("ACU", "weight_difference"),
                value("ACU", "residual"),
                value("ACU", "error"),
                None if same is None else ("yes" if same else "no"),
                value("ACU", "seconds"),
                value(SCRATCH, "seconds"),
                "refused, unharmed"
                if value("ACU", "unharmed")
                else ("refused" if value("ACU", "refused") else "applied"),
            ]
        )
    notes = (
        "Residual: backward error with twice the digits; left error: the next "
        "correction of the refinement, relative to the weights.",
        "No history: all bits of the state (sums, weights, ledger) against a state "
        "that learned only what is left.",
    )
    caption = f"The stream, event by event: ACU against the oracle. {about(run)}"
    return table("requests", caption, header, rows, notes)


def _values(
    found: Found,
    own: str,
    metric: str,
    split: str,
    events: Sequence[tuple[int, Event]],
) -> list[float]:
    """A head's numbers over events, where they were measured."""
    places = [(own, request_name(i, e), metric, split) for i, e in events]
    return [found[place] for place in places if place in found]


def _mean(values: Sequence[float], factor: float = 1.0) -> float | None:
    return float(np.mean(values)) * factor if values else None


def _most(values: Sequence[float]) -> float | None:
    return max(values) if values else None
