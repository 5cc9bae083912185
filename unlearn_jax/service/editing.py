"""Edited maps behind a service: concepts are erased and given back, come what may.

Every request is in the log before it is applied, and its residual after::

    mine = edit_requests(text_maps(denoiser, variables), l2=0.1, secret=secret)
    with open_service("edits", mine.start, mine.apply) as service:
        rows = mine.rows(anchor_rows(maps, keys, anchors))
        service.submit("artist-1", "edit", rows)
        service.submit("artist-1 again", "withdraw", rows)
        variables = with_text_maps(denoiser, variables, edited(service.state.edits))
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from unlearn_jax.methods.editing.maps import stacked
from unlearn_jax.methods.editing.state import (
    EditState,
    edit_add,
    edit_remove,
    edit_start,
)
from unlearn_jax.methods.ledger import (
    Ledger,
    empty_ledger,
    fingerprint,
    ledger_add,
    ledger_remove,
)
from unlearn_jax.solvers.refusal import check_applied
from unlearn_jax.types import Batch, Params

_NEW = "new_"
_CHANGES = {
    "edit": [("rows", "add", "")],
    "withdraw": [("rows", "remove", "")],
    "replace": [("rows", "remove", ""), ("new_rows", "add", _NEW)],
}
"""Changes of a kind: name of the figure, what to do, prefix of the names."""
_MEASURED = ("count", "residual", "error", "exact")


class DurableEdits(NamedTuple):
    """Value: what the service keeps.

    Attributes:
        edits: All requests that stand, as sums; ``state.edited`` makes maps of them.
        ledger: Keyed fingerprints of their rows: what never stood is not withdrawn.
    """

    edits: EditState
    ledger: Ledger


class EditRequests(NamedTuple):
    """Description: what ``open_service`` needs for edits.

    Attributes:
        start: Before the first request.
        apply: ``(state, kind, arrays) -> (state, figures)``, which can check.
    """

    start: DurableEdits
    apply: "EditApply"

    @staticmethod
    def rows(rows: Batch, prefix: str = "") -> dict[str, np.ndarray]:
        """Rows of ``methods.editing.rows`` as the arrays of a request.

        Args:
            rows: Keys, shifts and weights.
            prefix: "new_" for those that replace others.
        """
        names = ("keys", "shifts", "weights")
        return {
            prefix + name: np.asarray(leaf)
            for name, leaf in zip(names, rows, strict=True)
        }


class EditApply:
    """What requests do to maps, and which arrays are requests at all."""

    def __init__(self, shape: tuple[int, int], dtype: Any, secret: bytes, slices: int):
        self._shape, self._dtype, self._secret = shape, np.dtype(dtype), secret
        self._steps = {
            "add": jax.jit(partial(edit_add, slices=slices)),
            "remove": jax.jit(partial(edit_remove, slices=slices)),
        }

    def __call__(
        self, state: DurableEdits, kind: str, arrays: dict[str, np.ndarray]
    ) -> tuple[DurableEdits, Mapping[str, float]]:
        """The state after the request, and its figures.

        Raises:
            ValueError: it is refused, or it is no request.
        """
        self.check(kind, arrays)
        edits, ledger, told = state.edits, state.ledger, {}
        for name, change, prefix in _CHANGES[kind]:
            rows = self._rows(arrays, prefix)
            prints = fingerprint(self._secret, *rows)
            changed = ledger_add if change == "add" else ledger_remove
            ledger = changed(ledger, prints)
            edits = self._steps[change](edits, rows)
            check_applied(edits.ridge)
            told[name] = float(np.sum(rows.weights > 0))
        ridge = edits.ridge._asdict()
        figures = {name: float(ridge[name]) for name in _MEASURED}
        return DurableEdits(edits, ledger), told | figures

    def _rows(self, arrays: Mapping[str, np.ndarray], prefix: str) -> Batch:
        keys = arrays[f"{prefix}keys"]
        weights = arrays.get(f"{prefix}weights")
        if weights is None:
            weights = np.ones(len(keys), self._dtype)
        return Batch(keys, arrays[f"{prefix}shifts"], weights)

    def check(self, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse what no state could apply: kind, names, shapes, dtypes, NaN.

        Raises:
            ValueError: says what was given and what was expected.
        """
        if kind not in _CHANGES:
            raise ValueError(f"kind is {kind!r}; choose from {', '.join(_CHANGES)}")
        prefixes = [prefix for _, _, prefix in _CHANGES[kind]]
        needed = {prefix + name for prefix in prefixes for name in ("keys", "shifts")}
        allowed = needed | {f"{prefix}weights" for prefix in prefixes}
        if not needed <= set(arrays) <= allowed:
            raise ValueError(
                f"{kind} needs the arrays {', '.join(sorted(needed))} and takes "
                f"{', '.join(sorted(allowed - needed))}, got "
                f"{', '.join(sorted(arrays))}"
            )
        for prefix in prefixes:
            self._check_rows(prefix, self._rows(arrays, prefix))

    def _check_rows(self, prefix: str, rows: Batch) -> None:
        d, k = self._shape
        n = len(rows.inputs) if rows.inputs.ndim else 0
        expected = ((n, d), (n, k), (n,))
        found = tuple(leaf.shape for leaf in rows)
        if not n or found != expected or {leaf.dtype for leaf in rows} != {self._dtype}:
            raise ValueError(
                f"expected {prefix}keys (n, {d}), {prefix}shifts (n, {k}) and "
                f"{prefix}weights (n,) of {self._dtype}, n at least 1, got "
                f"{', '.join(f'{leaf.dtype}{list(leaf.shape)}' for leaf in rows)}: "
                "make them by rows of these maps"
            )
        there = rows.weights != 0
        finite = np.isfinite(rows.inputs).all(1) & np.isfinite(rows.targets).all(1)
        bad = (there & ~finite) | ~(rows.weights >= 0)
        if bad.any():
            raise ValueError(
                f"{prefix}row {int(np.argmax(bad))} is not finite, or its weight is "
                "negative; clean it, or give it weight 0"
            )


