"""From margins to KLoM: notes, tables and the rows of the figure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments._dmm_contenders import ORACLE_MATCHING, Contender
from experiments._dmm_run import CONTROL, ORACLE, ORIGINAL, Asked, Judged, Trained
from experiments._dmm_setting import Config
from experiments._study import Note, about, table
from unlearn_jax.evaluation.klom import Percentiles, klom, klom_floor, percentiles
from unlearn_jax.evaluation.unlearning_lira import unlearning_lira
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.run import Run
from unlearn_jax.results.table import Table

SPLITS = ("forget", "retain", "validation")
TUNED_ON = ("forget", "retain")
_WORST = 100.0  # where klom clips, nats


class Line(NamedTuple):
    """Value: one contender on one request.

    Attributes:
        request: Name of the forget set.
        family: Row.
        setting: Hyper-parameters in words.
        klom: Percentiles by split.
        gradients: Example gradients at the request; None for models as trained.
        seconds: Of one request; None likewise.
        agreement: Correlation over forgotten points of the mean change of the margin
            with the oracles' mean change, each from one half of the originals.
        size: Mean change of the margin over that of the oracles, forgotten points.
        attack: Accuracy of U-LiRA on the forget set and its standard error (%).
    """

    request: str
    family: str
    setting: str
    klom: dict[str, Percentiles]
    gradients: float | None
    seconds: float | None
    agreement: float
    size: float
    attack: tuple[float, float]


def lines_of(
    config: Config,
    trained: Trained,
    judged: Mapping[tuple[str, str, str], Judged],
    every: list[Contender],
) -> list[Line]:
    """KLoM of everybody against the first half of the oracles."""
    prices = {(c.family, c.setting): c.gradients for c in every}
    found = []
    for asked in trained.asked:
        truth = judged[asked.name, ORACLE, ""].margins
        before = judged[asked.name, ORIGINAL, ""].margins
        retained = len(asked.request.retain.targets) - len(asked.forget)
        for (request, family, setting), one in judged.items():
            if request != asked.name or family == ORACLE:
                continue
            price = prices.get((family, setting))
            found.append(
                Line(
                    request,
                    family,
                    setting,
                    _by_split(asked, one.margins, truth),
                    price(len(asked.forget), retained) if price else None,
                    one.seconds if price else None,
                    *_change(asked, one.margins, truth, before),
                    _attack(asked, one.margins, truth),
                )
            )
    return found


def chosen_settings(config: Config, lines: list[Line]) -> dict[str, str]:
    """The setting of each family with the least KLoM on the first request."""
    best: dict[str, tuple[float, str]] = {}
    for line in lines:
        if line.request != config.requests[0]:
            continue
        score = sum(float(line.klom[split].p95) for split in TUNED_ON)
        if line.family not in best or score < best[line.family][0]:
            best[line.family] = (score, line.setting)
    return {family: setting for family, (_, setting) in best.items()}


def notes_of(lines: list[Line], chosen: Mapping[str, str]) -> list[Note]:
    """Every number as a record."""
    notes = []
    for line in lines:
        mine = chosen.get(line.family) == line.setting
        name = line.family if mine else f"{line.family} ({line.setting})"
        for split, values in line.klom.items():
            for metric in ("p50", "p95", "mean"):
                value = float(getattr(values, metric))
                notes.append(
                    Note(name, f"klom_{metric}", value, "nats", line.request, split)
                )
        for metric, value, unit in (
            ("gradients", line.gradients, "1"),
            ("forget_seconds", line.seconds, "s"),
            ("agreement", line.agreement, "1"),
            ("size", line.size, "1"),
            ("unlearning_lira", line.attack[0], "%"),
            ("unlearning_lira_stderr", line.attack[1], "%"),
        ):
            if value is not None and np.isfinite(value):
                notes.append(Note(name, metric, value, unit, line.request))
    return notes


def tables_of(
    config: Config,
    trained: Trained,
    lines: list[Line],
    chosen: Mapping[str, str],
    prepared: Mapping[str, float],
    run: Run,
) -> list[Table]:
    """One table for each forget set."""
    return [
        _table(config, asked, lines, chosen, prepared, run) for asked in trained.asked
    ]


def figure_rows(
    config: Config, lines: list[Line], chosen: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What ``dmm_figure`` draws."""
    floor = float(klom_floor(config.originals).centre.p95)
    return [
        {
            "request": line.request,
            "split": split,
            "family": line.family,
            "setting": line.setting,
            "gradients": line.gradients or 0.0,
            "p95": float(line.klom[split].p95),
            "chosen": chosen.get(line.family) == line.setting,
            "floor": floor,
        }
        for split in TUNED_ON
        for line in lines
    ]


