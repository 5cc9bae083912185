"""A least-squares head behind a service: it learns and forgets, come what may.

Every request is in the log before it is applied, and its residual after::

    key, noise = jax.random.key(0), np.random.default_rng(0).random((1, 28, 28))
    mine = analytic_requests(features, 512, key=key, secret=secret, probe=noise)
    options = {"snapshot_after": ERASING}
    with open_service("head", mine.start, mine.apply, **options) as service:
        service.submit("batch-1", "learn", {"inputs": x, "targets": y})
        service.submit("user-7", "forget", {"inputs": x[:3], "targets": y[:3]})
        scores = mine.head.predict(service.state.learnt, queries)
    print(audit("head").to_markdown())
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt64

from unlearn_jax.methods.analytic import Analytic, AnalyticState, analytic
from unlearn_jax.methods.ledger import fingerprint
from unlearn_jax.models.random_features import directions
from unlearn_jax.types import Inputs, PRNGKey

ERASING = ("forget", "replace")
"""Kinds after which no rows and no older state may stay: ``snapshot_after``.

The keyed digest of the rows stays in the log, see :func:`open_service`.
"""

_NEW = "new_"
_ROWS = ("inputs", "targets", "weights")
_CHANGES = {
    "learn": [("rows", "learn", "")],
    "forget": [("rows", "forget", "")],
    "replace": [("rows", "forget", ""), ("new_rows", "learn", _NEW)],
}
"""Changes of a kind: name of the figure, what to do, prefix of the names."""
_MEASURED = ("residual", "error", "exact", "margin", "drift", "repairs")


class DurableState(NamedTuple):
    """Value: what the service keeps.

    Attributes:
        learnt: All that the head knows.
        mark: Keyed fingerprints of the probe's features: those of another secret or
            another backbone differ.
    """

    learnt: AnalyticState
    mark: UInt64[np.ndarray, "n 2"]


class AnalyticRequests(NamedTuple):
    """Description: a head and what ``open_service`` needs of it.

    Attributes:
        head: Predicts: ``head.predict(service.state.learnt, inputs)``.
        start: State before the first request.
        apply: ``(state, kind, arrays) -> (state, figures)``, which can check.
    """

    head: Analytic
    start: DurableState
    apply: "HeadApply"


class HeadApply:
    """What requests do to a head, and which arrays are requests at all."""

    def __init__(self, head: Analytic, probe: np.ndarray):
        self._head, self._probe = head, probe

    def __call__(
        self, state: DurableState, kind: str, arrays: dict[str, np.ndarray]
    ) -> tuple[DurableState, Mapping[str, float]]:
        """The state after the request, and its figures.

        Raises:
            ValueError: the head refuses it, or it is no request.
        """
        self.check(kind, arrays)
        learnt, rows = state.learnt, {}
        for name, change, prefix in _CHANGES[kind]:
            request = [arrays.get(prefix + word) for word in _ROWS]
            step = self._head.learn if change == "learn" else self._head.forget
            learnt = step(learnt, *request)
            weights = request[2]
            there = len(arrays[prefix + "targets"])
            rows[name] = float(there if weights is None else np.sum(weights > 0))
        return state._replace(learnt=learnt), rows | _figures(learnt)

    def check(self, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse what no state could apply: kind, names, shapes, dtypes, NaN.

        Raises:
            ValueError: says what was given and what was expected.
        """
        for prefix in _prefixes(kind, arrays):
            inputs = arrays[prefix + "inputs"]
            _check_inputs(prefix, inputs, self._probe)
            targets, weights = (
                arrays[prefix + "targets"],
                arrays.get(prefix + "weights"),
            )
            try:
                self._head.check(inputs, targets, weights)
            except ValueError as error:
                raise type(error)(
                    f"{prefix}rows: {error}" if prefix else error
                ) from None
            _check_finite(prefix, inputs, weights)


