"""Rows to one table for each forget set, and the figure of distance against price."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from experiments.dmm.config import Config
from experiments.dmm.contenders import ORACLE_MATCHING
from experiments.dmm.judge import SPLITS
from experiments.dmm.measure import CONTROL, ORIGINAL
from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from unlearn_jax.evaluation.klom import Percentiles, klom_floor
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.plot_dmm import dmm_figure
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.table import Table

TUNED_ON = ("forget", "retain")
COLUMNS = {
    "agreement": "agreement ↑",
    "size": "size → 1",
    "gradients": "example gradients ↓",
    "forget_seconds": "seconds ↓",
    "prepare_seconds": "prepared, seconds ↓",
}
SCORES = {
    "final_score": "score → control",
    "forgetting_quality": "forgetting quality → control",
    "epsilon": "epsilon",
}

Lines: TypeAlias = Mapping[tuple[str, str], Mapping[tuple[str, str], Any]]
"""Numbers of one request: by method and setting, then by metric and split."""


def show(config: Config, results: Results) -> list[Finding]:
    """Two tables for each forget set, one figure."""
    every = lines_of(results.rows)
    chosen = chosen_settings(next(iter(every.values())))
    floor = klom_floor(config.originals).centre
    drawn = figure_rows(every, chosen, float(floor.p95))
    caption = (
        "KLoM, 95th percentile over forgotten (above) and retained (below) "
        "examples, against the example gradients that the request takes."
    )
    tables = [
        _table(config, results, request, lines, chosen, floor)
        for request, lines in every.items()
    ]
    tables += [
        _scores(config, results, request, lines, chosen)
        for request, lines in every.items()
    ]
    return [Finding(tables, [Drawing("dmm", dmm_figure(drawn), drawn, caption)])]


def lines_of(rows: Rows) -> dict[str, Lines]:
    """Numbers by request, in the order of the rows."""
    found: dict[str, Any] = {}
    for row in rows:
        lines: Any = found.setdefault(str(row.at["request"]), {})
        if "method" in row.at:
            own = lines.setdefault((row.at["method"], row.at["setting"]), {})
            own[row.metric, row.at.get("split", "")] = row.value
    return found


def chosen_settings(lines: Lines) -> dict[str, str]:
    """The setting of each method with the least KLoM on this request."""
    best: dict[str, tuple[float, str]] = {}
    for (family, setting), own in lines.items():
        score = sum(own["klom_p95", split] for split in TUNED_ON)
        if family not in best or score < best[family][0]:
            best[family] = (score, setting)
    return {family: setting for family, (_, setting) in best.items()}


def figure_rows(
    every: Mapping[str, Lines], chosen: Mapping[str, str], floor: float
) -> list[dict[str, Any]]:
    """What ``dmm_figure`` draws."""
    return [
        {
            "request": request,
            "split": split,
            "family": family,
            "setting": setting,
            "gradients": own.get(("gradients", ""), 0.0),
            "p95": own["klom_p95", split],
            "chosen": chosen.get(family) == setting,
            "floor": floor,
        }
        for split in TUNED_ON
        for request, lines in every.items()
        for (family, setting), own in lines.items()
    ]


def _scores(
    config: Config,
    results: Results,
    request: str,
    lines: Lines,
    chosen: Mapping[str, str],
) -> Table:
    rows = []
    for family, setting in _in_order(lines, chosen):
        own = lines[family, setting]
        shares = [own["accuracy", split] for split in SPLITS]
        found = [own.get((name, "")) for name in SCORES]
        rows.append([family, *found, *shares, setting or None])
    header = (
        "method",
        *SCORES.values(),
        *(f"accuracy {split} (%)" for split in SPLITS),
        "setting",
    )
    whose = (
        "one original with as many keys"
        if config.one_original
        else ("as many originals, each by itself, where the challenge has one")
    )
    notes = (
        f"Forgetting quality of NeurIPS 2023: {config.originals} models unlearned from "
        f"{whose}, against as many oracles; 0 where each forgotten example tells them "
        "apart. Two finite sets of oracles do not get 1: theirs is the row to compare "
        "with.",
        "Score: quality times retain and validation accuracy over the oracles'; it has "
        "no ceiling. Epsilon: median over forgotten examples, 50 where they are told "
        "apart or hardly vary.",
    )
    caption = f"Score, forget set {request}. {about(results.run)}"
    return table(f"score-{request}", caption, header, rows, notes)


def _in_order(lines: Lines, chosen: Mapping[str, str]) -> list[tuple[str, str]]:
    """The chosen setting of each method, references first."""
    order = {CONTROL: 0, ORIGINAL: 1, ORACLE_MATCHING: 9}
    every = sorted(lines, key=lambda each: order.get(each[0], 5))
    return [(family, own) for family, own in every if chosen.get(family) == own]


def _table(
    config: Config,
    results: Results,
    request: str,
    lines: Lines,
    chosen: Mapping[str, str],
    floor: Percentiles,
) -> Table:
    known = [float(floor.p95)] * 3 + [float(floor.p50)]
    rows = [["floor (simulated)", *known, *[None] * (len(COLUMNS) + 2)]]
    for family, setting in _in_order(lines, chosen):
        own = lines[family, setting]
        attack = (own["unlearning_lira", ""], own["unlearning_lira_stderr", ""])
        distances = [own["klom_p95", split] for split in SPLITS]
        others = [own.get((name, "")) for name in COLUMNS]
        distances.append(own["klom_p50", "forget"])
        rows.append(
            [family, *distances, mean_and_error(*attack), *others, setting or None]
        )
    header = (
        "method",
        *(f"P95 {split} ↓" for split in SPLITS),
        "P50 forget ↓",
        "U-LiRA (%) → 50",
        *COLUMNS.values(),
        "setting",
    )
    lost, retained = (
        results.rows.value("examples", request=request, split=split)
        for split in TUNED_ON
    )
    notes = (
        f"KLoM in nats: {config.originals} unlearned models against as many oracles, "
        "20 bins, floor 1e-5, last bin closed.",
        "Settings were chosen on the first forget set, with its oracles in sight; they "
        "count as tuned elsewhere only.",
        "U-LiRA: accuracy of telling unlearned models from oracles by one forgotten "
        "example, ± standard error over models.",
        "Agreement: correlation over forgotten examples of the mean change of the "
        "margin with the oracles', each from another half of the originals. Seconds: "
        "one request of one original; of a direct prediction for all judged examples, "
        "its gradients for the forgotten alone. Prepared: before any request; for one "
        "original by a method and for the unrolled response, for all of them by other "
        "attributions.",
        f"Retraining takes {retained * config.recipe.epochs:g} example gradients; a "
        "forward pass counts a third.",
    )
    caption = f"Forget set {request}, {lost:g} examples. {about(results.run)}"
    return table(f"dmm-{request}", caption, header, rows, notes)
