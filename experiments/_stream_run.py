"""Lead every contestant through the stream and measure each after every event."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments._stream import ABSENT, Event, classes_within
from experiments._stream_methods import Applied, Bench, Contestant, acu_head
from experiments._study import Note
from experiments.frame.progress import Advance
from unlearn_jax.evaluation.accuracy import accuracy
from unlearn_jax.evaluation.membership import loss_attack
from unlearn_jax.evaluation.outputs import Scores, SplitOutputs
from unlearn_jax.solvers.refusal import RefusedError

DELETIONS = ("rows", "user", "class", "task")
"""Kinds of requests after which rows are gone."""
_LOWEST = -1e30


class Judges(NamedTuple):
    """Description: what heads are judged by.

    Attributes:
        bench: Frozen features of the training rows.
        test: Features of the test examples.
        targets: Their classes.
        judged: At most so many rows of each kind are looked at.
        every: Whether the state is compared with one that has no history after every
            event, or after the last one only.
    """

    bench: Bench
    test: np.ndarray
    targets: np.ndarray
    judged: int
    every: bool


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
    """The event's name in records."""
    return f"{position:02d} {event.name}"


def follow(
    judges: Judges,
    events: Sequence[Event],
    contestants: Sequence[Contestant],
    advance: Advance,
) -> list[Note]:
    """Every event to every contestant; those that others refer to come first."""
    states = {c.name: c.start() for c in contestants}
    notes: list[Note] = []
    learned = np.zeros(0, np.int64)
    for position, event in enumerate(events):
        name = request_name(position, event)
        learned = np.union1d(learned, classes_within(event.labels))
        view, found = _view(judges, event, learned), {}
        for contestant in contestants:
            state = states[contestant.name]
            mark, digest = len(notes), _digest(state) if event.refused else b""
            before = None
            if event.kind in DELETIONS:
                before = contestant.scores(state, view.features)
            try:
                done = contestant.apply(state, event)
            except RefusedError:
                done = Applied(state, 0.0, 0.0)
                same = digest == _digest(state)
                notes.append(_note(contestant, "refused", 1.0))
                notes.append(_note(contestant, "unharmed", float(same)))
            else:
                if event.refused:
                    notes.append(_note(contestant, "refused", 0.0))
                notes.append(_note(contestant, "seconds", done.seconds, "s"))
                extra = done.compile_seconds
                notes.append(_note(contestant, "compile_seconds", extra, "s"))
            scores = contestant.scores(done.state, view.features)
            weight = contestant.weight(done.state) if contestant.weight else None
            found[contestant.name] = (scores, weight)
            if contestant.name != contestant.reference:
                reference = found[contestant.reference]
                notes += _differences(contestant, scores, weight, reference)
            if not event.refused:
                notes += _accuracies(contestant, scores, view)
                if before is not None:
                    notes += _membership(contestant, before, scores, view)
                notes += _costs(contestant, done.state, event)
                states[contestant.name] = done.state
            last = position == len(events) - 1
            if contestant.name == "ACU" and (judges.every or last):
                same = _free_of_history(judges, done.state, event)
                notes.append(_note(contestant, "bit_identical", float(same)))
            notes[mark:] = [note._replace(request=name) for note in notes[mark:]]
            advance(1)
    return notes


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
        np.concatenate([judges.test, judges.bench.features[rows]]),
        np.concatenate([judges.targets, labels]),
        parts,
        np.flatnonzero(np.isin(judges.targets, said if closed else now)),
    )


def _accuracies(contestant: Contestant, scores: np.ndarray, view: _View) -> list[Note]:
    """Shares of right answers; a class without an output is never answered."""
    found = np.where(np.isnan(scores), _LOWEST, scores)
    notes = []
    for split, part in view.parts.items():
        if len(part):
            share = accuracy(Scores(found[part], view.targets[part]))
            notes.append(_note(contestant, "accuracy", share, "%", split))
    return notes


def _membership(
    contestant: Contestant, before: np.ndarray, after: np.ndarray, view: _View
) -> list[Note]:
    """Can the forgotten rows be told from test examples, before and after?"""
    parts = (view.parts["forget"], view.outside)
    if min(map(len, parts)) < 2:
        return []
    notes = []
    for metric, scores in (("auc_before", before), ("auc", after)):
        # A class without an output has targets of zeros only: its score is 0.
        found = np.nan_to_num(scores, nan=0.0)
        members, others = (Scores(found[part], view.targets[part]) for part in parts)
        split = SplitOutputs(members, members, others, others)
        attack = loss_attack(jax.random.key(0), split)
        notes.append(_note(contestant, f"membership_{metric}", attack.auc))
    return notes


def _differences(
    contestant: Contestant,
    scores: np.ndarray,
    weight: np.ndarray | None,
    reference: tuple[Any, Any],
) -> list[Note]:
    """Largest differences to the reference, relative to its largest entry."""
    exact, exact_weight = reference
    notes = [_note(contestant, "prediction_difference", difference(scores, exact))]
    if weight is not None:
        found = difference(weight, exact_weight)
        notes.append(_note(contestant, "weight_difference", found))
    return notes


def difference(values: np.ndarray, reference: np.ndarray) -> float:
    """Largest |a − b| over largest |b|; infinite where other columns are there."""
    if np.any(np.isnan(values) != np.isnan(reference)):
        return float("inf")
    size = np.nanmax(np.abs(reference))
    return float(np.nanmax(np.abs(values - reference)) / (size if size > 0 else 1))


def _costs(contestant: Contestant, state: Any, event: Event) -> list[Note]:
    rows, stored = contestant.stored(event.labels)
    notes = [
        _note(contestant, "state_bytes", float(contestant.bytes(state)), "bytes"),
        _note(contestant, "stored_bytes", float(stored), "bytes"),
        _note(contestant, "stored_rows", float(rows), "rows"),
    ]
    ridge = getattr(state, "ridge", None)
    for metric in ("residual", "error", "margin", "exact"):
        if hasattr(ridge, metric):
            notes.append(_note(contestant, metric, float(getattr(ridge, metric))))
    return notes


def _free_of_history(judges: Judges, state: Any, event: Event) -> bool:
    """Whether a state equals, bit for bit, one that learned only what is left."""
    rows = np.flatnonzero(event.labels != ABSENT)
    head = acu_head(judges.bench, "gram")
    fresh = head.learn(head.start(), judges.bench.features[rows], event.labels[rows])
    return _digest(fresh) == _digest(state)


def _digest(state: Any) -> bytes:
    """One number of all bits of a state."""
    found = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(state):
        values = np.ascontiguousarray(leaf)
        found.update(repr((values.shape, values.dtype)).encode())
        found.update(values.reshape(-1).view(np.uint8).data)
    return found.digest()


def _note(
    contestant: Contestant, metric: str, value: float, unit: str = "1", split: str = ""
) -> Note:
    return Note(contestant.name, metric, value, unit, split=split)