def analytic_requests(
    features: Callable[[Any], Any],
    d: int,
    *,
    key: PRNGKey,
    secret: bytes,
    probe: Inputs,
    **settings: Any,
) -> AnalyticRequests:
    """Requests of a head for analytic continual unlearning.

    Kinds and their arrays: ``learn`` and ``forget`` take ``inputs``, ``targets`` and,
    where they are not 1, ``weights``; ``replace`` takes these for the rows to forget
    and ``new_inputs``, ``new_targets`` (``new_weights``) for those in their place,
    both or neither. Where kind, names, shapes or dtypes do not fit, or a number is NaN,
    ``submit`` raises before anything is written. A request is refused, with its reason
    in the log and the state as it was, where the head refuses it (rows that were never
    learnt).

    The start state holds all that decides a result: kernel, ridge and form, and by the
    mark the secret and the backbone. ``open_service`` refuses a folder that began with
    others, so that no request is replayed on another head.

    Figures in the log: ``rows`` (and ``new_rows``), ``count`` (weight within),
    ``columns`` (classes or outputs); and what the ridge's form has of
    ``residual``, ``error``, ``exact`` (1 or 0), ``margin``, ``drift``, ``repairs``.

    Args:
        features: As for :func:`analytic`: the same numbers for a row in any batch and
            in any process.
        d: Features.
        key: Draws the random features.
        secret: Key of the ledger; never in the folder.
        probe: A few fixed inputs (n, …) that are no person's data, such as noise of a
            fixed seed; rows must have their shape and dtype.
        **settings: As for :func:`analytic`: width, l2, form, outputs.

    Raises:
        ValueError: as :func:`analytic`; or the backbone makes NaN of the probe.

    Cost: of a request, what the head takes; ``replace`` takes two. A snapshot writes
        the state: 2 M² + M d numbers in the Gram form.
    Source: own.
    """
    head = analytic(features, d, key=key, secret=secret, **settings)
    probe = np.asarray(probe)
    mark = fingerprint(secret, directions(features(probe)), np.arange(len(probe)))

    return AnalyticRequests(
        head, DurableState(head.start(), mark), HeadApply(head, probe)
    )


def _prefixes(kind: str, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Prefixes of the rows that a request has: of its names none lacks, none is more.

    Raises:
        ValueError: it cannot be read.
    """
    if kind not in _CHANGES:
        raise ValueError(f"kind is {kind!r}; choose from {', '.join(_CHANGES)}")
    prefixes = [prefix for _, _, prefix in _CHANGES[kind]]
    needed = {prefix + name for prefix in prefixes for name in _ROWS[:2]}
    allowed = needed | {f"{prefix}weights" for prefix in prefixes}
    if not needed <= set(arrays) <= allowed:
        raise ValueError(
            f"{kind} needs the arrays {', '.join(sorted(needed))} and takes "
            f"{', '.join(sorted(allowed - needed))}, got {', '.join(sorted(arrays))}"
        )
    return prefixes


def _check_inputs(prefix: str, inputs: np.ndarray, probe: np.ndarray) -> None:
    whole = inputs.ndim == probe.ndim and inputs.shape[1:] == probe.shape[1:]
    if not whole or inputs.dtype != probe.dtype:
        raise ValueError(
            f"expected {prefix}inputs {probe.dtype}(n, {_sizes(probe)}) as the "
            f"probe's, got {inputs.dtype}{list(inputs.shape)}"
        )


def _check_finite(prefix: str, inputs: np.ndarray, weights: Any) -> None:
    if not jnp.issubdtype(inputs.dtype, jnp.inexact):
        return
    bad = ~np.isfinite(inputs.reshape(len(inputs), -1)).all(1)
    bad &= True if weights is None else weights > 0
    if np.any(bad):
        raise ValueError(
            f"NaN or infinity in {prefix}inputs, row {int(np.argmax(bad))}; clean the "
            "row, or give it weight 0"
        )


def _sizes(probe: np.ndarray) -> str:
    return ", ".join(map(str, probe.shape[1:]))


def _figures(learnt: AnalyticState) -> dict[str, float]:
    ridge = learnt.ridge._asdict()
    told = {name: float(ridge[name]) for name in _MEASURED if name in ridge}
    return {"count": float(ridge["count"]), "columns": float(len(learnt.labels))} | told
