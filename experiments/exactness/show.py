"""What the requests showed of exactness: three tables and a figure."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.exactness.config import Config
from experiments.exactness.follow import BOUND, CHOLESKY, QR
from experiments.exactness.forms import GRAM, INVERSE, KEPT, SINGLE
from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from unlearn_jax.results.plot_exactness import exactness_figure
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.run import Run
from unlearn_jax.results.table import Table

FORMS = (GRAM, KEPT, INVERSE, CHOLESKY, QR)
TIMES = 10.0
"""Most times the error of a fresh solve that a head may have."""


def show(config: Config, results: Results) -> list[Finding]:
    """Exactness, drift, float32; and the figure."""
    rows, run = results.rows, results.run
    tables = [_exactness(config, rows, run), _drift(config, rows, run)]
    single = sorted(rows.where("solve_refused").places("l2"), reverse=True)
    if single:
        tables.append(_single(single, rows, run))
    drawn = figure_rows(rows)
    caption = (
        "Relative error of the head and of its predictions over the requests. "
        "Dots: against the reference; lines: against the sums; crosses: refused "
        "requests, after which the inverse was made anew."
    )
    drawing = Drawing("exactness", exactness_figure(drawn), drawn, caption)
    return [Finding(tables, [drawing])]


def _exactness(config: Config, rows: Rows, run: Run) -> Table:
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
    lines = []
    for form in FORMS:
        for l2 in config.l2s:
            here = rows.where(l2=l2)
            own = here.where(method=form)
            fresh = [here.values("head_error", method=m) for m in (CHOLESKY, QR)]
            heads, same = own.values("head_error"), own.values("bit_identical")
            carried = heads.size and form not in (CHOLESKY, QR)
            near = carried and all(heads <= TIMES * np.fmin(*fresh)[-len(heads) :])
            gap = _most(own, "predictions", to=QR)
            lines.append(
                [
                    form,
                    f"{l2:g}",
                    _most(here, "condition"),
                    _most(own, "head_error"),
                    _most(here, "head_error", method=CHOLESKY),
                    _most(here, "head_error", method=QR),
                    _yes(near) if carried else None,
                    _most(own, "predictions", to="reference"),
                    gap,
                    _most(own, "predictions", to=CHOLESKY),
                    _yes(gap is not None and gap <= BOUND) if carried else None,
                    _yes(all(same)) if same.size else None,
                    str(len(own.where("refused"))) if carried else None,
                ]
            )
    whole, bounds = rows.values("equals_integers"), rows.values("bound")
    proven = bounds[np.isfinite(bounds)]
    footnotes = (
        _words(config, rows),
        f"Largest values over {len(whole)} places (the start among them). Truth: "
        "solved in integers, proven relative error at most "
        f"{proven.max() if proven.size else math.nan:.0e}. "
        f"Head error ‖W - W*‖ / ‖W*‖, to be at most {TIMES:g} times the smaller one of "
        "the two fresh solves. Predictions: largest |X (W - W')| over largest |X W*| "
        f"on test rows, to be at most {BOUND:g} from fresh QR.",
        "Fresh solves by numpy and scipy in float64: Cholesky on XᵀX, QR of [X; √l2 I]."
        f" The sums equal integers summed by numpy in {whole.sum():.0f} of "
        f"{len(whole)} places.",
        "Condition numbers are of the features that are not 0 on all rows. "
        "Bits as never seen: sums, for the form of sums the solution too, equal those "
        "of a state that learned only what is left.",
    )
    caption = f"Exactness after mixed requests. {about(run)}"
    return table("exactness", caption, header, lines, footnotes)


def _drift(config: Config, rows: Rows, run: Run) -> Table:
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
    lines = []
    for form in (INVERSE, KEPT):
        for l2 in config.l2s:
            own = rows.where(method=form, l2=l2)
            drift, shown = own.values("drift"), own.values("prediction_drift")
            if not drift.size:
                continue
            places = own.where("prediction_drift").places("position")
            passed = [p for p, v in zip(places, shown, strict=True) if not v <= BOUND]
            refused = own.where("refused").places("position")
            repairs = own.values("repairs")
            lines.append(
                [
                    form,
                    f"{l2:g}",
                    drift[0],
                    drift[len(drift) // 2],
                    drift[-1],
                    max(shown),
                    str(min(passed)) if passed else "never",
                    str(min(refused)) if refused else "never",
                    str(len(refused)),
                    str(round(repairs[0])) if repairs.size else None,
                ]
            )
    notes = (
        "Drift: distance to the solution from the sums, at each place where it was "
        "measured. After a refused request the inverse is made anew from the sums.",
    )
    return table("drift", f"Drift. {about(run)}", header, lines, notes)


def _single(l2s: Sequence[float], rows: Rows, run: Run) -> Table:
    header = (
        "l2",
        "condition number",
        "solved",
        "error it reports",
        "true error",
        "predictions to the truth",
        "sums exact",
    )
    lines = []
    for l2 in l2s:
        own = rows.where(method=SINGLE, l2=l2)
        refused = own.values("solve_refused")
        lines.append(
            [
                f"{l2:g}",
                _most(rows, "condition", l2=l2),
                f"{len(refused) - round(sum(refused))} of {len(refused)}",
                _most(own, "reported_error"),
                _most(own, "head_error"),
                _most(own, "predictions", to="reference"),
                _yes(all(own.values("exact"))),
            ]
        )
    footnote = "Not solved: refused, the state unharmed. Largest values where solved."
    caption = f"Sums in float32. {about(run)}"
    return table("single", caption, header, lines, (footnote,))


def figure_rows(rows: Rows) -> list[dict[str, Any]]:
    """One row for each point: ``panel``, ``quantity``, ``form``, ``kind``."""
    names = {
        "head_error": ("head", "checked"),
        "predictions": ("predictions", "checked"),
        "drift": ("head", "watched"),
        "prediction_drift": ("predictions", "watched"),
        "refused": ("head", "refused"),
    }
    drawn = []
    for row in rows:
        at = row.at
        truly = at.get("to", "reference") == "reference"
        if at.get("method") in FORMS and row.metric in names and "l2" in at and truly:
            quantity, kind = names[row.metric]
            drawn.append(
                {
                    "panel": f"l2={at['l2']:g}",
                    "quantity": quantity,
                    "form": at["method"],
                    "kind": kind,
                    "position": at["position"],
                    "value": row.value,
                }
            )
    panels = {row["panel"] for row in drawn if row["kind"] == "checked"}
    return [row for row in drawn if row["panel"] in panels]


def _words(config: Config, rows: Rows) -> str:
    least, most, count, within, d = (
        f"{rows.value(name):.0f}"
        for name in (
            "smallest_request",
            "largest_request",
            "training_rows",
            "rows_at_start",
            "features",
        )
    )
    return (
        f"{config.requests} requests of {least} to {most} rows in a row; {count} "
        f"training rows, {within} of them within at the start; {config.width} random "
        f"features of {d} from the {config.model.name}. Sums and inverse kept together "
        f"follow the last {min(config.kept_last, config.requests)}, float32 the last "
        f"{min(config.single_last, config.requests)}."
    )


def _most(rows: Rows, metric: str, **at: str | float) -> float | None:
    found = rows.values(metric, **at)
    return max(found) if found.size else None


def _yes(answer: object) -> str:
    return "yes" if answer else "no"
