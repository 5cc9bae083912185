"""Tables and figure of the corrective study."""

import numpy as np

from experiments.corrective.config import Config
from experiments.corrective.contestants import STRENGTHS
from experiments.corrective.exposing import exposure_table
from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.plot_corrective import corrective_figure
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.summary import ORIGINAL
from unlearn_jax.results.table import Table

_SHOWN = 4


def show(config: Config, results: Results) -> list[Finding]:
    """A table for each kind, and the curves over the known share."""
    tables = [_table(config, results, kind) for kind in config.kinds]
    if config.clean and "backdoor" in config.kinds:
        tables.append(exposure_table(config, results))
    return [Finding(tables, [_curves(results.rows)])]


def _curves(rows: Rows) -> Drawing:
    names = ("kind", "split", "method", "share")
    done = [row.at for row in rows.where("accuracy") if "share" in row.at]
    drawn = []
    for place in dict.fromkeys(tuple(at[name] for name in names) for at in done):
        at = dict(zip(names, place, strict=True))
        mean, error = rows.mean("accuracy", **at)
        drawn.append({**at, "value": mean, "stderr": error})
    caption = (
        "Accuracy against true labels over the known share of the bad examples: where "
        "the manipulation shows (above) and elsewhere (below). Dashed: the model "
        "before correction. Bars: standard error over seeds."
    )
    return Drawing("corrective", corrective_figure(drawn), drawn, caption)


def _table(config: Config, results: Results, kind: str) -> Table:
    rows, shares = results.rows.where(kind=kind), sorted(config.shares)
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
    for method, own in rows.by("method"):
        if not own.places("share"):
            lines.append([method, *[None] * (len(header) - 1)])
            continue
        first = method == ORIGINAL
        corrected = [
            mean_and_error(*own.mean("accuracy", split="corrected", share=share))
            for share in ([0.0] * len(shown) if first else shown)
        ]
        retained = min(
            own.mean("accuracy", split="retained", share=share)
            for share in own.places("share")
        )
        left = None if first else own.mean("agreement", share=shares[-1])[0]
        seconds = None if first else own.mean("seconds")[0]
        lines.append([method, *corrected, mean_and_error(*retained), left, seconds])
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
    notes = (
        what,
        f"Mean ± standard error over {config.seeds} seeds; each draws its own bad "
        "examples, and the known part of them.",
        f"Strengths ({searched}): the weakest after which the known bad examples keep "
        f"at most {config.rho:g} of their agreement with their labels, and the other "
        f"training examples at least {config.keep:g}. Nothing is chosen by test "
        "accuracy. Seconds: all that was tried, compilation left out.",
    )
    caption = f"Corrective unlearning, {kind}. {about(results.run)}"
    return table(f"corrective_{kind}", caption, header, lines, notes)
