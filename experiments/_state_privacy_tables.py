"""Numbers, tables and figures of what a state reveals."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments._state_privacy import (
    FOUND,
    RELEASES,
    Guessed,
    Measured,
    Memberships,
    Setting,
)
from experiments._study import Drawing, Note, about, table
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.plot_state_privacy import pictures_figure, state_figure
from unlearn_jax.results.run import Run
from unlearn_jax.results.table import Table

METHOD = "analytic state"
SCORES = ("residual", "leverage")
GROUPS = {"within": "within", "to be deleted": "before", "deleted": "deleted"}
"""Which rows are attacked, and the name of the attack."""
_COLUMNS = 8


def found_shares(guesses: Sequence[Guessed]) -> np.ndarray:
    """Share of rows found in each trial (%)."""
    return np.array([100 * float(np.mean(g.row_error < FOUND)) for g in guesses])


def notes_of(measured: Measured) -> list[Note]:
    """Every number of a run."""
    notes = []
    for count, guesses in measured.guesses.items():
        shares = found_shares(guesses)
        numbers = {
            "rows_found": (*_mean(shares), "%"),
            "row_error_median": (_over(np.median, guesses, "row_error"), None, "1"),
            "row_error_max": (_over(np.max, guesses, "row_error"), None, "1"),
            "label_right": (*_mean(_labels(guesses)), "%"),
            "input_error_median": (_over(np.median, guesses, "input_error"), None, "1"),
        }
        for metric, (value, error, unit) in numbers.items():
            notes += _notes(metric, value, error, unit, f"delete {count}")
    for ratio, (_, attacks) in measured.attacks.items():
        request = f"{ratio:g} rows a feature"
        for group, score, (value, error) in _areas(attacks):
            name = f"auc_{score}"
            notes += _notes(name, value, error, "1", request, split=group)
        equal = float(attacks.equal)
        notes += _notes("equals_never_learnt", equal, None, "1", request)
    for epsilon, noisy in measured.noise.items():
        request = f"epsilon {epsilon:g}"
        numbers = {
            "noise_multiplier": (noisy.multiplier, None, "1"),
            "accuracy": (*_mean(noisy.accuracies), "%"),
            "cosine": (*_mean(noisy.cosines), "1"),
            "row_error_median": (float(np.median(noisy.row_errors)), None, "1"),
            "auc_residual": (*noisy.within, "1"),
            "auc_strongest": (noisy.strongest, None, "1"),
        }
        for metric, (value, error, unit) in numbers.items():
            notes += _notes(metric, value, error, unit, request)
    return notes


def tables(config: Any, measured: Measured, run: Run) -> list[Table]:
    """Reconstruction, membership, noise."""
    found = [_reconstruction(config, measured, run), _membership(config, measured, run)]
    return [*found, _noise(config, measured, run)] if measured.noise else found


def drawings(measured: Measured, setting: Setting) -> list[Drawing]:
    """Images that were found; attacks and accuracy."""
    return [_pictures(measured, setting), _curves(measured)]


def _reconstruction(config: Any, measured: Measured, run: Run) -> Table:
    lines = []
    for count, guesses in measured.guesses.items():
        lines.append(
            [
                str(count),
                mean_and_error(*_mean(found_shares(guesses))),
                _small(_over(np.median, guesses, "row_error")),
                _small(_over(np.max, guesses, "row_error")),
                mean_and_error(*_mean(_labels(guesses))),
                _small(_over(np.median, guesses, "input_error")),
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


def _membership(config: Any, measured: Measured, run: Run) -> Table:
    lines = []
    for ratio, (width, attacks) in measured.attacks.items():
        cells = {
            (group, score): mean_and_error(value, error)
            for group, score, (value, error) in _areas(attacks)
        }
        for score in SCORES:
            own = [cells[group, score] for group in GROUPS]
            equal = "yes" if attacks.equal else "no"
            lines.append([f"{ratio:g}", str(width), score, *own, equal])
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


def _noise(config: Any, measured: Measured, run: Run) -> Table:
    lines = []
    for epsilon, noisy in measured.noise.items():
        lines.append(
            [
                "no noise" if math.isinf(epsilon) else f"{epsilon:g}",
                noisy.multiplier,
                mean_and_error(*_mean(noisy.accuracies)),
                mean_and_error(*_mean(noisy.cosines)),
                _small(float(np.median(noisy.row_errors))),
                mean_and_error(*noisy.within),
                noisy.strongest,
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


def _pictures(measured: Measured, setting: Setting) -> Drawing:
    sizes = list(measured.guesses)
    lines = {"deleted": setting.deleted.unit}
    if 1 in sizes:
        alone = [guess.inputs[0] for guess in measured.guesses[1]]
        lines["found, 1 at once"] = np.array(alone)
    lines |= {
        f"found, {size} at once": measured.guesses[size][0].inputs
        for size in sizes
        if size > 1
    }
    finite = [epsilon for epsilon in measured.noise if math.isfinite(epsilon)]
    if finite:
        most = max(finite)
        lines[f"1, epsilon {most:g}"] = measured.noise[most].inputs
    lines = {name: shown[:_COLUMNS] for name, shown in lines.items()}
    images = {
        name: shown.reshape(len(shown), *setting.shape).mean(axis=-1)
        for name, shown in lines.items()
    }
    rows = [
        {"line": name, "column": column, "pixel": pixel, "value": float(value)}
        for name, shown in images.items()
        for column, image in enumerate(shown)
        for pixel, value in enumerate(image.ravel())
    ]
    caption = (
        "Deleted images, and what an attacker with the states before and after finds; "
        "each image in its own range of grey."
    )
    return Drawing("pictures", pictures_figure(images), rows, caption)


def _curves(measured: Measured) -> Drawing:
    rows = []
    for ratio, (_, attacks) in measured.attacks.items():
        for group, score, (value, error) in _areas(attacks):
            rows.append(_row("membership", group, score, ratio, value, error))
    for epsilon, noisy in measured.noise.items():
        rows.append(_row("noise", "", "", epsilon, *_mean(noisy.accuracies)))
    caption = (
        "Left: attacks on the state, for rows within, rows to be deleted (state "
        "before), rows deleted (state after). Right: accuracy for an epsilon."
    )
    return Drawing("attacks", state_figure(rows), rows, caption)


def _row(
    panel: str, group: str, score: str, x: float, value: float, error: float
) -> dict[str, Any]:
    numbers = {"x": x, "value": value, "error": error}
    return {"panel": panel, "group": group, "score": score} | numbers


def _areas(attacks: Memberships) -> list[tuple[str, str, tuple[float, float]]]:
    found = []
    for group, field in GROUPS.items():
        for score in SCORES:
            attack = getattr(getattr(attacks, field), score)
            found.append((group, score, (attack.auc, attack.auc_error)))
    return found


def _notes(
    metric: str,
    value: float,
    error: float | None,
    unit: str,
    request: str,
    *,
    split: str = "",
) -> list[Note]:
    notes = [Note(METHOD, metric, value, unit, request=request, split=split)]
    if error is not None:
        name = f"{metric}_stderr"
        notes.append(Note(METHOD, name, error, unit, request=request, split=split))
    return notes


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error; NaN from one value."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)


def _over(what: Any, guesses: Sequence[Guessed], field: str) -> float:
    return float(what(np.concatenate([getattr(guess, field) for guess in guesses])))


def _labels(guesses: Sequence[Guessed]) -> np.ndarray:
    return np.array([100 * float(np.mean(guess.label_right)) for guess in guesses])


def _small(number: float) -> str:
    return f"{number:.1e}"
