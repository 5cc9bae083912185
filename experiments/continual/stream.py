"""A stream of learning phases and deletion requests: which rows are within when."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

ABSENT = -1
LEARN = "learn"
UNKNOWN = "never learned"
_LEAST_CLASSES = 2


class Event(NamedTuple):
    """Value: one entry of the stream: rows to forget, then rows to learn.

    Attributes:
        name: What is asked for, in words.
        kind: "learn", or a name in ``KINDS``.
        forget: Training rows to forget.
        forget_labels: The labels they were learned with.
        learn: Training rows to learn.
        learn_labels: The labels they are learned with; a few are wrong, and corrected
            by a later request of the kind "replace".
        before: Label of each training row before the event; ``ABSENT``: not within.
        labels: The same after it.
        refused: Whether it asks for rows that were never learned; nothing may change.
    """

    name: str
    kind: str
    forget: np.ndarray
    forget_labels: np.ndarray
    learn: np.ndarray
    learn_labels: np.ndarray
    before: np.ndarray
    labels: np.ndarray
    refused: bool = False


class _Now(NamedTuple):
    """Value: where the stream stands while it is drawn."""

    targets: np.ndarray
    labels: np.ndarray
    gone: np.ndarray
    users: np.ndarray
    unused: np.ndarray
    tasks: list[np.ndarray]
    rows: int


class _Asked(NamedTuple):
    """Value: a request before it has its place in the stream."""

    name: str
    forget: np.ndarray
    learn: np.ndarray
    learn_labels: np.ndarray


def tasks_of(classes: int, phases: int) -> list[np.ndarray]:
    """The classes of each task: the first half is the base, phases share the rest.

    Raises:
        ValueError: fewer than four classes, or phases without a class.
    """
    base = classes // 2
    if classes < 4:
        raise ValueError(
            f"a stream needs at least 4 classes (two for the backbone, two to come), "
            f"the data have {classes}"
        )
    if not 1 <= phases <= classes - base:
        raise ValueError(
            f"phases is {phases}; {classes - base} classes come after the base, so "
            f"expected 1 to {classes - base}"
        )
    later = np.array_split(np.arange(base, classes), phases)
    return [np.arange(base), *later]


def draw_stream(
    targets: np.ndarray,
    tasks: Sequence[np.ndarray],
    *,
    rounds: int,
    rows: int,
    users: int,
    seed: int,
) -> list[Event]:
    """Draw a stream: each phase learns a task, requests of all kinds come in between.

    Args:
        targets: Class of each training row.
        tasks: From :func:`tasks_of`.
        rounds: How often each kind of request comes; one that cannot be asked (no
            class left to forget, nothing to learn again) is left out.
        rows: Rows of a request for single rows. As many rows are never learned.
        users: Every row belongs to one of so many users.
        seed: The same seed gives the same stream.

    Raises:
        ValueError: counts below 1, or too few rows for them.
    """
    targets = np.asarray(targets)
    fewest = int(np.bincount(targets, minlength=len(np.concatenate(tasks))).min())
    if min(rounds, users) < 1 or not 2 <= rows <= fewest // 2:
        raise ValueError(
            f"expected at least 1 round and 1 user, and 2 to {fewest // 2} rows (half "
            f"of the rarest class), got {rounds}, {users} and {rows}"
        )
    random = np.random.default_rng(seed)
    n = len(targets)
    now = _Now(
        targets,
        np.full(n, ABSENT),
        np.zeros(n, bool),
        random.integers(users, size=n),
        np.sort(random.permutation(n)[:rows]),
        [],
        rows,
    )
    waiting = [str(kind) for kind in random.permutation(list(KINDS) * rounds)]
    events: list[Event] = []
    for phase, classes in enumerate(tasks):
        event = _phase(random, now, phase, classes)
        events.append(event)
        now = _after(now, event)._replace(tasks=[*now.tasks, classes])
        left = len(tasks) - phase
        share, postponed = -(-len(waiting) // left), []
        for kind in waiting:
            asked = KINDS[kind](random, now) if share else None
            if asked is None:
                postponed.append(kind)
                continue
            event = _event(now, kind, asked)
            events.append(event)
            now = _after(now, event)
            share -= 1
        waiting = postponed
    return events


def span(classes: np.ndarray) -> str:
    """The first and the last class, in words."""
    ends = dict.fromkeys((int(classes[0]), int(classes[-1])))
    return "\N{EN DASH}".join(map(str, ends))


def classes_within(labels: np.ndarray) -> np.ndarray:
    """The classes that have a row, ascending."""
    return np.unique(labels[labels != ABSENT])


def _phase(
    random: np.random.Generator, now: _Now, phase: int, classes: np.ndarray
) -> Event:
    """Learn a task; up to a tenth of its rows come with a wrong label."""
    fresh = np.isin(now.targets, classes)
    fresh[now.unused] = False
    learn = np.flatnonzero(fresh)
    labels = now.targets[learn].copy()
    known = np.union1d(classes_within(now.labels), classes)
    wrong = random.permutation(len(learn))[: min(now.rows, len(learn) // 10)]
    other = random.integers(1, len(known), size=len(wrong))
    place = np.searchsorted(known, labels[wrong])
    labels[wrong] = known[(place + other) % len(known)]
    name = f"learn {'' if phase else 'base '}{span(classes)}"
    return _event(now, LEARN, _Asked(name, _NONE, learn, labels))


def _rows(random: np.random.Generator, now: _Now) -> _Asked | None:
    within = np.flatnonzero(now.labels != ABSENT)
    chosen = np.sort(random.choice(within, min(now.rows, len(within) // 2), False))
    return _forget(f"forget {len(chosen)} rows", chosen)


def _user(random: np.random.Generator, now: _Now) -> _Asked | None:
    within = now.labels != ABSENT
    counts = np.bincount(now.users[within])
    large = np.flatnonzero((counts >= 2) & (counts < within.sum() / 2))
    if not large.size:
        return None
    user = random.choice(large)
    return _forget(f"forget user {user}", np.flatnonzero(within & (now.users == user)))


def _class(random: np.random.Generator, now: _Now) -> _Asked | None:
    within = classes_within(now.labels)
    base = np.intersect1d(within, now.tasks[0])
    if len(within) <= _LEAST_CLASSES or len(base) < 2:
        return None
    label = random.choice(base)
    return _forget(f"forget class {label}", np.flatnonzero(now.labels == label))


def _task(random: np.random.Generator, now: _Now) -> _Asked | None:
    within = classes_within(now.labels)
    there = [
        place
        for place, classes in enumerate(now.tasks)
        if place
        and np.isin(classes, within).any()
        and (~np.isin(within, classes)).sum() >= _LEAST_CLASSES
    ]
    if not there:
        return None
    place = random.choice(there)
    rows = np.isin(now.labels, now.tasks[place])
    return _forget(f"forget task {place}", np.flatnonzero(rows))


def _relearn(random: np.random.Generator, now: _Now) -> _Asked | None:
    """Rows that were forgotten, of classes that are still within."""
    back = now.gone & np.isin(now.targets, classes_within(now.labels))
    chosen = np.flatnonzero(back)
    if not chosen.size:
        return None
    chosen = np.sort(random.permutation(chosen)[: now.rows])
    name = f"relearn {len(chosen)} rows"
    return _Asked(name, _NONE, chosen, now.targets[chosen])


def _replace(random: np.random.Generator, now: _Now) -> _Asked | None:
    """Correct wrong labels, where the right class is within."""
    del random
    wrong = (now.labels != ABSENT) & (now.labels != now.targets)
    wrong &= np.isin(now.targets, classes_within(now.labels))
    chosen = np.flatnonzero(wrong)[: now.rows]
    if not chosen.size:
        return None
    name = f"replace {len(chosen)} labels"
    return _Asked(name, chosen, chosen, now.targets[chosen])


def _unknown(random: np.random.Generator, now: _Now) -> _Asked | None:
    """Rows never learned, hidden among rows that were: all or nothing."""
    within = np.flatnonzero(now.labels != ABSENT)
    strange = now.unused[: max(1, len(now.unused) // 2)]
    known = random.choice(within, len(strange), False)
    chosen = np.sort(np.concatenate([known, strange]))
    return _forget(f"{len(strange)} rows never learned", chosen)


_NONE = np.zeros(0, np.int64)

KINDS: dict[str, Callable[[np.random.Generator, _Now], _Asked | None]] = {
    "rows": _rows,
    "user": _user,
    "class": _class,
    "task": _task,
    "relearn": _relearn,
    "replace": _replace,
    UNKNOWN: _unknown,
}
"""Kind of request -> how it is drawn; None where it cannot be asked now."""


def _forget(name: str, rows: np.ndarray) -> _Asked:
    return _Asked(name, rows, _NONE, _NONE)


def _event(now: _Now, kind: str, asked: _Asked) -> Event:
    refused = kind == UNKNOWN
    labels = now.labels.copy()
    if not refused:
        labels[asked.forget] = ABSENT
        labels[asked.learn] = asked.learn_labels
    known = now.labels[asked.forget]
    said = np.where(known == ABSENT, now.targets[asked.forget], known)
    return Event(
        asked.name,
        kind,
        asked.forget,
        said,
        asked.learn,
        asked.learn_labels,
        now.labels,
        labels,
        refused,
    )


def _after(now: _Now, event: Event) -> Any:
    gone = now.gone | ((event.before != ABSENT) & (event.labels == ABSENT))
    return now._replace(labels=event.labels, gone=gone & (event.labels == ABSENT))
