"""Analytic continual unlearning (ACU): a least-squares head that learns and forgets.

A frozen backbone, random ReLU features, ridge regression on one-hot labels or numbers.
What is kept is sums over rows; no row. Not in ``METHODS``, whose entries return a
model's own parameters: this one has a head of its own.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from unlearn_jax.data.batch import bucket
from unlearn_jax.methods.ledger import (
    Ledger,
    empty_ledger,
    fingerprint,
    ledger_add,
    ledger_remove,
)
from unlearn_jax.models.random_features import directions, expand, random_kernel
from unlearn_jax.solvers.refusal import RefusedError, check_applied
from unlearn_jax.solvers.ridge import add_class, remove_class, ridge_form
from unlearn_jax.solvers.ridge_gram import gram_add, gram_solve
from unlearn_jax.types import Array, Batch, PRNGKey

_CHUNK, _LEAST = 2048, 32
"""Rows of a request go in pieces of 32 to 2,048, so that few programs serve all."""


class AnalyticState(NamedTuple):
    """Value: all that is kept of what was learnt.

    Attributes:
        kernel: B of the random features; depends on no data.
        ridge: ``GramRidge``, ``Ridge`` or ``KeptRidge``; a column of weights per label.
        labels: Class of each column, ascending; 0, 1, … for regression.
        counts: Rows within, for each column (regression: all rows, in each).
        ledger: Which rows are within.
    """

    kernel: Float[Array, "d f"]
    ridge: Any
    labels: Int[np.ndarray, " k"]
    counts: Int[np.ndarray, " k"]
    ledger: Ledger


class Analytic(NamedTuple):
    """Description: a head that learns and forgets, one request after another.

    Attributes:
        start: ``() -> state``: nothing learnt.
        learn: ``(state, inputs, targets, weights=None) -> state``.
        forget: ``(state, inputs, targets, weights=None) -> state``; needs just the rows
            to forget, as they were learnt.
        predict: ``(state, inputs) -> (n, k)`` in the order of ``state.labels``.
        check: ``(inputs, targets, weights=None)``: raises what ``learn`` and ``forget``
            raise for shapes, dtypes and numbers that are no rows, whatever was learnt;
            it computes no features.
    """

    start: Callable[[], AnalyticState]
    learn: Callable[..., AnalyticState]
    forget: Callable[..., AnalyticState]
    predict: Callable[[AnalyticState, Any], Any]
    check: Callable[..., None]


def analytic(
    features: Callable[[Any], Any],
    d: int,
    *,
    key: PRNGKey,
    secret: bytes,
    width: int = 8192,
    l2: float = 0.1,
    form: str = "gram",
    outputs: int | None = None,
) -> Analytic:
    """Analytic continual unlearning on frozen features.

    Learning and forgetting take any mixture of rows: single examples, classes (old and
    new ones in one request), tasks, users. A label never seen opens a column; one whose
    last row is forgotten closes it. In the Gram form the state after forgetting equals,
    bit for bit, the state that never saw those rows (``ridge.exact`` says so).

    Args:
        features: From inputs to (n, d): a frozen backbone, for example
            :func:`frozen_features`. It must give a row the same numbers in any batch:
            else the ledger does not know the row, and refuses.
        d: Features.
        key: Draws the random features.
        secret: Key of the ledger, 16 to 64 bytes; keep it apart from the state.
        width: Random features M.
        l2: Ridge, a coefficient of ‖W‖² beside the *sum* over rows (γ of the papers).
        form: "gram", "inverse" or "kept", see ``solvers.ridge``; which is faster for
            which sizes, see ``solvers.ridge_choice``.
        outputs: Columns of a regression target; None: classification.

    Returns:
        Analytic. ``learn`` and ``forget`` raise RefusedError, the state unharmed, for
        rows that are NaN, that were never learnt (with this target and weight), or that
        come more often than they were learnt; ValueError for wrong shapes.

    Raises:
        ValueError: an unknown form, no features, a width outside 1 to 16,384, a ridge
            that is not positive, or 64-bit mode off.

    Cost: n rows, n M² and M³/3 (Gram), or 3 n M² (inverse). Memory: two matrices M × M
        (Gram), one (inverse) or three (kept), and up to nine more while a request runs;
        20 bytes a row in the ledger.
    Source: Tang et al. 2025, arXiv 2505.12239, on Zhuang et al. 2022 (ACIL), arXiv
        2205.14922. Differs: rows on a grid, sums beside the inverse, the ledger, unit
        features; a class's rows can be forgotten in parts.
    """
    chosen = ridge_form(form)
    if outputs is not None and outputs < 1:
        raise ValueError(f"outputs is {outputs}, expected at least 1, or None")
    fingerprint(secret, np.zeros((0, 1)), np.zeros(0))  # refuses a short key now
    kernel = random_kernel(key, d, width)
    empty = chosen.start(width, outputs or 0, l2=l2)

    def start() -> AnalyticState:
        columns = np.arange(outputs or 0)
        return AnalyticState(
            kernel, empty, columns, np.zeros_like(columns), empty_ledger()
        )

    def check(inputs: Any, targets: Any, weights: Any = None) -> None:
        _check_rows(len(inputs), np.asarray(targets), weights, outputs)

    def prepare(inputs: Any, targets: Any, weights: Any) -> _Rows:
        check(inputs, targets, weights)
        given = np.asarray(targets)
        n = len(given)
        unit = directions(features(inputs))
        if unit.shape != (n, d):
            raise ValueError(f"expected features ({n}, {d}), got {unit.shape}")
        w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
        try:
            prints = fingerprint(secret, unit, given, w)
        except ValueError as error:
            raise RefusedError(f"refused, the state is unharmed: {error}") from None
        there = w > 0
        return _Rows(unit[there], given[there], w[there], prints)

    def learn(
        state: AnalyticState, inputs: Any, targets: Any, weights: Any = None
    ) -> AnalyticState:
        rows = prepare(inputs, targets, weights)
        ledger = ledger_add(state.ledger, rows.prints)
        if outputs is None:
            state = _open_columns(state, np.unique(rows.targets))
        state = _apply(state, rows, "add", form, outputs)
        return state._replace(ledger=ledger)

    def forget(
        state: AnalyticState, inputs: Any, targets: Any, weights: Any = None
    ) -> AnalyticState:
        rows = prepare(inputs, targets, weights)
        ledger = ledger_remove(state.ledger, rows.prints)
        state = _apply(state, rows, "remove", form, outputs)
        return state._replace(ledger=ledger)

    @jax.jit
    def scores(kernel: Array, weight: Array, unit: Array) -> Array:
        return expand(unit, kernel) @ weight

    def predict(state: AnalyticState, inputs: Any) -> Array:
        return scores(state.kernel, state.ridge.weight, directions(features(inputs)))

    return Analytic(start, learn, forget, predict, check)


def frozen_features(
    model: Any, variables: Any, *, batch_size: int = 256
) -> Callable[[Any], np.ndarray]:
    """A model's features in batches of one shape: a row's numbers stay the same.

    Args:
        model: Model with ``features``.
        variables: Trained, from now on frozen.
        batch_size: Examples per call; the last batch is filled up.

    Returns:
        Function from inputs (n, …) to (n, d) in numpy.
    """
    one = jax.jit(model.features)

    def features(inputs: Any) -> np.ndarray:
        inputs = np.asarray(inputs)
        parts = []
        for first in range(0, len(inputs), batch_size):
            part = inputs[first : first + batch_size]
            missing = batch_size - len(part)
            full = np.concatenate([part, np.repeat(part[:1], missing, axis=0)])
            found = np.asarray(one(variables, full))
            parts.append(found.reshape(batch_size, -1)[: len(part)])
        return np.concatenate(parts)

    return features


def fit_heads(
    kernels: Float[Array, "m d f"],
    unit: Float[Array | np.ndarray, "n d"],
    targets: Float[Array | np.ndarray, "n k"],
    masks: Float[Array | np.ndarray, "m n"],
    *,
    l2: float,
    slices: int = 3,
) -> Any:
    """Many heads at once: seeds of the random features, subsets of the rows.

    Args:
        kernels: From ``random_kernel``, one a head.
        unit: From ``directions``.
        targets: One column per class or number.
        masks: Weight of each row in each head; an oracle has 0 on its forget set.
        l2: Ridge.
        slices: See ``gram_add``: 1 suffices in float64 for masks of 0 and 1.

    Returns:
        A stack of ``GramRidge``, each head's weight in ``weight[i]``; all forget
        together through ``jax.vmap(gram_remove)``.

    Cost: m times one fit, in one program; memory m (5 f² + n f).
    """
    f, k = kernels.shape[-1], targets.shape[-1]

    def fit(kernel: Array, mask: Array) -> Any:
        start = ridge_form("gram").start(f, k, l2=l2, dtype=kernel.dtype)
        rows = expand(unit, kernel)
        return gram_add(start, Batch(rows, targets, mask), slices=slices)

    return jax.vmap(fit)(kernels, jnp.asarray(masks))


class _Rows(NamedTuple):
    """Value: the rows of one request, checked."""

    unit: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    prints: np.ndarray
    """Of all rows asked for, absent ones too: positions are those of the request."""


def _check_rows(n: int, targets: np.ndarray, weights: Any, outputs: int | None) -> None:
    """Refuse targets and weights that are none of n rows.

    Raises:
        ValueError: their shapes or dtypes.
        RefusedError: numbers that are NaN, infinite or, of weights, negative.
    """
    if n < 1 or targets.ndim < 1 or len(targets) != n:
        raise ValueError(
            f"expected at least one row and a target for each, got {n} inputs and "
            f"{len(targets) if targets.ndim else 'no list of'} targets"
        )
    if outputs is None and not (targets.ndim == 1 and targets.dtype.kind in "iu"):
        raise ValueError(
            f"expected integer labels (n,), got {targets.dtype}{list(targets.shape)}; "
            f"for regression say outputs="
        )
    if outputs is not None and targets.shape != (n, outputs):
        raise ValueError(f"expected targets ({n}, {outputs}), got {targets.shape}")
    given = {"targets": targets}
    there = np.ones(n, bool)
    if weights is not None:
        given["weights"] = np.asarray(weights)
        if given["weights"].shape != (n,):
            raise ValueError(
                f"expected weights ({n},), one for each row, got "
                f"{list(given['weights'].shape)}"
            )
    for name, array in given.items():
        if not (jnp.issubdtype(array.dtype, jnp.floating) or array.dtype.kind in "biu"):
            raise ValueError(f"expected real numbers as {name}, got {array.dtype}")
    if weights is not None:
        bad = ~(np.isfinite(given["weights"]) & (given["weights"] >= 0))
        if np.any(bad):
            place = int(np.argmax(bad))
            raise RefusedError(
                f"refused, the state is unharmed: expected finite weights of 0 or "
                f"more, got {given['weights'][place]} in row {place}"
            )
        there = given["weights"] > 0
    bad = ~np.isfinite(targets.reshape(n, -1)).all(1) & there
    if np.any(bad):
        raise RefusedError(
            "refused, the state is unharmed: NaN or infinity in the target of row "
            f"{int(np.argmax(bad))}; clean the row, or give it weight 0"
        )


def _open_columns(state: AnalyticState, labels: np.ndarray) -> AnalyticState:
    for label in np.setdiff1d(labels, state.labels):
        place = int(np.searchsorted(state.labels, label))
        state = state._replace(
            ridge=add_class(state.ridge, place),
            labels=np.insert(state.labels, place, label),
            counts=np.insert(state.counts, place, 0),
        )
    return state


def _close_columns(state: AnalyticState) -> AnalyticState:
    for place in np.flatnonzero(state.counts == 0)[::-1]:
        state = state._replace(
            ridge=remove_class(state.ridge, int(place)),
            labels=np.delete(state.labels, place),
            counts=np.delete(state.counts, place),
        )
    return state


def _apply(
    state: AnalyticState, rows: _Rows, change: str, form: str, outputs: int | None
) -> AnalyticState:
    sign = 1 if change == "add" else -1
    whole = bool(np.all(rows.weights == 1))
    step = _step(change, form, 1 if whole else 3)
    ridge = state.ridge
    for first in range(0, len(rows.weights), _CHUNK):
        part = slice(first, first + _CHUNK)
        chunk = _padded(rows, part, state.labels if outputs is None else None)
        ridge = check_applied(step(state.kernel, ridge, *chunk))
    if outputs is None:
        where = np.searchsorted(state.labels, rows.targets)
        moved = np.bincount(where, minlength=len(state.labels))
    else:
        moved = len(rows.weights)
    state = state._replace(ridge=ridge, counts=state.counts + sign * moved)
    if outputs is None:
        state = _close_columns(state)
    if form != "gram":
        return state
    if not len(state.labels):
        zero = jnp.zeros_like(ridge.error)
        return state._replace(ridge=state.ridge._replace(residual=zero, error=zero))
    # Last of all, so that the solve sees what a fresh state would.
    return state._replace(ridge=check_applied(_solve(state.ridge)))


def _padded(
    rows: _Rows, part: slice, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    unit, targets, weights = rows.unit[part], rows.targets[part], rows.weights[part]
    if labels is not None:
        targets = (targets[:, None] == labels[None]).astype(np.float64)
    extra = max(bucket(len(weights)), _LEAST) - len(weights)
    return (
        np.pad(unit, ((0, extra), (0, 0))),
        np.pad(targets.astype(np.float64), ((0, extra), (0, 0))),
        np.pad(weights, (0, extra)),
    )


_solve = jax.jit(gram_solve)


@functools.cache
def _step(change: str, form: str, slices: int) -> Callable[..., Any]:
    """The compiled update; one of each kind in a process."""
    update = getattr(ridge_form(form), change)
    if form != "inverse":
        update = functools.partial(update, slices=slices)
    if form == "gram":
        update = functools.partial(update, solve=False)

    def step(
        kernel: Array, ridge: Any, unit: Array, targets: Array, weights: Array
    ) -> Any:
        return update(ridge, Batch(expand(unit, kernel), targets, weights))

    return jax.jit(step)
