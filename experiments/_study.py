"""Around every study of curvature: one folder with run, records, tables, figures."""

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import tyro

from experiments.frame.config import word_after
from unlearn_jax.results.cells import plain
from unlearn_jax.results.html import Picture, Section, page
from unlearn_jax.results.plot import save_figure
from unlearn_jax.results.record import RECORDS_FILE, Record, write_records
from unlearn_jax.results.resume import open_run
from unlearn_jax.results.run import Run, new_run, write_run
from unlearn_jax.results.table import Cell, Table
from unlearn_jax.storage.store import Store
from unlearn_jax.storage.write import write_bytes

ConfigT = TypeVar("ConfigT")


class Drawing(NamedTuple):
    """Description: a figure, the numbers it draws, and what it shows in words."""

    name: str
    figure: Any
    rows: list[dict[str, Any]]
    caption: str


class Findings(NamedTuple):
    """Description: what a study found."""

    records: list[Record]
    tables: list[Table]
    drawings: list[Drawing]


class Note(NamedTuple):
    """Value: one number before it is a record; see ``Record`` for the fields."""

    method: str
    metric: str
    value: float | None
    unit: str
    request: str = ""
    split: str = ""
    seed: int = 0
    failure: str = ""
    model: str = ""


def parse(
    kind: type[ConfigT],
    presets: Mapping[str, ConfigT],
    arguments: Sequence[str],
    prog: str,
    text: str | None,
) -> ConfigT:
    """The configuration of a command line: a preset, and what changes it.

    Raises:
        ValueError: no such scale.
    """
    scale = word_after(arguments, "--scale") or next(iter(presets))
    if scale not in presets:
        raise ValueError(f"--scale is {scale!r}; choose from {', '.join(presets)}")
    preset: Any = presets[scale]
    asked: Any = tyro.cli(
        kind, args=list(arguments), default=preset, prog=prog, description=text
    )
    free: dict[str, Any] = {"results": asked.results}
    if hasattr(asked, "data"):
        free["data"] = dataclasses.replace(preset.data, dir=asked.data.dir)
    if dataclasses.replace(preset, **free) == asked:
        return asked
    return dataclasses.replace(asked, scale="custom")


Work = tuple[list["Note"], Callable[[Run], Findings]]


def study(
    experiment: str,
    config: Any,
    dataset: str,
    work: Callable[[], Work],
    *,
    model: str,
) -> int:
    """:func:`resumable_study` of work that is done in one go."""
    return resumable_study(experiment, config, dataset, lambda _: work(), model=model)


def resumable_study(
    experiment: str,
    config: Any,
    dataset: str,
    work: Callable[[Store], Work],
    *,
    model: str,
    inputs: Mapping[str, str] | None = None,
) -> int:
    """Do the work of a study and write it down; refusals must come before.

    Args:
        experiment: Name of the folder under ``config.results``.
        config: With ``scale`` and ``results``.
        dataset: The data's true title.
        work: Given the run's store, for pieces that a restart finds again; gives
            numbers, and the function from the finished run to what is shown of them
            (``records`` are filled in here).
        model: Name of the model, where a number does not name its own.
        inputs: Digests of what the configuration only names; pieces of a run with
            other ones are not gone on with.

    Returns:
        Exit code: 1 if any number is missing, else 0.

    Raises:
        StorageError: the folder cannot be written.
    """
    start = time.perf_counter()
    run = new_run(experiment, config.scale, config, dataset=dataset, inputs=inputs)
    store, run = open_run(config.results, run)
    with store:
        notes, show = work(store)
        run = run._replace(seconds=time.perf_counter() - start)
        records = [_record(run, model, note) for note in notes]
        run = run._replace(records=len(records))
        findings = show(run)._replace(records=records)
        _write(store.folder, run, findings)
        write_run(store.folder, run)
    _print(findings.tables, store.folder)
    failed = [note for note in notes if note.failure]
    for note in failed:
        print(f"failed: {note.method} {note.metric}: {note.failure}", file=sys.stderr)
    return 1 if failed else 0


def table(
    name: str,
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    footnotes: Sequence[str] = (),
) -> Table:
    """A table of words and numbers; numbers with three digits, None as a dash."""
    cells = tuple(tuple(_cell(entry) for entry in row) for row in rows)
    return Table(name, caption, tuple(header), cells, tuple(footnotes))


def about(run: Run) -> str:
    """The end of every caption: data, scale, device, run."""
    return f"{run.dataset}; scale {run.scale}; {run.device}; run {run.id}"


def readable_seconds(seconds: float) -> str:
    """``1.2 ms``: three digits and a unit that suits."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{plain(seconds / factor)} {unit}"
    return f"{plain(seconds / 1e-6)} µs"


def _cell(entry: Any) -> Cell:
    if entry is None:
        return Cell("\N{EN DASH}")
    return Cell(entry if isinstance(entry, str) else plain(float(entry)))


def _record(run: Run, model: str, note: Note) -> Record:
    return Record(
        run=run.id,
        dataset=run.dataset,
        model=note.model or model,
        method=note.method,
        request=note.request,
        train_seed=note.seed,
        unlearn_seed=0,
        evaluate_seed=0,
        metric=note.metric,
        split=note.split,
        value=note.value,
        oracle=None,
        unit=note.unit,
        failure=note.failure,
    )


def _write(folder: Path, run: Run, findings: Findings) -> None:
    write_records(folder / RECORDS_FILE, findings.records)
    pictures = []
    for drawing in findings.drawings:
        stem = folder / "figures" / drawing.name
        written = save_figure(drawing.figure, stem, drawing.rows)
        png = next(path for path in written if path.suffix == ".png")
        pictures.append(Picture(png.read_bytes(), drawing.caption, drawing.caption))
    tables = findings.tables
    texts = {
        "tables.md": "\n".join(each.to_markdown() for each in tables),
        "tables.tex": "\n".join(each.to_latex() for each in tables),
        "tables.csv": "\n".join(each.to_csv() for each in tables),
        "index.html": page(run, [Section(run.experiment, (), tables, pictures)]),
    }
    for name, text in texts.items():
        write_bytes(folder / name, text.encode())


def _print(tables: Sequence[Table], folder: Path) -> None:
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        for each in tables:
            console.print(each.to_rich(console.width))
    else:
        print("\n".join(each.to_markdown() for each in tables))
    print(f"tables, figures and page: {folder / 'index.html'}", file=sys.stderr)