def edit_requests(
    maps: Params, *, l2: float, secret: bytes, basis: Any = None, slices: int = 2
) -> EditRequests:
    """Requests that edit linear maps.

    Kinds and their arrays: ``edit`` and ``withdraw`` take ``keys``, ``shifts`` and,
    where they are not 1, ``weights`` (``EditRequests.rows``); ``replace`` takes these
    for the rows to withdraw and ``new_keys``, ``new_shifts`` (``new_weights``) for
    those in their place, both or neither. A preserved key is a row whose shift is 0.
    What does not fit is refused before anything is written; rows that do not stand are
    refused in the log, with the state as it was.

    In float64 the state after any sequence is, bit for bit, that of the rows that stand
    at once, while ``exact`` is 1 among the figures: see ``methods.editing.state``. The
    start state holds maps, λ and basis, so that a folder that began with others is not
    opened; the secret is not in it.

    Args:
        maps: W₀, a tree of kernels (d, k), float64 where bits count.
        l2: λ.
        secret: Key of the ledger, 16 to 64 bytes; never in the folder.
        basis: As of ``edit_start``.
        slices: As of ``edit_add``.

    Raises:
        ValueError: as ``edit_start``, or a secret of another length.

    Cost: of a request, what ``edit_add`` takes, and 3 µs a row for the ledger.
    Source: own.
    """
    matrix = stacked(maps)
    start = edit_start(maps, l2=l2, basis=basis)
    fingerprint(secret, np.zeros((1, 1)), np.zeros(1))  # refuses a secret of no use
    empty = empty_ledger()
    shape = (matrix.shape[0], matrix.shape[1])
    return EditRequests(
        DurableEdits(start, empty), EditApply(shape, matrix.dtype, secret, slices)
    )
