"""What there is, and what works here and now without a network.

Command: ``python -m experiments.list`` (all), or with ``studies``, ``requests``,
``methods``, ``attributions``, ``data``, ``models``, ``metrics``; ``--data.dir`` or
UNLEARN_DATA says where prepared sets lie. ``python -m experiments.list runs`` shows
what lies under ``results/``, of the studies, names, data or methods asked for.
"""

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import tyro

from experiments.frame import words
from experiments.frame.command import main
from experiments.frame.options import hyperparameters
from experiments.frame.requests import KINDS
from experiments.studies import STUDIES
from unlearn_jax.attribution import ATTRIBUTIONS
from unlearn_jax.data import DATASETS
from unlearn_jax.evaluation import METRICS
from unlearn_jax.methods import METHODS
from unlearn_jax.models import MODELS
from unlearn_jax.results.record import RecordError
from unlearn_jax.results.run import read_run

if TYPE_CHECKING:
    from rich.console import Group

Topic: TypeAlias = Literal[
    "all",
    "studies",
    "requests",
    "methods",
    "attributions",
    "data",
    "models",
    "metrics",
    "runs",
]


@dataclass(frozen=True)
class Place:
    """Where to look.

    Attributes:
        dir: Folder of prepared TensorFlow Datasets; None takes UNLEARN_DATA.
    """

    dir: Path | None = None


@dataclass(frozen=True)
class Listing:
    """What to show.

    Attributes:
        topic: One part, or all.
        data: Where to look for data sets.
        results: Folder of runs.
        having: Of runs, those that have each of these words in study, name, data,
            model, methods or scale.
    """

    topic: tyro.conf.Positional[Topic] = "all"
    data: Place = field(default_factory=Place)
    results: Path = Path("results")
    having: tuple[str, ...] = ()


def studies_table() -> list[tuple[str, ...]]:
    """Name and first line of each study."""
    rows = [("study", "what it asks")]
    return rows + [(name, study.title) for name, study in STUDIES.items()]


def requests_table() -> list[tuple[str, ...]]:
    """How each kind of forget set is written, and what it is."""
    rows = [("request", "what it forgets")]
    return rows + [(", ".join(kind.forms), kind.about) for kind in KINDS.values()]


def runs_table(folder: Path, having: Sequence[str]) -> list[tuple[str, ...]]:
    """Every run under a folder, the latest last; damaged ones are named."""
    head = ("run", "study", "name", "data", "model", "methods", "scale", "seconds")
    rows: list[tuple[str, ...]] = [head]
    for path in sorted(folder.glob("*/*/run.json"), key=lambda p: p.parent.name):
        try:
            run = read_run(path.parent)
        except RecordError as error:
            rows.append((path.parent.name, f"damaged: {error}", *[""] * 6))
            continue
        config = run.config
        model = config.get("model", config.get("net", ""))
        words = (
            run.experiment,
            str(config.get("name", "")),
            run.dataset,
            model["name"] if isinstance(model, dict) else str(model),
            ", ".join(config.get("methods", [])),
            run.scale,
        )
        if all(any(word in text for text in words) for word in having):
            spent = "not finished" if run.seconds is None else f"{run.seconds:.0f}"
            rows.append((run.id, *words, spent))
    return rows


def methods_table() -> list[tuple[str, ...]]:
    """Name, tasks, what it reads, whether it prepares, hyper-parameters, source."""
    rows = [("method", "tasks", "reads", "prepares", "hyper-parameters", "source")]
    for name, entry in METHODS.items():
        words = hyperparameters(entry.factory).values()
        rows.append(
            (
                name,
                ", ".join(entry.tasks),
                entry.reads,
                "yes" if entry.prepares else "no",
                ", ".join(f"{word.name}={word.default}" for word in words) or "none",
                entry.source,
            )
        )
    return rows


def attributions_table() -> list[tuple[str, ...]]:
    """Name, evidence that it reads, hyper-parameters, source."""
    rows = [("attribution", "reads", "hyper-parameters", "source")]
    for name, entry in ATTRIBUTIONS.items():
        words = hyperparameters(entry.factory).values()
        told = ", ".join(f"{word.name}={word.default}" for word in words) or "none"
        rows.append((name, ", ".join(entry.reads), told, entry.source))
    return rows


def data_table(folder: Path | None) -> list[tuple[str, ...]]:
    """Name, true title, task, and what is missing for it to work now."""
    rows = [("data set", "title", "task", "works here now")]
    for name, source in DATASETS.items():
        missing = source.missing(folder)
        rows.append(
            (name, source.title, source.task, f"no: {missing}" if missing else "yes")
        )
    return rows


def models_table() -> list[tuple[str, ...]]:
    """Name and first line of each model's documentation."""
    rows = [("model", "what it is", "works here now")]
    for name, factory in MODELS.items():
        first = (inspect.getdoc(factory) or "").splitlines()[0]
        rows.append((name, first, "yes"))
    return rows


def metrics_table() -> list[tuple[str, ...]]:
    """Name, unit, where to aim, tasks, and what it is."""
    rows = [("metric", "unit", "aim", "tasks", "what it is")]
    rows += [
        (name, m.unit, m.direction, ", ".join(m.tasks), m.summary)
        for name, m in METRICS.items()
    ]
    return rows


def laid_out(topic: str, rows: Sequence[tuple[str, ...]], width: int) -> "Group":
    """A table where every word fits its column, otherwise a paragraph for each row."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    head, *body = rows
    title = Text(topic, style="bold")
    columns = list(zip(*rows, strict=True))
    wide = [max(map(len, column)) for column in columns]
    least = wide[:1] + [
        max((len(word) for cell in column for word in cell.split()), default=0)
        for column in columns[1:]
    ]
    spare = width - sum(least) - 3 * len(head) - 1
    if spare < 0:
        told = []
        for name, *cells in body:
            pairs = zip(head[1:], cells, strict=True)
            line = "; ".join(f"{word}: {cell}" for word, cell in pairs if cell)
            told += [Text(name, style="bold"), Padding(Text(line), (0, 0, 0, 4))]
        return Group(title, *told, "")
    for _ in range(spare):
        short = max(range(len(head)), key=lambda i: wide[i] - least[i])
        least[short] += wide[short] > least[short]
    table = Table()
    for word, size in zip(head, least, strict=True):
        table.add_column(Text(word), width=size)
    for row in body:
        table.add_row(*map(Text, row))
    return Group(title, table)


def command(arguments: Sequence[str]) -> int:
    """Print the tables asked for."""
    from rich.console import Console

    prog = "python -m experiments.list"
    asked = words.asked(Listing, arguments, prog=prog, description=__doc__)
    tables = {
        "studies": studies_table,
        "requests": requests_table,
        "methods": methods_table,
        "attributions": attributions_table,
        "data": lambda: data_table(asked.data.dir),
        "models": models_table,
        "metrics": metrics_table,
    }
    if asked.topic == "runs":
        tables = {"runs": lambda: runs_table(asked.results, asked.having)}
    console = Console() if sys.stdout.isatty() else Console(width=160)
    for topic, rows in tables.items():
        if asked.topic in ("all", topic):
            console.print(laid_out(topic, rows(), console.width))
    return 0


if __name__ == "__main__":
    main(command)
