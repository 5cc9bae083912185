"""Rows to tables, figures and a page; reads what a run wrote and never trains.

Command: ``python -m experiments.report results/compare/RUN`` (seconds, any device).
Makes everything anew that the study itself wrote beside its numbers (tables in
Markdown, LaTeX and CSV, figures, the page) and prints the tables: laid out on a
terminal, as Markdown into a pipe. Exit code 0; 1 with a list if a number is missing or
failed; 2 with one sentence if there is nothing to report.

Several runs (``python -m experiments.report A B C``) are compared: their tables side by
side, a column of each run for every column that matters most. Nothing is written then.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from experiments.frame.command import main
from experiments.frame.export import export as export_run
from experiments.frame.findings import Finding, print_findings
from experiments.frame.side import side_by_side
from experiments.frame.study import Study, read_results, report, shown, told
from experiments.frame.words import asked
from experiments.studies import STUDIES


@dataclass(frozen=True)
class Reported:
    """Make tables, figures and a page of a run; compare several.

    Attributes:
        folders: Of the runs.
        full: On a terminal, print every column and how to read it; several runs are
            printed so anyway.
        columns: Of the LaTeX tables, by the beginnings of their titles:
            ``--columns "accuracy forget" check``. All by default. Of several runs: what
            is compared.
        export: ``tensorboard`` or ``wandb``: write the run's numbers for it into a
            folder of that name beside them, and nothing else.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    full: tyro.conf.FlagCreatePairsOff[bool] = False
    columns: tuple[str, ...] = ()
    export: str = ""


def command(arguments: Sequence[str]) -> int:
    """Parse and report; the exit code is 1 when a number is missing."""
    prog = "python -m experiments.report"
    given = asked(Reported, arguments, prog=prog, description=__doc__)
    try:
        return _reported(given)
    except BrokenPipeError:
        # The reader of a pipe has had enough; all files are written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _reported(given: Reported) -> int:
    if not given.folders:
        raise ValueError("name the folder of a run, results/compare/RUN")
    if given.export:
        return max(_export(folder, given.export) for folder in given.folders)
    first, *others = given.folders
    if others:
        return _compare(given.folders, given.columns)
    return _report(first, given.full, given.columns)


def _report(folder: Path, full: bool, columns: Sequence[str]) -> int:
    results, findings = report(_study(folder), folder, columns)
    return told(folder, findings, results.rows, full=full)


def _compare(folders: Sequence[Path], columns: Sequence[str]) -> int:
    runs = []
    for folder in folders:
        results, findings = shown(_study(folder), folder)
        runs.append((results.run, [t for found in findings for t in found.tables]))
    print_findings([Finding(side_by_side(runs, columns))], full=True)
    return 0


def _export(folder: Path, kind: str) -> int:
    print(f"{kind}: {export_run(read_results(folder), folder, kind)}", file=sys.stderr)
    return 0


def _study(folder: Path) -> Study[Any, Any]:
    name = read_results(folder).run.experiment
    if name not in STUDIES:
        raise ValueError(
            f"{folder} was written by {name!r}, which is none of the studies here: "
            f"{', '.join(STUDIES)}; one of your own calls frame.study.report itself"
        )
    return STUDIES[name]


if __name__ == "__main__":
    main(command)