def _finite(margins: np.ndarray) -> np.ndarray:
    """A model that diverged says the worst of everything."""
    found = np.nan_to_num(margins, nan=-_WORST, posinf=_WORST, neginf=-_WORST)
    return np.clip(found, -_WORST, _WORST).astype(np.float64)


def _attack(
    asked: Asked, margins: np.ndarray, truth: np.ndarray
) -> tuple[float, float]:
    lost = asked.points.split == "forget"
    found = unlearning_lira(
        jax.random.key(0), _finite(margins)[:, lost], _finite(truth)[:, lost]
    )
    return found.accuracy, found.accuracy_error


def _by_split(
    asked: Asked, margins: np.ndarray, truth: np.ndarray
) -> dict[str, Percentiles]:
    values = klom(_finite(margins), _finite(truth))
    return {split: percentiles(values[asked.points.split == split]) for split in SPLITS}


def _change(
    asked: Asked, margins: np.ndarray, truth: np.ndarray, before: np.ndarray
) -> tuple[float, float]:
    """Correlation and relative size of the mean change of forgotten margins.

    The change is that of one half of the originals, what the oracles ask for that from
    the other half: on the same half its noise would be in both.
    """
    lost = asked.points.split == "forget"
    unlearned, originals = _finite(margins)[:, lost], before[:, lost]
    oracle, half = truth[:, lost].mean(0), len(before) // 2
    parts = (slice(None, half), slice(half, 2 * half))
    found = []
    for own, other in (parts, parts[::-1]):
        change = unlearned[own].mean(0) - originals[own].mean(0)
        wanted = oracle - originals[other].mean(0)
        if np.std(change) == 0:
            return float("nan"), 0.0
        correlation = np.corrcoef(change, wanted)[0, 1]
        found.append((correlation, change.mean() / wanted.mean()))
    agreement, size = np.mean(found, axis=0)
    return float(agreement), float(size)


def _table(
    config: Config,
    asked: Asked,
    lines: list[Line],
    chosen: Mapping[str, str],
    prepared: Mapping[str, float],
    run: Run,
) -> Table:
    floor = klom_floor(config.originals).centre
    retained = len(asked.request.retain.targets) - len(asked.forget)
    rows: list[list[Any]] = [
        ["floor (simulated)", *([float(floor.p95)] * 3), float(floor.p50), *[None] * 6]
    ]
    own = [line for line in lines if line.request == asked.name]
    order = {ORIGINAL: 1, CONTROL: 0, ORACLE_MATCHING: 9}
    for line in sorted(own, key=lambda each: order.get(each.family, 5)):
        if chosen.get(line.family) != line.setting:
            continue
        cells = [float(line.klom[split].p95) for split in SPLITS]
        agreement = line.agreement if np.isfinite(line.agreement) else None
        rows.append(
            [
                line.family,
                *cells,
                float(line.klom["forget"].p50),
                mean_and_error(*line.attack),
                agreement,
                line.size,
                line.gradients,
                line.seconds,
                line.setting or None,
            ]
        )
    header = (
        "method",
        "P95 forget ↓",
        "P95 retain ↓",
        "P95 validation ↓",
        "P50 forget ↓",
        "U-LiRA (%) → 50",
        "agreement ↑",
        "size → 1",
        "example gradients ↓",
        "seconds ↓",
        "setting",
    )
    times = ", ".join(f"{name} {value:.1f} s" for name, value in prepared.items())
    notes = (
        f"KLoM in nats: {config.originals} unlearned models against as many oracles, "
        "20 bins, floor 1e-5, last bin closed.",
        "Settings were chosen on the first forget set, with its oracles in sight; they "
        "count as tuned elsewhere only.",
        "U-LiRA: accuracy of telling unlearned models from oracles by one forgotten "
        "example, ± standard error over models.",
        "Agreement: correlation over forgotten examples of the mean change of the "
        "margin with the oracles', each from another half of the originals. Seconds: "
        "median of one request, without what was prepared before"
        f" ({times or 'read from an earlier run'}); of a direct "
        "prediction for all judged examples, its gradients for the forgotten alone.",
        f"Retraining takes {retained * config.recipe.epochs:g} example gradients; a "
        "forward pass counts a third.",
    )
    caption = f"Forget set {asked.name}, {len(asked.forget)} examples. {about(run)}"
    return table(f"dmm-{asked.name}", caption, header, rows, notes)
