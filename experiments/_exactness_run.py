"""Lead the forms of ridge regression through the requests; hold them to the truth."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._exactness_forms import (
    GRAM,
    INVERSE,
    KEPT,
    SINGLE,
    Bench,
    apply,
    inverse,
    kept,
    learn,
    onehot,
    pieces_of,
    solve,
    with_l2,
)
from experiments._exactness_reference import (
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
from experiments._exactness_stream import Request
from experiments._study import Note
from experiments.frame.progress import progress
from unlearn_jax.solvers.refusal import APPLIED
from unlearn_jax.solvers.ridge_gram import GramRidge

CHOLESKY, QR = "fresh Cholesky", "fresh QR"
BOUND = 1e-8
"""Most that predictions may differ, relative to the largest."""


class Place(NamedTuple):
    """Value: where a number belongs."""

    position: int
    l2: float

    def note(self, method: str, metric: str, value: Any) -> Note:
        """The number as it goes into records."""
        request, split = f"after {self.position:04d}", f"l2={self.l2:g}"
        return Note(method, metric, float(value), "1", request, split)


def difference(test: np.ndarray, gap: Any, weight: Any) -> float:
    """Largest |X gap| over largest |X W|."""
    gap, weight = np.asarray(gap, np.float64), np.asarray(weight, np.float64)
    return float(np.max(np.abs(test @ gap)) / np.max(np.abs(test @ weight)))


def follow(bench: Bench, start: np.ndarray, requests: Sequence[Request]) -> list[Note]:
    """Every request to every form, compared as often as the bench says."""
    with progress("before the first request", 1):
        gram = learn(bench, np.flatnonzero(start))
        states: dict[tuple[str, float], Any] = {
            (INVERSE, l2): inverse(gram, l2) for l2 in bench.l2s
        }
        notes = _check(bench, 0, start, gram, states)
    first = 0
    for last in sorted({*bench.checks, len(requests)}):
        title = f"requests {first + 1} to {last} of {len(requests)}"
        with progress(title, last - first) as advance:
            for position in range(first + 1, last + 1):
                before = requests[position - 2].within if position > 1 else start
                states |= _joining(bench, position, before, gram)
                request = requests[position - 1]
                gram = _serve(bench, position, request, gram, states, notes)
                if position % bench.watch == 0:
                    notes += _watch(bench, position, gram, states)
                if position in bench.checks:
                    notes += _check(bench, position, request.within, gram, states)
                advance(1)
        first = last
    for (name, l2), state in states.items():
        if name == KEPT:
            repairs = float(state.repairs)
            notes.append(Note(name, "repairs", repairs, "1", split=f"l2={l2:g}"))
    return notes


def _joining(
    bench: Bench, position: int, within: np.ndarray, gram: GramRidge
) -> dict[tuple[str, float], Any]:
    """The forms whose first request this is."""
    states: dict[tuple[str, float], Any] = {}
    if position == bench.kept_from + 1:
        states |= {(KEPT, l2): kept(gram, l2) for l2 in bench.l2s}
    if position == bench.single_from + 1:
        states[SINGLE, 0.0] = learn(bench, np.flatnonzero(within), np.float32)
    return states


def _serve(
    bench: Bench,
    position: int,
    request: Request,
    gram: GramRidge,
    states: dict[tuple[str, float], Any],
    notes: list[Note],
) -> GramRidge:
    """One request to all forms; ``states`` and ``notes`` are brought up to date."""
    pieces = pieces_of(bench, request)
    gram, code = apply(GRAM, gram, pieces)
    if code != APPLIED:
        notes.append(Place(position, 0.0).note(GRAM, "refused", 1.0))
    for (name, l2), state in states.items():
        states[name, l2], code = apply(name, state, pieces)
        if code != APPLIED:
            notes.append(Place(position, l2).note(name, "refused", 1.0))
            # A request lost would be all that is seen from here on.
            if name in (INVERSE, KEPT):
                anew = inverse if name == INVERSE else kept
                states[name, l2] = anew(gram, l2)
    return gram


def _watch(bench: Bench, position: int, gram: GramRidge, states: Any) -> list[Note]:
    """How far the carried forms are from the sums."""
    notes = []
    for l2 in bench.l2s:
        at, solved = Place(position, l2), solve(with_l2(gram, l2))
        if int(solved.code) != APPLIED:
            notes.append(at.note(GRAM, "refused", 1.0))
            continue
        for name in (INVERSE, KEPT):
            if (name, l2) in states:
                weight = states[name, l2].weight
                gap = weight - solved.weight
                head = float(jnp.linalg.norm(gap) / jnp.linalg.norm(solved.weight))
                shown = difference(bench.test, gap, solved.weight)
                notes.append(at.note(name, "drift", head))
                notes.append(at.note(name, "prediction_drift", shown))
    return notes


def _check(
    bench: Bench, position: int, within: np.ndarray, gram: GramRidge, states: Any
) -> list[Note]:
    """All forms and both fresh solves against the reference."""
    left = np.flatnonzero(within)
    sums = exact_sums(bench.rows[left], onehot(bench, left))
    matrix, moment = floats(sums)
    fresh = learn(bench, left)
    whole = not np.any(gram.gram_low) and np.array_equal(gram.gram, matrix)
    notes = [
        Place(position, 0.0).note(GRAM, "rows", len(left)),
        Place(position, 0.0).note(GRAM, "equals_integers", whole),
        Place(position, 0.0).note(GRAM, "exact", float(gram.exact)),
    ]
    single = states.get((SINGLE, 0.0))
    others = [l2 for l2 in bench.single_l2s if l2 not in bench.l2s and single]
    conditions = condition_numbers(matrix, (*bench.l2s, *others))
    for l2 in (*bench.l2s, *others):
        at = Place(position, l2)
        notes.append(at.note(GRAM, "condition", conditions[l2]))
        by_qr, factor = qr_solution(sums.triangle, bench.classes, l2)
        try:
            truth = reference(sums, l2, factor)
        except ArithmeticError as error:
            note = at.note("reference", "bound", np.nan)
            notes.append(note._replace(value=None, failure=str(error)))
            continue
        notes.append(at.note("reference", "bound", truth.bound))
        if l2 in bench.l2s:
            heads: dict[str, Any] = {
                CHOLESKY: cholesky_solution(matrix, moment, l2),
                QR: by_qr,
            }
            solved, again = (solve(with_l2(each, l2)) for each in (gram, fresh))
            same = float(_same_bits(solved, again))
            notes.append(at.note(GRAM, "bit_identical", same))
            heads[GRAM] = solved.weight
            for name in (INVERSE, KEPT):
                if (name, l2) in states:
                    heads[name] = states[name, l2].weight
            reported = {GRAM: solved.error}
            if (KEPT, l2) in states:
                both = states[KEPT, l2]
                reported[KEPT] = both.error
                same = float(_same_bits(both.sums, with_l2(fresh, l2)))
                notes.append(at.note(KEPT, "bit_identical", same))
            for name, value in reported.items():
                notes.append(at.note(name, "reported_error", value))
            notes += _errors(bench, heads, truth, at)
        if single is not None and l2 in bench.single_l2s:
            notes += _single(bench, solve(with_l2(single, l2)), truth, at)
    return notes


def _errors(
    bench: Bench, heads: dict[str, Any], truth: Reference, at: Place
) -> list[Note]:
    notes = []
    for name, weight in heads.items():
        weight = np.asarray(weight)
        error = head_error(weight, truth)
        notes.append(at.note(name, "head_error", error))
        others = {CHOLESKY: heads[CHOLESKY], QR: heads[QR]}
        gaps = {other: weight - expected for other, expected in others.items()}
        gaps["reference"] = off(weight, truth)
        for other, gap in gaps.items():
            if other != name and np.all(np.isfinite(gap)):
                shown = difference(bench.test, gap, truth.high)
                notes.append(at.note(name, f"predictions, {other}", shown))
    return notes


def _single(bench: Bench, solved: GramRidge, truth: Reference, at: Place) -> list[Note]:
    refused = int(solved.code) != APPLIED
    notes = [
        at.note(SINGLE, "solve_refused", refused),
        at.note(SINGLE, "exact", float(solved.exact)),
    ]
    if not refused:
        found = {
            "head_error": head_error(np.asarray(solved.weight), truth),
            "reported_error": float(solved.error),
            "predictions, reference": difference(
                bench.test, off(solved.weight, truth), truth.high
            ),
        }
        notes += [at.note(SINGLE, name, value) for name, value in found.items()]
    return notes


def _same_bits(a: Any, b: Any) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves)
