"""Which columns the tables have; a column appears when something recorded it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from unlearn_jax.evaluation import METRICS
from unlearn_jax.results.about import ARROWS, MEASURED, about
from unlearn_jax.results.summary import CellKey, Summary


class Column(NamedTuple):
    """One column of a comparison.

    Attributes:
        metric: Key of the metric.
        split: Split; None for the only one there is.
        title: What the header says, without unit and arrow.
        kind: ``value``, ``gap`` (to the oracle) or ``price`` (over the oracle's
            request: one retraining).
        factor: Multiplies the numbers before they are printed.
        unit: Of the printed number; empty for the metric's own.
        optional: A method may have nothing to put there.
    """

    metric: str
    split: str | None
    title: str
    kind: str = "value"
    factor: float = 1.0
    unit: str = ""
    optional: bool = False


_SPLITS = ("retain", "forget", "test")
_OWN = ("accuracy", "rmse")

WHAT_IT_DOES = (
    *(Column(name, split, f"{name} {split}") for name in _OWN for split in _SPLITS),
    *(
        Column(name, split, f"gap {split}", "gap", unit=unit)
        for name, unit in (("accuracy", "points"), ("rmse", ""))
        for split in _SPLITS
    ),
    Column("tug_of_war", None, "tug-of-war"),
)
CAN_ONE_TELL = (
    Column("mia_loss", "forget", "loss attack", unit="AUC"),
    Column("mia_logistic_loss", "forget", "logistic loss attack", unit="AUC"),
    Column("mia_logistic_entropy", "forget", "logistic entropy attack", unit="AUC"),
    Column("mia_lira", "forget", "likelihood-ratio attack", unit="AUC"),
    Column("mia_rmia", "forget", "pairwise-ratio attack", unit="AUC"),
    Column("mia_confidence", "forget", "MIA-efficacy"),
    Column("relearn_steps", None, "relearn"),
    Column("agreement", "forget", "agreement forget"),
    Column("agreement", "test", "agreement test"),
    Column("output_difference", "forget", "difference forget"),
    Column("output_difference", "test", "difference test"),
)
WHAT_IT_COSTS = (
    Column("parameter_change", None, "parameter change"),
    Column("prepare_seconds", None, "prepare", optional=True),
    Column("forget_seconds", None, "forget"),
    Column("prepare_cpu_seconds", None, "prepare ÷ retraining", "price", optional=True),
    Column("forget_cpu_seconds", None, "request ÷ retraining", "price"),
    Column("solver_steps", None, "solver", optional=True),
    Column("solver_residual", None, "residual", optional=True),
    Column("compile_seconds", None, "compile"),
    Column("peak_bytes", None, "peak", factor=1e-6, unit="MB", optional=True),
)


def brought(summaries: Mapping[CellKey, Summary]) -> tuple[Column, ...]:
    """A column for each split of every metric that only the user knows."""
    units = {key[1:]: summary.unit for key, summary in summaries.items()}
    return tuple(
        Column(metric, split, f"{metric} {split}".strip(), unit=unit)
        for (metric, split), unit in units.items()
        if metric not in METRICS and metric not in MEASURED
    )


def present(
    columns: tuple[Column, ...], summaries: Mapping[CellKey, Summary]
) -> list[Column]:
    """The columns for which any method recorded anything."""
    splits: dict[str, set[str]] = {}
    for _, metric, split in summaries:
        splits.setdefault(metric, set()).add(split)
    return [
        column
        for column in columns
        if (known := splits.get(column.metric))
        and (column.split is None or column.split in known or known <= {"", "all"})
    ]


def header(column: Column) -> str:
    """Title, unit and the arrow that says where to aim."""
    unit = "1" if column.kind == "price" else column.unit or about(column.metric).unit
    shown = "" if unit in ("1", "steps") else f" ({unit})"
    shown = f" {unit}" if unit in ("AUC", "steps") else shown
    return f"{column.title}{shown} {_arrow(column)}".rstrip()


def footnotes(columns: Sequence[Column]) -> list[str]:
    """A line per column, or per metric where columns differ by split only."""
    groups: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        groups.setdefault((column.metric, column.kind), []).append(column.title)
    lines = []
    for (metric, kind), titles in groups.items():
        described = about(metric)
        text = f"{described.summary}; {_aim(described.direction)}"
        if kind == "gap":
            text = (
                f"{metric}, method minus oracle of the same seeds, with the 95% "
                "interval (Student's t over training seeds); 0 is the aim"
            )
        lines.append(f"{', '.join(titles)}: {text}.")
    return lines


def _arrow(column: Column) -> str:
    if column.kind == "gap":
        return "→ 0"
    return ARROWS[about(column.metric).direction].replace(" oracle", "")


def _aim(direction: str) -> str:
    return {
        "oracle": "→ the oracle's value is the aim",
        "up": "↑ up to what two oracles show",
        "down": "↓ less is better",
    }.get(direction, "no aim of its own")
