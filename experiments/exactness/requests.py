"""Mixed requests, drawn: rows leave, come, come back, are exchanged; whole classes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_FEWEST_CLASSES = 3


class Request(NamedTuple):
    """Value: rows to forget and rows to learn, indices of training rows.

    Attributes:
        kind: A name in ``KINDS``.
        forget: Rows to forget; each is within.
        learn: Rows to learn; none is within.
        within: Which rows are within afterwards.
    """

    kind: str
    forget: np.ndarray
    learn: np.ndarray
    within: np.ndarray


class _Now(NamedTuple):
    """Value: which rows are within, which ever were, and how many may be asked for."""

    targets: np.ndarray
    within: np.ndarray
    ever: np.ndarray
    most: int


def draw_requests(
    targets: np.ndarray, *, requests: int, most: int, seed: int
) -> tuple[np.ndarray, list[Request]]:
    """Draw a stream.

    Args:
        targets: Class of each training row.
        requests: How many.
        most: Most rows of a request; sizes are uniform on a logarithmic scale. A class
            goes and comes back as a whole.
        seed: The same seed gives the same stream.

    Returns:
        Which rows are within at the start (seven of ten), and the requests.

    Raises:
        ValueError: no request, or too few rows for such requests.
    """
    targets = np.asarray(targets)
    n = len(targets)
    if requests < 1 or not 1 <= most <= n // 8:
        raise ValueError(
            f"expected at least 1 request of at most {n // 8} rows (an eighth of the "
            f"data), got {requests} of {most}"
        )
    random = np.random.default_rng(seed)
    start = np.zeros(n, bool)
    start[random.permutation(n)[: (7 * n) // 10]] = True
    now = _Now(targets, start, start.copy(), most)
    names, shares = list(KINDS), np.array([share for share, _ in KINDS.values()])
    drawn: list[Request] = []
    while len(drawn) < requests:
        kind = str(random.choice(names, p=shares / shares.sum()))
        asked = KINDS[kind][1](random, now)
        if asked is None:
            continue
        forget, learn = asked
        within, ever = now.within.copy(), now.ever.copy()
        within[forget] = False
        within[learn] = ever[learn] = True
        drawn.append(Request(kind, forget, learn, within))
        now = now._replace(within=within, ever=ever)
    return start, drawn


_Asked = tuple[np.ndarray, np.ndarray]
_NONE = np.zeros(0, np.int64)


def _some(random: np.random.Generator, now: _Now, mask: np.ndarray) -> np.ndarray:
    """Rows of the mask, at most ``most`` of them."""
    size = round(float(np.exp(random.uniform(0, np.log(now.most)))))
    rows = np.flatnonzero(mask)
    return np.sort(random.permutation(rows)[:size])


def _forget(random: np.random.Generator, now: _Now) -> _Asked | None:
    enough = now.within.sum() > len(now.targets) // 3 + now.most
    return (_some(random, now, now.within), _NONE) if enough else None


def _learn(random: np.random.Generator, now: _Now) -> _Asked | None:
    rows = _some(random, now, ~now.ever)
    return (_NONE, rows) if rows.size else None


def _relearn(random: np.random.Generator, now: _Now) -> _Asked | None:
    rows = _some(random, now, now.ever & ~now.within)
    return (_NONE, rows) if rows.size else None


def _exchange(random: np.random.Generator, now: _Now) -> _Asked | None:
    """As many rows go as come."""
    learn = _some(random, now, ~now.within)
    if not learn.size:
        return None
    return random.permutation(np.flatnonzero(now.within))[: learn.size], learn


def _class(random: np.random.Generator, now: _Now) -> _Asked | None:
    there = np.unique(now.targets[now.within])
    enough = now.within.sum() > len(now.targets) // 2
    if len(there) <= _FEWEST_CLASSES or not enough:
        return None
    own = now.targets == random.choice(there)
    return np.flatnonzero(now.within & own), _NONE


def _class_back(random: np.random.Generator, now: _Now) -> _Asked | None:
    """All forgotten rows of a class of which none, or few, are within."""
    away = now.ever & ~now.within
    counts = np.bincount(now.targets[away], minlength=now.targets.max() + 1)
    left = np.bincount(now.targets[now.within], minlength=now.targets.max() + 1)
    gone = np.flatnonzero((counts > 0) & (left < counts))
    if not gone.size:
        return None
    return _NONE, np.flatnonzero(away & (now.targets == random.choice(gone)))


KINDS: dict[str, tuple[float, Callable[..., _Asked | None]]] = {
    "forget rows": (0.33, _forget),
    "learn rows": (0.12, _learn),
    "relearn rows": (0.25, _relearn),
    "replace rows": (0.20, _exchange),
    "forget a class": (0.04, _class),
    "relearn a class": (0.06, _class_back),
}
"""Kind of request -> how often, and how it is drawn; None where it cannot be asked."""
