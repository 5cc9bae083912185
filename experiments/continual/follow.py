"""Lead a head through the stream and measure it after every event."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments.continual.heads import Applied, Contestant, Frozen, acu_head
from experiments.continual.stream import ABSENT, Event, classes_within
from experiments.frame.bench import piece_of
from experiments.frame.progress import Advance
from unlearn_jax.evaluation.accuracy import accuracy
from unlearn_jax.evaluation.membership import loss_attack
from unlearn_jax.evaluation.outputs import Scores, SplitOutputs
from unlearn_jax.results.rows import Row
from unlearn_jax.solvers.refusal import RefusedError
from unlearn_jax.storage.piece import Piece

DELETIONS = ("rows", "user", "class", "task")
"""Kinds of requests after which rows are gone."""
_LOWEST = -1e30


class Judges(NamedTuple):
    """Description: what heads are judged by.

    Attributes:
        frozen: Features of the training rows.
        test: Features of the test examples.
        targets: Their classes.
        judged: At most so many rows of each kind are looked at.
        history: After which events the state is compared with one that has none.
    """

    frozen: Frozen
    test: np.ndarray
    targets: np.ndarray
    judged: int
    history: Literal["each", "last"]


class _View(NamedTuple):
    """Value: the examples of one event, as many at each, so that programs fit.

    Attributes:
        features: Test examples, retained rows, rows of the request.
        targets: Their labels; of the request, those the rows were learned with.
        parts: Indices for each split: "test" has the classes that are within, "unseen"
            those that once were.
        outside: Test examples distributed like the rows of the request.
    """

    features: np.ndarray
    targets: np.ndarray
    parts: dict[str, np.ndarray]
    outside: np.ndarray


def request_name(position: int, event: Event) -> str:
    """The event's name in rows."""
    return f"{position:02d} {event.name}"


def follow(
    judges: Judges,
    events: Sequence[Event],
    contestant: Contestant,
    oracle: Mapping[str, np.ndarray] | None,
    advance: Advance,
) -> Piece:
    """Every event to one contestant.

    Args:
        judges: What it is judged by.
        events: The stream.
        contestant: Who learns and forgets.
        oracle: What this function gave for the head that it should be equal to; None:
            it is one.
        advance: Called with 1 after each event.

    Returns:
        Rows, and as arrays the oracle's scores and weights after each event.
    """
    state, learned = contestant.start(), np.zeros(0, np.int64)
    rows: list[Row] = []
    outputs: dict[str, list[np.ndarray]] = {"scores": [], "weight": []}
    for position, event in enumerate(events):
        learned = np.union1d(learned, classes_within(event.labels))
        view, found = _view(judges, event, learned), []
        digest, before = _digest(state) if event.refused else b"", None
        if event.kind in DELETIONS:
            before = contestant.scores(state, view.features)
        try:
            done = contestant.apply(state, event)
        except RefusedError:
            done = Applied(state, 0.0, 0.0)
            same = digest == _digest(state)
            found += [Row("refused", 1.0), Row("unharmed", float(same))]
        else:
            if event.refused:
                found.append(Row("refused", 0.0))
            found.append(Row("seconds", done.seconds, "s"))
            found.append(Row("compile_seconds", done.compile_seconds, "s"))
        own = {"scores": contestant.scores(done.state, view.features)}
        if contestant.weight is not None:
            own["weight"] = contestant.weight(done.state)
        if oracle is not None:
            found += _differences(own, oracle, position)
        else:
            for name, values in own.items():
                outputs[name].append(values)
        if not event.refused:
            found += _accuracies(own["scores"], view)
            if before is not None:
                found += _membership(before, own["scores"], view)
            found += _costs(contestant, done.state, event)
            state = done.state
        last = position == len(events) - 1
        if contestant.name == "ACU" and (judges.history == "each" or last):
            same = _free_of_history(judges, done.state, event)
            found.append(Row("bit_identical", float(same)))
        place = {
            "method": contestant.name,
            "request": request_name(position, event),
            "kind": event.kind,
        }
        rows += [row._replace(at=place | dict(row.at)) for row in found]
        advance(1)
    arrays = {name: np.stack(each) for name, each in outputs.items() if each}
    return piece_of(rows, arrays)


