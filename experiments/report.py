"""Records to tables, figures and a page; reads what a run wrote and never trains.

Command: ``python -m experiments.report results/compare/RUN`` (seconds, any device).
Writes ``tables.md``, ``tables.tex``, ``tables.csv``, ``summary.csv``, ``figures/`` and
``index.html`` into the run's folder and prints the tables: laid out on a terminal, as
Markdown into a pipe. Exit code 0; 1 with a list if a number is missing or failed; 2
with one sentence if there is nothing to report.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import tyro

from unlearn_jax.results import checks
from unlearn_jax.results.comparison import by_request, comparison_tables
from unlearn_jax.results.html import Section, page
from unlearn_jax.results.listing import failures, summary_csv
from unlearn_jax.results.pictures import save_pictures
from unlearn_jax.results.record import (
    RECORDS_FILE,
    Record,
    RecordError,
    read_records,
)
from unlearn_jax.results.run import Run, read_run
from unlearn_jax.results.summary import (
    FLOOR,
    ORACLE,
    CellKey,
    Summary,
    methods_in_order,
    summarise,
)
from unlearn_jax.results.table import Table, markdown_list, share_footnotes
from unlearn_jax.storage.arrays import read_arrays
from unlearn_jax.storage.write import StorageError, write_bytes

ARRAYS_FILE = "arrays.npz"

Format = Literal["markdown", "latex", "csv", "html", "all"]


class Report(NamedTuple):
    """What was made of a run.

    Attributes:
        tables: All tables, request by request.
        failures: One line per number that is missing or failed.
        files: What was written.
    """

    tables: list[Table]
    failures: list[str]
    files: list[Path]


def write_report(
    run_dir: Path, format: Format = "all", *, run: Run | None = None
) -> int:
    """Write the report of a run into its folder, print its tables and its failures.

    Args:
        run_dir: Holds ``run.json`` and ``records.jsonl``.
        format: What to write.
        run: Description to print instead of the one in ``run.json``.

    Returns:
        Exit code: 1 if any number is missing or failed, else 0.

    Raises:
        FileNotFoundError: no such folder, no run or no records in it.
        RecordError: a damaged file, by name and line.
        StorageError: the folder cannot be written.
    """
    report = make_report(run_dir, format, run=run)
    _print(report)
    return 1 if report.failures else 0


def make_report(
    run_dir: Path, format: Format = "all", *, run: Run | None = None
) -> Report:
    """Write tables, figures and the page of a run into its folder, without a word.

    Args:
        run_dir: Holds ``run.json``, ``records.jsonl`` and, optionally, ``arrays.npz``.
        format: What to write; ``html`` includes the figures.
        run: Description to print instead of the one in ``run.json``.

    Raises:
        FileNotFoundError: no such folder, no run or no records in it.
        RecordError: a damaged file, by name and line.
        StorageError: the folder cannot be written.
    """
    run_dir = Path(run_dir)
    written_run, records = _read(run_dir)
    run = written_run if run is None else run
    with_page = format in ("html", "all")
    arrays = _losses(run_dir / ARRAYS_FILE) if with_page else {}
    tables, failed, sections, files = [], [], [], []
    groups = by_request(records)
    for number, ((_, model, request), group) in enumerate(groups.items(), start=1):
        summaries = summarise(group)
        own = comparison_tables(group, run)
        tables += own
        failed += failures(request, summaries, own)
        if with_page:
            first = f"{number}-" if len(groups) > 1 else ""
            stem = run_dir / "figures" / _file_name(f"{first}{model}-{request}")
            pictures, written = save_pictures(group, arrays, request, stem)
            files += written
            shown, notes = share_footnotes(own)
            title = f"To forget: {request} ({model})"
            words = _checks(group, summaries)
            sections.append(Section(title, words, shown, pictures, notes))
    texts = {
        "markdown": {"tables.md": _markdown(tables)},
        "latex": {"tables.tex": "\n".join(table.to_latex() for table in tables)},
        "csv": {
            "tables.csv": "\n".join(table.to_csv() for table in tables),
            "summary.csv": summary_csv(records),
        },
        "html": {"index.html": page(run, sections)},
    }
    for kind, named in texts.items():
        for name, text in named.items() if format in (kind, "all") else ():
            write_bytes(run_dir / name, text.encode())
            files.append(run_dir / name)
    return Report(tables, failed, files)


def command(arguments: Sequence[str]) -> int:
    """Parse and report; what the user can mend is one line and exit code 2."""

    def report(
        run_dir: Annotated[Path, tyro.conf.Positional], format: Format = "all"
    ) -> int:
        """Make tables, figures and a page from the records of a run.

        Args:
            run_dir: Folder of the run.
            format: What to write into it.
        """
        return write_report(run_dir, format)

    try:
        prog = "python -m experiments.report"
        return tyro.cli(report, args=list(arguments), prog=prog)
    except (
        BrokenPipeError
    ):  # the reader of a pipe has had enough; all files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (FileNotFoundError, RecordError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _print(report: Report) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        console = Console()
        tables, notes = share_footnotes(report.tables)
        for table in tables:
            console.print(table.to_rich(console.width))
        for note in notes:
            console.print(Text(note, style="dim"))
    else:
        print(_markdown(report.tables))
    if report.failures:
        print(f"{len(report.failures)} missing or failed:", file=sys.stderr)
        for line in report.failures:
            print(f"  {line}", file=sys.stderr)


def _read(run_dir: Path) -> tuple[Run, list[Record]]:
    if not run_dir.is_dir():
        raise FileNotFoundError(f"there is no folder {run_dir}")
    path = run_dir / RECORDS_FILE
    records = read_records(path) if path.is_file() else []
    if not records:
        raise FileNotFoundError(
            f"there are no records in {run_dir}: {RECORDS_FILE} is written when a run "
            "is finished; start it again with its own command, it goes on where it was"
        )
    try:
        run = read_run(run_dir)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no run.json in {run_dir}") from None
    if run.records not in (None, len(records)):
        raise RecordError(
            f"{path} holds {len(records)} records, but the run wrote {run.records}; "
            "put the file back from a copy, or delete it and run the same command again"
        )
    return run, records


def _losses(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        arrays = read_arrays(path)
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{error}: without it the report comes without the figures of losses"
        ) from None
    return {name: kept for name, kept in arrays.items() if name.startswith("losses/")}


def _markdown(tables: Sequence[Table]) -> str:
    shown, notes = share_footnotes(tables)
    parts = [table.to_markdown() for table in shown]
    return "\n".join([*parts, *([markdown_list(notes) + "\n"] if notes else [])])


def _checks(
    records: Sequence[Record], summaries: Mapping[CellKey, Summary]
) -> list[str]:
    return [
        f"{method}: {', '.join(checks.words(method, summaries))}"
        for method in methods_in_order(records)
        if method not in (ORACLE, FLOOR)
    ]


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "request"


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
