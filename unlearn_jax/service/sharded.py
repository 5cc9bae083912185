"""Models by shards behind a service: they learn and forget rows, come what may.

What is durable is which rows are there; the models follow from it, and lie beside it
under names of what they were trained on::

    ours = sharded_requests(sisa(learner, rows, 10_000), Contents(Store(models)))
    options = {"snapshot_after": ERASING}
    with open_service("shards", ours.start, ours.apply, **options) as service:
        service.submit("batch-1", "learn", {"numbers": i, "inputs": x, "targets": y})
        service.submit("user-7", "forget", {"numbers": i[:3]})
        scores = ours.predict(service.state, queries)
    print(audit("shards").to_markdown())
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from unlearn_jax.methods.sharded import Sharded, ShardState
from unlearn_jax.storage.contents import Contents

ERASING = ("forget", "replace")
"""Kinds after which no rows and no older state may stay: ``snapshot_after``."""

_NAMES = {
    "learn": {"numbers", "inputs", "targets"},
    "forget": {"numbers"},
    "replace": {"numbers", "inputs", "targets"},
    "renew": set(),
}
"""Arrays of a request, by its kind."""


class DurableShards(NamedTuple):
    """Value: what the service keeps.

    Attributes:
        learnt: Rows and spent slices.
        mark: Digest of learner, layout and orders: those of another model differ. The
            code is not within: a newer one trains the models anew from the rows.
    """

    learnt: ShardState
    mark: np.ndarray


class ShardRequests(NamedTuple):
    """Description: models by shards, and what ``open_service`` needs of them.

    Attributes:
        start: State before the first request.
        apply: ``(state, kind, arrays) -> (state, figures)``, which can check.
        predict: ``(state, inputs) -> (n, k)`` by the models of that state.
    """

    start: DurableShards
    apply: "ShardApply"
    predict: Callable[[DurableShards, Any], np.ndarray]


class ShardApply:
    """What requests do to the rows and models, and which arrays are requests at all."""

    def __init__(self, sharded: Sharded, contents: Contents):
        self._sharded, self._contents = sharded, contents

    def __call__(
        self, state: DurableShards, kind: str, arrays: dict[str, np.ndarray]
    ) -> tuple[DurableShards, Mapping[str, float]]:
        """The state after the request, its models trained, and its figures.

        Raises:
            ValueError: a row is there already, or is not; or it is no request.
        """
        self.check(kind, arrays)
        ours, learnt = self._sharded, state.learnt
        before = ours.names(learnt)
        if kind in ERASING:
            learnt = ours.forget(learnt, arrays["numbers"])
        if kind in ("learn", "replace"):
            learnt = ours.learn(learnt, *(arrays[name] for name in _ROWS))
        if kind == "renew":
            learnt = ours.renew(learnt)
        served = ours.models(learnt, self._contents)
        after = ours.names(learnt)
        figures = {
            "rows": float(len(arrays.get("numbers", ()))),
            "count": float(np.sum(learnt.rows.weights > 0)),
            "trained": float(np.sum((after != before) & (after != ""))),
            "ended": float(np.sum((after == "") & (before != ""))),
            "serving": float(np.sum(served.votes > 0)),
        }
        return state._replace(learnt=learnt), figures

    def check(self, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse what no state could apply: kind, names, shapes, dtypes, NaN, labels.

        Raises:
            ValueError: says what was given and what was expected.
        """
        if kind not in _NAMES:
            raise ValueError(f"kind is {kind!r}; choose from {', '.join(_NAMES)}")
        if set(arrays) != _NAMES[kind]:
            needed = ", ".join(sorted(_NAMES[kind])) or "none"
            raise ValueError(
                f"{kind} needs the arrays {needed}; got "
                f"{', '.join(sorted(arrays)) or 'none'}"
            )
        if arrays:
            self._sharded.check(*(arrays.get(name) for name in _ROWS))


_ROWS = ("numbers", "inputs", "targets")


def sharded_requests(sharded: Sharded, contents: Contents) -> ShardRequests:
    """Requests of models by shards.

    Kinds and their arrays: ``learn`` and ``replace`` take ``numbers``, ``inputs`` and
    ``targets``; ``forget`` takes ``numbers``; ``renew`` takes none (spent slices of
    :func:`stagewise` are trained again, on the rows that are left). What does not fit
    is refused before anything is written, as :func:`analytic_requests` does it; a
    request for a row that is not there, or is there already, is refused with its reason
    in the log.

    The models are no part of the state: they follow from its rows, and are found by
    name among ``contents``. A process that dies while they are trained goes on with
    those that are there; a folder of them that is lost is trained anew, to the bit.
    When a request for forgetting returns, no model that saw the rows is left among
    ``contents``, and no row of it in the service's folder.

    Figures in the log: ``rows`` of the request, ``count`` of rows within, stages
    ``trained`` and ``ended`` by the request, shards ``serving``.

    Args:
        sharded: Of :func:`sisa` or :func:`stagewise`.
        contents: Of these models alone: everything else in it is deleted.

    Cost: of a request, the stages that it changes; a snapshot writes all rows.
    Source: own.
    """
    mark = np.frombuffer(bytes.fromhex(sharded.plan.settings), np.uint8)
    start = DurableShards(sharded.start(), mark)

    def predict(state: DurableShards, inputs: Any) -> np.ndarray:
        return sharded.predict(sharded.models(state.learnt, contents), inputs)

    return ShardRequests(start, ShardApply(sharded, contents), predict)
