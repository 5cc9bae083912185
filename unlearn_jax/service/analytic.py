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

import numpy as np
from jaxtyping import UInt64

from unlearn_jax.methods.analytic import Analytic, AnalyticState, analytic
from unlearn_jax.methods.ledger import fingerprint
from unlearn_jax.models.random_features import directions
from unlearn_jax.service.service import Apply
from unlearn_jax.types import Inputs, PRNGKey

ERASING = ("forget", "replace")
"""Kinds after which no rows and no older state may stay: ``snapshot_after``.

The keyed digest of the rows stays in the log, see :func:`open_service`.
"""

_NEW = "new_"
_ROWS = ("inputs", "targets", "weights")
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
        apply: ``(state, kind, arrays) -> (state, figures)``.
    """

    head: Analytic
    start: DurableState
    apply: Apply


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
    both or neither. A request is refused, with its reason in the log and the state as
    it was, where the head refuses it (rows that are NaN or were never learnt), and
    where kind, names, shapes or dtypes do not fit.

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

    def apply(
        state: DurableState, kind: str, arrays: dict[str, np.ndarray]
    ) -> tuple[DurableState, Mapping[str, float]]:
        asked = _read(kind, arrays, probe)
        learnt, rows = state.learnt, {}
        for name, change, prefix in asked:
            request = [arrays.get(prefix + word) for word in _ROWS]
            step = head.learn if change == "learn" else head.forget
            learnt = step(learnt, *request)
            weights = request[2]
            there = len(arrays[prefix + "targets"])
            rows[name] = float(there if weights is None else np.sum(weights > 0))
        return state._replace(learnt=learnt), rows | _figures(learnt)

    return AnalyticRequests(head, DurableState(head.start(), mark), apply)


def _read(
    kind: str, arrays: Mapping[str, np.ndarray], probe: np.ndarray
) -> list[tuple[str, str, str]]:
    """The changes of a request: name of the figure, what to do, prefix of the names.

    Raises:
        ValueError: it cannot be read.
    """
    changes = {
        "learn": [("rows", "learn", "")],
        "forget": [("rows", "forget", "")],
        "replace": [("rows", "forget", ""), ("new_rows", "learn", _NEW)],
    }
    if kind not in changes:
        raise ValueError(f"kind is {kind!r}; choose from {', '.join(changes)}")
    prefixes = [prefix for _, _, prefix in changes[kind]]
    needed = {prefix + name for prefix in prefixes for name in _ROWS[:2]}
    allowed = needed | {f"{prefix}weights" for prefix in prefixes}
    if not needed <= set(arrays) <= allowed:
        raise ValueError(
            f"{kind} needs the arrays {', '.join(sorted(needed))} and takes "
            f"{', '.join(sorted(allowed - needed))}, got {', '.join(sorted(arrays))}"
        )
    for prefix in prefixes:
        inputs = arrays[prefix + "inputs"]
        if inputs.shape[1:] != probe.shape[1:] or inputs.dtype != probe.dtype:
            raise ValueError(
                f"expected {prefix}inputs {probe.dtype}(n, {_sizes(probe)}) as the "
                f"probe's, got {inputs.dtype}{list(inputs.shape)}"
            )
        for name in (prefix + word for word in _ROWS[1:]):
            if name in arrays and arrays[name].ndim < 1:
                raise ValueError(f"expected one entry of {name} for each row, got one")
    return changes[kind]


def _sizes(probe: np.ndarray) -> str:
    return ", ".join(map(str, probe.shape[1:]))


def _figures(learnt: AnalyticState) -> dict[str, float]:
    ridge = learnt.ridge._asdict()
    told = {name: float(ridge[name]) for name in _MEASURED if name in ridge}
    return {"count": float(ridge["count"]), "columns": float(len(learnt.labels))} | told
