"""What a state reveals: three tables, images that were found, and curves."""

import math
from typing import Any

from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from experiments.state_privacy.attacks import FOUND, RELEASES
from experiments.state_privacy.config import Config
from experiments.state_privacy.measure import GROUPS, NO_NOISE, SCORES
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.plot_state_privacy import pictures_figure, state_figure
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.run import Run
from unlearn_jax.results.table import Table


def show(config: Config, results: Results) -> list[Finding]:
    """Reconstruction, membership, noise; images that were found, and curves."""
    rows, run = results.rows, results.run
    tables = [_reconstruction(config, rows, run), _membership(config, rows, run)]
    if rows.places("epsilon"):
        tables.append(_noise(config, rows, run))
    return [Finding(tables, [_pictures(results), _curves(rows)])]


def _reconstruction(config: Config, rows: Rows, run: Run) -> Table:
    lines = []
    for count, own in rows.by("deleted"):
        lines.append(
            [
                str(count),
                _with_error(own, "rows_found"),
                _small(own, "row_error_median"),
                _small(own, "row_error_max"),
                _with_error(own, "label_right"),
                _small(own, "input_error_median"),
            ]
        )
    header = (
        "rows deleted at once",
        "rows found (%)",
        "row error, median",
        "row error, worst",
        "label right (%)",
        "image error, median",
    )
    notes = (
        f"The attacker has G and Q before and after the deletion; {config.trials} "
        f"deletions of each size, {config.width} random features; ± standard error.",
        f"Found: relative error below {FOUND:g}. Several rows: from "
        f"{config.starts} random rotations, {config.steps} steps each.",
        "Image error: relative, of the unit vector of pixels, by an attacker who knows "
        "the random kernel.",
    )
    caption = f"Deleted rows, found from two states. {about(run)}"
    return table("reconstruction", caption, header, lines, notes)


def _membership(config: Config, rows: Rows, run: Run) -> Table:
    lines = []
    for ratio, here in rows.by("ratio"):
        for score in SCORES:
            own = here.where(score=score)
            lines.append(
                [
                    f"{ratio:g}",
                    f"{here.value('features'):.0f}",
                    score,
                    *(_with_error(own.where(group=group), "auc") for group in GROUPS),
                    "yes" if here.value("equals_never_learnt") else "no",
                ]
            )
    header = (
        "rows for each feature",
        "features",
        "score",
        "AUC within",
        "AUC to be deleted, before",
        "AUC deleted, after → 0.5",
        "state equals never learnt",
    )
    notes = (
        f"Each group against rows never seen, by one state; l2 = {config.l2:g}; "
        "± standard error over examples, the same ones in every line.",
        "Within and deleted, after: the state after the deletion; before: that state "
        "and the rows to be deleted.",
        "Equals: G and Q after the deletion, bit for bit those of rows never learnt.",
    )
    caption = f"Who can be told from a row never seen. {about(run)}"
    return table("membership", caption, header, lines, notes)


def _noise(config: Config, rows: Rows, run: Run) -> Table:
    lines = []
    for epsilon, own in rows.by("epsilon"):
        lines.append(
            [
                epsilon if epsilon == NO_NOISE else f"{epsilon:g}",
                own.value("noise_multiplier"),
                _with_error(own, "accuracy"),
                _with_error(own, "cosine"),
                _small(own, "row_error_median"),
                _with_error(own, "auc"),
                own.value("auc_strongest"),
            ]
        )
    header = (
        "epsilon",
        "noise multiplier",
        "test accuracy (%) ↑",
        "deleted row, cosine ↓",
        "row error, median ↑",
        "AUC within, residual → 0.5",
        "AUC, no attacker above",
    )
    notes = (
        f"Epsilon of {RELEASES} releases together (before and after one deletion), "
        f"delta {config.delta:g}; rows clipped to a norm that knows no data; "
        f"{config.noise_width} random features; {config.draws} draws, ± standard "
        "error (AUC: over examples).",
        "Guess: the leading eigenvector of the difference. No attacker above: who "
        "knows all other rows, and everything but the noise.",
    )
    caption = f"Noise in the state: what it costs, what it hides. {about(run)}"
    return table("noise", caption, header, lines, notes)


def _pictures(results: Results) -> Drawing:
    rows, arrays = results.rows, results.arrays
    lines = {"deleted": arrays["deleted"]}
    lines |= {
        f"found, {count} at once": arrays[f"found/{count}"]
        for count in sorted(rows.places("deleted"), key=lambda count: count != 1)
    }
    finite = [epsilon for epsilon in rows.places("epsilon") if epsilon != NO_NOISE]
    if finite:
        most = max(finite)
        lines[f"1, epsilon {most:g}"] = arrays[f"noise/{most:g}"]
    images = {name: shown.mean(axis=-1) for name, shown in lines.items()}
    drawn = [
        {"line": name, "column": column, "pixel": pixel, "value": float(value)}
        for name, shown in images.items()
        for column, image in enumerate(shown)
        for pixel, value in enumerate(image.ravel())
    ]
    caption = (
        "Deleted images, and what an attacker with the states before and after finds; "
        "each image in its own range of grey."
    )
    return Drawing("pictures", pictures_figure(images), drawn, caption)


def _curves(rows: Rows) -> Drawing:
    drawn: list[dict[str, Any]] = []
    for row in [*rows.where("auc"), *rows.where("accuracy")]:
        attack, epsilon = "ratio" in row.at, row.at.get("epsilon")
        if row.metric == "auc" and not attack:
            continue
        drawn.append(
            {
                "panel": "membership" if attack else "noise",
                "group": row.at.get("group", ""),
                "score": row.at.get("score", ""),
                "x": row.at.get("ratio", math.inf if epsilon == NO_NOISE else epsilon),
                "value": row.value,
                "error": rows.value(f"{row.metric}_stderr", **row.at),
            }
        )
    caption = (
        "Left: attacks on the state, for rows within, rows to be deleted (state "
        "before), rows deleted (state after). Right: accuracy for an epsilon."
    )
    return Drawing("attacks", state_figure(drawn), drawn, caption)


def _with_error(rows: Rows, metric: str) -> str:
    return mean_and_error(rows.value(metric), rows.value(f"{metric}_stderr"))


def _small(rows: Rows, metric: str) -> str:
    return f"{rows.value(metric):.1e}"
