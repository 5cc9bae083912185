"""Rows to tables, figures and a page; reads what a run wrote and never trains.

Command: ``python -m experiments.report results/compare/RUN`` (seconds, any device).
Makes everything anew that the study itself wrote beside its numbers (tables in
Markdown, LaTeX and CSV, figures, the page) and prints the tables: laid out on a
terminal, as Markdown into a pipe. Exit code 0; 1 with a list if a number is missing or
failed; 2 with one sentence if there is nothing to report.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from experiments.frame.command import main
from experiments.frame.study import read_results, report, told
from experiments.studies import STUDIES


def command(arguments: Sequence[str]) -> int:
    """Parse and report; the exit code is 1 when a number is missing."""

    def reported(
        folders: Annotated[tuple[Path, ...], tyro.conf.Positional],
        full: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        columns: tuple[str, ...] = (),
    ) -> int:
        """Make tables, figures and a page from what runs wrote.

        Args:
            folders: Of the runs.
            full: On a terminal, print every column and how to read it.
            columns: Of the LaTeX tables, by the beginnings of their titles:
                ``--columns "accuracy forget" check``. All by default.
        """
        if not folders:
            raise ValueError("name the folder of a run, results/compare/RUN")
        return max(_report(folder, full, columns) for folder in folders)

    try:
        prog = "python -m experiments.report"
        return tyro.cli(reported, args=list(arguments), prog=prog, description=__doc__)
    except BrokenPipeError:
        # The reader of a pipe has had enough; all files are written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _report(folder: Path, full: bool, columns: Sequence[str]) -> int:
    name = read_results(folder).run.experiment
    if name not in STUDIES:
        raise ValueError(
            f"{folder} was written by {name!r}, which is none of the studies here: "
            f"{', '.join(STUDIES)}; one of your own calls frame.study.report itself"
        )
    results, findings = report(STUDIES[name], folder, columns)
    return told(folder, findings, results.rows, full=full)


if __name__ == "__main__":
    main(command)
