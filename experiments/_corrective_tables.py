"""Tables and figure of the corrective study."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments._corrective import ORIGINAL
from experiments._corrective_methods import STRENGTHS
from experiments._study import Drawing, Note, about, table
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.plot_corrective import corrective_figure
from unlearn_jax.results.run import Run
from unlearn_jax.results.table import Table

_SHOWN = 4


def tables(config: Any, notes: Sequence[Note], run: Run) -> list[Table]:
    """One for each kind: accuracies over some shares, and the price."""
    return [_table(config, notes, kind, run) for kind in config.kinds]


def drawings(notes: Sequence[Note]) -> list[Drawing]:
    """The curves over the known share."""
    rows = []
    for method, request, split in dict.fromkeys(
        (note.method, note.request, note.split)
        for note in notes
        if note.metric == "accuracy"
    ):
        kind, _, share = request.partition(":")
        mean, error = _mean(notes, method, request, "accuracy", split)
        rows.append(
            {
                "kind": kind,
                "split": split,
                "method": method,
                "share": float(share),
                "value": mean,
                "stderr": error,
            }
        )
    caption = (
        "Accuracy against true labels over the known share of the bad examples: where "
        "the manipulation shows (above) and elsewhere (below). Dashed: the model "
        "before correction. Bars: standard error over seeds."
    )
    return [Drawing("corrective", corrective_figure(rows), rows, caption)]


def _table(config: Any, notes: Sequence[Note], kind: str, run: Run) -> Table:
    shares = sorted(config.shares)
    places = np.unique(np.linspace(0, len(shares) - 1, _SHOWN).round().astype(int))
    shown = [shares[place] for place in places]
    header = (
        "method",
        *(f"corrected, {share:.0%} known (%) ↑" for share in shown),
        "retained, worst share (%) ↑",
        "bad labels left, all known (%) ↓",
        "forget (s) ↓",
    )
    lines = []
    for method in dict.fromkeys(note.method for note in notes):
        if method == ORIGINAL:
            cells = [
                mean_and_error(*_mean(notes, method, f"{kind}:0", "accuracy", split))
                for split in ("corrected", "retained")
            ]
            lines.append([method, *[cells[0]] * len(shown), cells[1], None, None])
            continue
        requests = [f"{kind}:{share:g}" for share in shares]
        corrected = [
            mean_and_error(
                *_mean(notes, method, f"{kind}:{share:g}", "accuracy", "corrected")
            )
            for share in shown
        ]
        retained = min(
            (_mean(notes, method, text, "accuracy", "retained") for text in requests),
            key=lambda pair: pair[0],
        )
        left, _ = _mean(notes, method, requests[-1], "agreement", "forget")
        seconds = [_mean(notes, method, text, "seconds", "")[0] for text in requests]
        lines.append(
            [
                method,
                *corrected,
                mean_and_error(*retained),
                left,
                float(np.mean(seconds)),
            ]
        )
    bad = config.backdoor if kind == "backdoor" else config.confusion
    what = (
        f"{bad} training examples with a patch of side {config.patch} and label "
        f"{config.target}; corrected: all test images with the patch, as published, so "
        "that those of that label are right for nothing; retained: without."
        if kind == "backdoor"
        else f"{bad} training examples of the classes {config.classes[0]} and "
        f"{config.classes[1]} with swapped labels; corrected: test examples of these "
        "classes; retained: of the others."
    )
    searched = ", ".join(f"{name}'s {word}" for name, (word, _) in STRENGTHS.items())
    notes_below = (
        what,
        f"Mean ± standard error over {config.seeds} seeds; each draws its own bad "
        "examples, and the known part of them.",
        f"Strengths ({searched}): the weakest after which the known bad examples keep "
        f"at most {config.rho:g} of their agreement with their labels, and the other "
        f"training examples at least {config.keep:g}. Nothing is chosen by test "
        "accuracy. Seconds: all that was tried, compilation left out.",
    )
    caption = f"Corrective unlearning, {kind}. {about(run)}"
    return table(f"corrective_{kind}", caption, header, lines, notes_below)


def _mean(
    notes: Sequence[Note], method: str, request: str, metric: str, split: str
) -> tuple[float, float]:
    """Mean over seeds and its standard error."""
    asked = (method, request, metric, split)
    values = [
        note.value
        for note in notes
        if (note.method, note.request, note.metric, note.split) == asked
        and note.value is not None
    ]
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(np.mean(values)), float(error)