def _view(judges: Judges, event: Event, learned: np.ndarray) -> _View:
    random, most = np.random.default_rng(0), judges.judged
    within = np.flatnonzero(event.labels != ABSENT)
    retain = random.permutation(within)[:most]
    chosen = random.permutation(len(event.forget))[:most]
    forget, said = event.forget[chosen], event.forget_labels[chosen]
    rows, labels = np.zeros((2, 2 * most), np.int64)
    rows[: len(retain)], labels[: len(retain)] = retain, event.labels[retain]
    last = slice(most, most + len(forget))
    rows[last], labels[last] = forget, said
    q, now = len(judges.test), classes_within(event.labels)
    closed = len(now) < len(classes_within(event.before))
    parts = {
        "test": np.flatnonzero(np.isin(judges.targets, now)),
        "retain": q + np.arange(len(retain)),
        "forget": q + most + np.arange(len(forget)),
        "unseen": np.flatnonzero(np.isin(judges.targets, np.setdiff1d(learned, now))),
    }
    return _View(
        np.concatenate([judges.test, judges.frozen.features[rows]]),
        np.concatenate([judges.targets, labels]),
        parts,
        np.flatnonzero(np.isin(judges.targets, said if closed else now)),
    )


def _accuracies(scores: np.ndarray, view: _View) -> list[Row]:
    """Shares of right answers; a class without an output is never answered."""
    found = np.where(np.isnan(scores), _LOWEST, scores)
    rows = []
    for split, part in view.parts.items():
        if len(part):
            share = accuracy(Scores(found[part], view.targets[part]))
            rows.append(Row("accuracy", share, "%", {"split": split}))
    return rows


def _membership(before: np.ndarray, after: np.ndarray, view: _View) -> list[Row]:
    """Can the forgotten rows be told from test examples, before and after?"""
    parts = (view.parts["forget"], view.outside)
    if min(map(len, parts)) < 2:
        return []
    rows = []
    for metric, scores in (("auc_before", before), ("auc", after)):
        # A class without an output has targets of zeros only: its score is 0.
        found = np.nan_to_num(scores, nan=0.0)
        members, others = (Scores(found[part], view.targets[part]) for part in parts)
        split = SplitOutputs(members, members, others, others)
        attack = loss_attack(jax.random.key(0), split)
        rows.append(Row(f"membership_{metric}", attack.auc))
    return rows


def _differences(
    own: Mapping[str, np.ndarray], oracle: Mapping[str, np.ndarray], position: int
) -> list[Row]:
    """Largest differences to the oracle, relative to its largest entry."""
    names = {"scores": "prediction_difference", "weight": "weight_difference"}
    return [
        Row(names[name], difference(values, oracle[name][position]))
        for name, values in own.items()
    ]


def difference(values: np.ndarray, reference: np.ndarray) -> float:
    """Largest |a − b| over largest |b|; infinite where other columns are there."""
    if np.any(np.isnan(values) != np.isnan(reference)):
        return float("inf")
    size = np.nanmax(np.abs(reference))
    return float(np.nanmax(np.abs(values - reference)) / (size if size > 0 else 1))


def _costs(contestant: Contestant, state: Any, event: Event) -> list[Row]:
    stored_rows, stored = contestant.stored(event.labels)
    rows = [
        Row("state_bytes", float(contestant.bytes(state)), "bytes"),
        Row("stored_bytes", float(stored), "bytes"),
        Row("stored_rows", float(stored_rows), "rows"),
    ]
    ridge = getattr(state, "ridge", None)
    return rows + [
        Row(metric, float(getattr(ridge, metric)))
        for metric in ("residual", "error", "margin", "exact")
        if hasattr(ridge, metric)
    ]


def _free_of_history(judges: Judges, state: Any, event: Event) -> bool:
    """Whether a state equals, bit for bit, one that learned only what is left."""
    rows = np.flatnonzero(event.labels != ABSENT)
    head = acu_head(judges.frozen, "gram")
    fresh = head.learn(head.start(), judges.frozen.features[rows], event.labels[rows])
    return _digest(fresh) == _digest(state)


def _digest(state: Any) -> bytes:
    """One number of all bits of a state."""
    found = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(state):
        values = np.ascontiguousarray(leaf)
        found.update(repr((values.shape, values.dtype)).encode())
        found.update(values.reshape(-1).view(np.uint8).data)
    return found.digest()
