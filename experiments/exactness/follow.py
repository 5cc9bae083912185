"""Lead the forms of ridge regression through the requests; hold them to the truth."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.exactness.forms import (
    GRAM,
    INVERSE,
    KEPT,
    SINGLE,
    Features,
    apply,
    inverse,
    kept,
    learn,
    onehot,
    pieces_of,
    solve,
    with_l2,
)
from experiments.exactness.reference import (
    Reference,
    cholesky_solution,
    condition_numbers,
    exact_sums,
    floats,
    head_error,
    off,
    qr_solution,
    reference,
)
from experiments.exactness.requests import Request
from experiments.frame.progress import progress
from unlearn_jax.results.rows import Row
from unlearn_jax.solvers.refusal import APPLIED
from unlearn_jax.solvers.ridge_gram import GramRidge

CHOLESKY, QR = "fresh Cholesky", "fresh QR"
BOUND = 1e-8
"""Most that predictions may differ, relative to the largest."""


class Place(NamedTuple):
    """Value: where a number belongs; ``l2`` is None for what has no ridge."""

    position: int
    l2: float | None = None

    def row(self, method: str, metric: str, value: Any, **more: str) -> Row:
        """The number as it goes into results."""
        ridge = {} if self.l2 is None else {"l2": self.l2}
        at = {"method": method, "position": self.position, **ridge, **more}
        return Row(metric, float(value), at=at)


class Course:
    """Where all forms stand in the requests.

    Args:
        given: The rows, and how they are looked at.
        start: Which are within before the first request.
        requests: All of them.
    """

    def __init__(self, given: Features, start: np.ndarray, requests: Sequence[Request]):
        self.given, self.start, self.requests = given, start, requests
        self.gram: Any = None
        self.states: dict[tuple[str, float], Any] = {}
        self.position = 0

    def begin(self) -> None:
        """Learn what is within at the start, if that was not done."""
        if self.gram is None:
            self.gram = learn(self.given, np.flatnonzero(self.start))
            self.states = {
                (INVERSE, l2): inverse(self.gram, l2) for l2 in self.given.l2s
            }

    @property
    def within(self) -> np.ndarray:
        """Which rows are within now."""
        return self.requests[self.position - 1].within if self.position else self.start

    def serve(self) -> list[Row]:
        """The next request to all forms; what they refused."""
        self.states |= _joining(self.given, self.position + 1, self.within, self.gram)
        self.position += 1
        pieces = pieces_of(self.given, self.requests[self.position - 1])
        self.gram, code = apply(GRAM, self.gram, pieces)
        refused = []
        if code != APPLIED:
            refused.append(Place(self.position).row(GRAM, "refused", 1.0))
        for (name, l2), state in self.states.items():
            self.states[name, l2], code = apply(name, state, pieces)
            if code != APPLIED:
                at = Place(self.position, None if name == SINGLE else l2)
                refused.append(at.row(name, "refused", 1.0))
                # A request lost would be all that is seen from here on.
                if name in (INVERSE, KEPT):
                    anew = inverse if name == INVERSE else kept
                    self.states[name, l2] = anew(self.gram, l2)
        return refused


def segment(course: Course, first: int, last: int) -> list[Row]:
    """Rows of the requests after ``first`` up to ``last``, and of the check there.

    What a run that was killed had measured before is only caught up with.
    """
    given, rows = course.given, []
    with progress(f"requests {first} to {last}", 1 + last - course.position) as advance:
        course.begin()
        while course.position < last:
            refused = course.serve()
            position = course.position
            if position > first:
                rows += refused
                if position % given.watch == 0:
                    rows += _watch(given, position, course.gram, course.states)
            advance(1)
        rows += _check(given, last, course.within, course.gram, course.states)
        advance(1)
    if last == len(course.requests):
        rows += [
            Row("repairs", float(state.repairs), at={"method": name, "l2": l2})
            for (name, l2), state in course.states.items()
            if name == KEPT
        ]
    return rows


def difference(test: np.ndarray, gap: Any, weight: Any) -> float:
    """Largest |X gap| over largest |X W|."""
    gap, weight = np.asarray(gap, np.float64), np.asarray(weight, np.float64)
    return float(np.max(np.abs(test @ gap)) / np.max(np.abs(test @ weight)))


def _joining(
    given: Features, position: int, within: np.ndarray, gram: GramRidge
) -> dict[tuple[str, float], Any]:
    """The forms whose first request this is."""
    states: dict[tuple[str, float], Any] = {}
    if position == given.kept_from + 1:
        states |= {(KEPT, l2): kept(gram, l2) for l2 in given.l2s}
    if position == given.single_from + 1:
        states[SINGLE, 0.0] = learn(given, np.flatnonzero(within), np.float32)
    return states


def _watch(given: Features, position: int, gram: GramRidge, states: Any) -> list[Row]:
    """How far the carried forms are from the sums."""
    rows = []
    for l2 in given.l2s:
        at, solved = Place(position, l2), solve(with_l2(gram, l2))
        if int(solved.code) != APPLIED:
            rows.append(at.row(GRAM, "refused", 1.0))
            continue
        for name in (INVERSE, KEPT):
            if (name, l2) in states:
                weight = states[name, l2].weight
                gap = weight - solved.weight
                head = float(jnp.linalg.norm(gap) / jnp.linalg.norm(solved.weight))
                shown = difference(given.test, gap, solved.weight)
                rows.append(at.row(name, "drift", head))
                rows.append(at.row(name, "prediction_drift", shown))
    return rows


def _check(
    given: Features, position: int, within: np.ndarray, gram: GramRidge, states: Any
) -> list[Row]:
    """All forms and both fresh solves against the reference."""
    left = np.flatnonzero(within)
    sums = exact_sums(given.rows[left], onehot(given, left))
    matrix, moment = floats(sums)
    fresh = learn(given, left)
    whole = not np.any(gram.gram_low) and np.array_equal(gram.gram, matrix)
    rows = [
        Place(position).row(GRAM, "rows", len(left)),
        Place(position).row(GRAM, "equals_integers", whole),
        Place(position).row(GRAM, "exact", float(gram.exact)),
    ]
    single = states.get((SINGLE, 0.0))
    others = [l2 for l2 in given.single_l2s if l2 not in given.l2s and single]
    conditions = condition_numbers(matrix, (*given.l2s, *others))
    for l2 in (*given.l2s, *others):
        at = Place(position, l2)
        rows.append(at.row(GRAM, "condition", conditions[l2]))
        by_qr, factor = qr_solution(sums.triangle, given.classes, l2)
        try:
            truth = reference(sums, l2, factor)
        except ArithmeticError as error:
            row = at.row("reference", "bound", np.nan)
            rows.append(row._replace(value=None, failure=str(error)))
            continue
        rows.append(at.row("reference", "bound", truth.bound))
        if l2 in given.l2s:
            heads: dict[str, Any] = {
                CHOLESKY: cholesky_solution(matrix, moment, l2),
                QR: by_qr,
            }
            solved, again = (solve(with_l2(each, l2)) for each in (gram, fresh))
            same = float(_same_bits(solved, again))
            rows.append(at.row(GRAM, "bit_identical", same))
            heads[GRAM] = solved.weight
            for name in (INVERSE, KEPT):
                if (name, l2) in states:
                    heads[name] = states[name, l2].weight
            reported = {GRAM: solved.error}
            if (KEPT, l2) in states:
                both = states[KEPT, l2]
                reported[KEPT] = both.error
                same = float(_same_bits(both.sums, with_l2(fresh, l2)))
                rows.append(at.row(KEPT, "bit_identical", same))
            for name, value in reported.items():
                rows.append(at.row(name, "reported_error", value))
            rows += _errors(given, heads, truth, at)
        if single is not None and l2 in given.single_l2s:
            rows += _single(given, solve(with_l2(single, l2)), truth, at)
    return rows


def _errors(
    given: Features, heads: dict[str, Any], truth: Reference, at: Place
) -> list[Row]:
    rows = []
    for name, weight in heads.items():
        weight = np.asarray(weight)
        error = head_error(weight, truth)
        rows.append(at.row(name, "head_error", error))
        others = {CHOLESKY: heads[CHOLESKY], QR: heads[QR]}
        gaps = {other: weight - expected for other, expected in others.items()}
        gaps["reference"] = off(weight, truth)
        for other, gap in gaps.items():
            if other != name and np.all(np.isfinite(gap)):
                shown = difference(given.test, gap, truth.high)
                rows.append(at.row(name, "predictions", shown, to=other))
    return rows


def _single(
    given: Features, solved: GramRidge, truth: Reference, at: Place
) -> list[Row]:
    refused = int(solved.code) != APPLIED
    rows = [
        at.row(SINGLE, "solve_refused", refused),
        at.row(SINGLE, "exact", float(solved.exact)),
    ]
    if not refused:
        found = {
            "head_error": head_error(np.asarray(solved.weight), truth),
            "reported_error": float(solved.error),
        }
        rows += [at.row(SINGLE, name, value) for name, value in found.items()]
        gap = difference(given.test, off(solved.weight, truth), truth.high)
        rows.append(at.row(SINGLE, "predictions", gap, to="reference"))
    return rows


def _same_bits(a: Any, b: Any) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves)
