"""Who takes part in a stream, and the heads by least squares among them."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg

from experiments.continual.stream import ABSENT, LEARN, Event
from unlearn_jax.methods.analytic import Analytic, AnalyticState, analytic
from unlearn_jax.models.random_features import directions, expand, random_kernel
from unlearn_jax.solvers.refusal import RefusedError
from unlearn_jax.types import Array, PRNGKey

SCRATCH = "ridge from scratch"
SECRET = b"experiments.continual"
"""Key of the ledgers: what is measured here is public."""
_BLOCK = 2048


class Frozen(NamedTuple):
    """Description: what every head works with: frozen features and the ridge.

    Attributes:
        features: Of all training rows, (n, d), float32.
        classes: All that the stream will ever hold.
        key: Draws the random features.
        width: Random features M.
        l2: The ridge.
    """

    features: np.ndarray
    classes: int
    key: PRNGKey
    width: int
    l2: float


class Applied(NamedTuple):
    """Value: a state after an event and what the event cost.

    Attributes:
        state: The new state.
        seconds: Warm, with every program compiled before; of a learning phase, which
            is long, maybe with compilation.
        compile_seconds: What the first call took beyond it.
    """

    state: Any
    seconds: float
    compile_seconds: float


class Contestant(NamedTuple):
    """Description: a head that learns and forgets.

    Attributes:
        name: As tables name it.
        reference: Name of the head that it should be equal to, its exact oracle.
        start: ``() -> state``.
        apply: ``(state, event) -> Applied``; raises RefusedError for rows that it knows
            were never learned.
        scores: ``(state, features) -> (n, classes)``, NaN where it has no output.
        weight: ``state -> (f, classes)``, NaN likewise; None: not comparable.
        bytes: ``state -> bytes`` of all that is kept, without stored data.
        stored: ``labels -> (rows, bytes)`` of training data that must be kept.
    """

    name: str
    reference: str
    start: Callable[[], Any]
    apply: Callable[[Any, Event], Applied]
    scores: Callable[[Any, np.ndarray], np.ndarray]
    weight: Callable[[Any], np.ndarray] | None
    bytes: Callable[[Any], int]
    stored: Callable[[np.ndarray], tuple[int, int]]


class Sums(NamedTuple):
    """Value: a ridge regression in numpy, without ledger or refinement."""

    weight: np.ndarray
    gram: np.ndarray
    moment: np.ndarray
    counts: np.ndarray


def acu(frozen: Frozen, form: str) -> Contestant:
    """Analytic continual unlearning; keeps sums, and no row."""
    head = acu_head(frozen, form)
    every = frozen.classes

    def step(state: AnalyticState, event: Event) -> AnalyticState:
        if event.forget.size:
            rows = frozen.features[event.forget]
            state = head.forget(state, rows, event.forget_labels)
        if event.learn.size:
            rows = frozen.features[event.learn]
            state = head.learn(state, rows, event.learn_labels)
        return jax.block_until_ready(state)

    def scores(state: AnalyticState, features: np.ndarray) -> np.ndarray:
        return _spread(head.predict(state, features), state.labels, every)

    def weight(state: AnalyticState) -> np.ndarray:
        return _spread(state.ridge.weight, state.labels, every)

    return Contestant(
        "ACU" if form == "gram" else f"ACU, {form}",
        SCRATCH,
        head.start,
        lambda state, event: _twice(step, state, event),
        scores,
        weight,
        kept_bytes,
        lambda labels: (0, 0),
    )


def acu_head(frozen: Frozen, form: str) -> Analytic:
    """The head that :func:`acu` lets take part.

    Raises:
        ValueError: width or ridge out of range.
    """
    return analytic(
        lambda rows: rows,
        frozen.features.shape[1],
        key=frozen.key,
        secret=SECRET,
        width=frozen.width,
        l2=frozen.l2,
        form=form,
    )


def scratch(frozen: Frozen) -> Contestant:
    """The oracle: ridge regression on what is left, solved anew from stored rows."""

    def step(sums: Sums, event: Event) -> Sums:
        check_stored(event)
        rows = np.flatnonzero(event.labels != ABSENT)
        return solved(
            _added(frozen, _empty(frozen), rows, event.labels[rows], 1), frozen
        )

    def stored(labels: np.ndarray) -> tuple[int, int]:
        return stored_rows(frozen, labels)

    return _numpy_head(SCRATCH, frozen, step, lambda sums: sums.weight.nbytes, stored)


def naive(frozen: Frozen) -> Contestant:
    """Sums G and Q, changed by the rows of a request, and G + l2 inverted anew.

    It knows no rows, so it cannot refuse any.
    """

    def step(sums: Sums, event: Event) -> Sums:
        sums = _added(frozen, sums, event.forget, event.forget_labels, -1)
        sums = _added(frozen, sums, event.learn, event.learn_labels, 1)
        inverse = np.linalg.inv(sums.gram + frozen.l2 * np.eye(frozen.width))
        return sums._replace(weight=inverse @ sums.moment)

    name = "inverse recomputed"
    return _numpy_head(name, frozen, step, kept_bytes, lambda labels: (0, 0))


def check_stored(event: Event) -> None:
    """What a head that stores its rows knows.

    Raises:
        RefusedError: a row to forget is not among them.
    """
    if np.any(event.before[event.forget] == ABSENT):
        raise RefusedError("refused: a row to forget is not stored")


def stored_rows(frozen: Frozen, labels: np.ndarray) -> tuple[int, int]:
    """Rows within, and bytes of their features and labels."""
    rows = int(np.sum(labels != ABSENT))
    return rows, rows * (frozen.features[0].nbytes + 4)


def kept_bytes(state: Any) -> int:
    """Bytes of all arrays of a state."""
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(state))


def solved(sums: Sums, frozen: Frozen) -> Sums:
    """The weights of the sums, by one Cholesky factor."""
    matrix = sums.gram + frozen.l2 * np.eye(frozen.width)
    factor = scipy.linalg.cho_factor(matrix, lower=True, overwrite_a=True)
    return sums._replace(weight=scipy.linalg.cho_solve(factor, sums.moment))


def _numpy_head(
    name: str,
    frozen: Frozen,
    step: Callable[[Sums, Event], Sums],
    kept: Callable[[Sums], int],
    stored: Callable[[np.ndarray], tuple[int, int]],
) -> Contestant:
    kernel = _kernel(frozen)

    def apply(sums: Sums, event: Event) -> Applied:
        start = time.perf_counter()
        after = step(sums, event)
        return Applied(after, time.perf_counter() - start, 0.0)

    def weight(sums: Sums) -> np.ndarray:
        return np.where(sums.counts > 0, sums.weight, np.nan)

    def scores(sums: Sums, features: np.ndarray) -> np.ndarray:
        found = [
            _block(features[first : first + _BLOCK], kernel) @ sums.weight
            for first in range(0, len(features), _BLOCK)
        ]
        return np.where(sums.counts > 0, np.concatenate(found), np.nan)

    _block(frozen.features[:1], kernel)  # compiled now, so that no event pays for it
    return Contestant(
        name,
        SCRATCH,
        lambda: _empty(frozen),
        apply,
        scores,
        weight,
        lambda sums: kept(sums) + kernel.nbytes,
        stored,
    )


def _empty(frozen: Frozen) -> Sums:
    f, k = frozen.width, frozen.classes
    return Sums(np.zeros((f, k)), np.zeros((f, f)), np.zeros((f, k)), np.zeros(k, int))


def _added(
    frozen: Frozen, sums: Sums, rows: np.ndarray, labels: np.ndarray, sign: int
) -> Sums:
    kernel = _kernel(frozen)
    gram, moment, counts = sums.gram.copy(), sums.moment.copy(), sums.counts.copy()
    eye = np.eye(frozen.classes)
    for first in range(0, len(rows), _BLOCK):
        part = slice(first, first + _BLOCK)
        x = _block(frozen.features[rows[part]], kernel)
        gram += sign * (x.T @ x)
        moment += sign * (x.T @ eye[labels[part]])
    counts += sign * np.bincount(labels, minlength=frozen.classes)
    return sums._replace(gram=gram, moment=moment, counts=counts)


def _kernel(frozen: Frozen) -> Array:
    return random_kernel(frozen.key, frozen.features.shape[1], frozen.width)


_expand = jax.jit(expand)


def _block(features: np.ndarray, kernel: Array) -> np.ndarray:
    """Random features of at most ``_BLOCK`` rows, by one program."""
    missing = _BLOCK - len(features)
    padded = np.pad(np.asarray(directions(features)), ((0, missing), (0, 0)))
    return np.asarray(_expand(padded, kernel))[: len(features)]


def _spread(values: Any, labels: np.ndarray, classes: int) -> np.ndarray:
    """Columns to the places of their labels; NaN elsewhere."""
    values = np.asarray(values)
    full = np.full((len(values), classes), np.nan)
    full[:, labels] = values
    return full


def _twice(step: Callable[[Any, Event], Any], state: Any, event: Event) -> Applied:
    """A pure step, timed again once its programs are compiled; a phase only once."""
    begin = time.perf_counter()
    after = step(state, event)
    middle = time.perf_counter()
    if event.kind == LEARN:
        return Applied(after, middle - begin, 0.0)
    after = step(state, event)
    warm = time.perf_counter() - middle
    return Applied(after, warm, max(middle - begin - warm, 0.0))
