"""What the requests showed of exactness, as tables and as the rows of a figure."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments._exactness_forms import GRAM, INVERSE, KEPT, SINGLE
from experiments._exactness_run import BOUND, CHOLESKY, QR
from experiments._study import Note, about, table
from unlearn_jax.results.run import Run
from unlearn_jax.results.table import Table

FORMS = (GRAM, KEPT, INVERSE, CHOLESKY, QR)
TIMES = 10.0
"""Most times the error of a fresh solve that a head may have."""


def found(notes: Sequence[Note], method: str, metric: str, l2: float) -> list[float]:
    """Numbers of one form in their order, over all places."""
    return [
        note.value
        for note in notes
        if (note.method, note.metric, note.split) == (method, metric, f"l2={l2:g}")
        and note.value is not None
    ]


def tables(
    notes: Sequence[Note], l2s: Sequence[float], run: Run, words: Sequence[str]
) -> list[Table]:
    """Exactness, drift, and float32."""
    made = [_exactness(notes, l2s, run, words), _drift(notes, l2s, run)]
    single = sorted(
        {
            float(n.split.removeprefix("l2="))
            for n in notes
            if (n.method, n.metric) == (SINGLE, "solve_refused")
        },
        reverse=True,
    )
    return [*made, _single(notes, single, run)] if single else made


def _exactness(
    notes: Sequence[Note], l2s: Sequence[float], run: Run, words: Sequence[str]
) -> Table:
    header = (
        "form",
        "l2",
        "condition number",
        "head error",
        "that of fresh Cholesky",
        "that of fresh QR",
        f"at most {TIMES:g} times",
        "predictions to the truth",
        "to fresh QR",
        "to fresh Cholesky",
        f"at most {BOUND:g}",
        "bits as never seen",
        "refused",
    )
    rows = []
    for form in FORMS:
        for l2 in l2s:

            def most(metric: str, method: str = form, l2: float = l2) -> float | None:
                return max(found(notes, method, metric, l2), default=None)

            heads = found(notes, form, "head_error", l2)
            fresh = [
                float(np.fmin(*pair))
                for pair in zip(
                    found(notes, CHOLESKY, "head_error", l2),
                    found(notes, QR, "head_error", l2),
                    strict=True,
                )
            ]
            own = fresh[-len(heads) :] if heads else []
            carried = form not in (CHOLESKY, QR)
            near = heads and all(
                a <= TIMES * b for a, b in zip(heads, own, strict=True)
            )
            gap = most(f"predictions, {QR}")
            same = found(notes, form, "bit_identical", l2)
            rows.append(
                [
                    form,
                    f"{l2:g}",
                    most("condition", GRAM),
                    most("head_error"),
                    most("head_error", CHOLESKY),
                    most("head_error", QR),
                    _yes(near) if carried else None,
                    most("predictions, reference"),
                    gap,
                    most(f"predictions, {CHOLESKY}"),
                    _yes(gap is not None and gap <= BOUND) if carried else None,
                    _yes(all(same)) if same else None,
                    _refused(notes, form, l2) if carried else None,
                ]
            )
    whole = [n.value for n in notes if n.metric == "equals_integers"]
    bounds = [n.value for n in notes if (n.method, n.metric) == ("reference", "bound")]
    footnotes = (
        *words,
        f"Largest values over {len(whole)} places (the start among them). Truth: "
        "solved in integers, proven relative error at most "
        f"{max((b for b in bounds if b is not None), default=math.nan):.0e}. "
        f"Head error ‖W - W*‖ / ‖W*‖, to be at most {TIMES:g} times the smaller one of "
        "the two fresh solves. Predictions: largest |X (W - W')| over largest |X W*| "
        f"on test rows, to be at most {BOUND:g} from fresh QR.",
        "Fresh solves by numpy and scipy in float64: Cholesky on XᵀX, QR of [X; √l2 I]."
        f" The sums equal integers summed by numpy in {sum(map(bool, whole))} of "
        f"{len(whole)} places.",
        "Condition numbers are of the features that are not 0 on all rows. "
        "Bits as never seen: sums, for the form of sums the solution too, equal those "
        "of a state that learned only what is left.",
    )
    caption = f"Exactness after mixed requests. {about(run)}"
    return table("exactness", caption, header, rows, footnotes)


def _drift(notes: Sequence[Note], l2s: Sequence[float], run: Run) -> Table:
    header = (
        "form",
        "l2",
        "drift of the head: first",
        "middle",
        "last",
        "largest of predictions",
        f"predictions pass {BOUND:g} after request",
        "first refused request",
        "refused",
        "repairs",
    )
    rows = []
    for form in (INVERSE, KEPT):
        for l2 in l2s:
            drift = found(notes, form, "drift", l2)
            if not drift:
                continue
            shown = [
                n
                for n in notes
                if (n.method, n.metric) == (form, "prediction_drift")
                and n.split == f"l2={l2:g}"
                and n.value is not None
            ]
            passed = [_position(n) for n in shown if not _at_most(n.value, BOUND)]
            refused = [
                _position(n)
                for n in notes
                if (n.method, n.metric, n.split) == (form, "refused", f"l2={l2:g}")
            ]
            repairs = found(notes, form, "repairs", l2)
            rows.append(
                [
                    form,
                    f"{l2:g}",
                    drift[0],
                    drift[len(drift) // 2],
                    drift[-1],
                    max(n.value for n in shown if n.value is not None),
                    str(min(passed)) if passed else "never",
                    str(min(refused)) if refused else "never",
                    str(len(refused)),
                    str(round(repairs[0])) if repairs else None,
                ]
            )
    notes_below = (
        "Drift: distance to the solution from the sums, at each place where it was "
        "measured. After a refused request the inverse is made anew from the sums.",
    )
    return table("drift", f"Drift. {about(run)}", header, rows, notes_below)


def _single(notes: Sequence[Note], l2s: Sequence[float], run: Run) -> Table:
    header = (
        "l2",
        "condition number",
        "solved",
        "error it reports",
        "true error",
        "predictions to the truth",
        "sums exact",
    )
    rows = []
    for l2 in l2s:

        def most(metric: str, method: str = SINGLE, l2: float = l2) -> float | None:
            return max(found(notes, method, metric, l2), default=None)

        refused = found(notes, SINGLE, "solve_refused", l2)
        rows.append(
            [
                f"{l2:g}",
                most("condition", GRAM),
                f"{len(refused) - round(sum(refused))} of {len(refused)}",
                most("reported_error"),
                most("head_error"),
                most("predictions, reference"),
                _yes(all(found(notes, SINGLE, "exact", l2))),
            ]
        )
    footnote = "Not solved: refused, the state unharmed. Largest values where solved."
    caption = f"Sums in float32. {about(run)}"
    return table("single", caption, header, rows, (footnote,))


def figure_rows(notes: Sequence[Note]) -> list[dict[str, Any]]:
    """One row for each point: ``panel``, ``quantity``, ``form``, ``kind``."""
    names = {
        "head_error": ("head", "checked"),
        "predictions, reference": ("predictions", "checked"),
        "drift": ("head", "watched"),
        "prediction_drift": ("predictions", "watched"),
        "refused": ("head", "refused"),
    }
    rows = []
    for note in notes:
        if note.method in FORMS and note.metric in names and note.value is not None:
            quantity, kind = names[note.metric]
            rows.append(
                {
                    "panel": note.split,
                    "quantity": quantity,
                    "form": note.method,
                    "kind": kind,
                    "position": _position(note),
                    "value": note.value,
                }
            )
    panels = {row["panel"] for row in rows if row["kind"] == "checked"}
    return [row for row in rows if row["panel"] in panels]


def _position(note: Note) -> int:
    return int(note.request.removeprefix("after "))


def _at_most(value: float | None, bound: float) -> bool:
    return value is not None and value <= bound


def _yes(answer: object) -> str:
    return "yes" if answer else "no"


def _refused(notes: Sequence[Note], form: str, l2: float) -> str:
    return str(len(found(notes, form, "refused", l2)))
