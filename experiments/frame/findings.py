"""What was found, as tables and figures; how it is written down and printed."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from unlearn_jax.results.cells import plain
from unlearn_jax.results.html import Picture, Section, page
from unlearn_jax.results.plot_style import save_figure
from unlearn_jax.results.run import Run
from unlearn_jax.results.table import (
    Cell,
    Table,
    latex_of,
    markdown_list,
    share_footnotes,
)
from unlearn_jax.results.terminal import for_terminal
from unlearn_jax.storage.names import file_name
from unlearn_jax.storage.write import write_bytes


class Drawing(NamedTuple):
    """Description: a figure, the numbers it draws, and what it shows in words."""

    name: str
    figure: Any
    rows: list[dict[str, Any]]
    caption: str
    spoken: str = ""


class Finding(NamedTuple):
    """Description: one part of what a study found.

    Attributes:
        tables: Each with a name of its own.
        drawings: Each with a name of its own.
        title: Heading of the part; empty for a study of one part.
        words: Sentences that come before the tables: the answer.
        files: Further texts by the names of their files: numbers for other programs.
    """

    tables: Sequence[Table]
    drawings: Sequence[Drawing] = ()
    title: str = ""
    words: Sequence[str] = ()
    files: Mapping[str, str] = MappingProxyType({})


def write_findings(
    folder: Path,
    run: Run,
    findings: Sequence[Finding],
    question: str,
    columns: Sequence[str] = (),
) -> list[Path]:
    """Write tables (Markdown, LaTeX, a CSV each), figures and the page.

    Args:
        folder: Of the run.
        run: Where all of it came from.
        findings: What was found.
        question: What the study asks, in its words; goes to the page.
        columns: Of the LaTeX, as beginnings of titles; all by default.

    Raises:
        ValueError: no table has any of the columns; nothing was written.
        StorageError: the folder cannot take a file.
    """
    tables = [table for finding in findings for table in finding.tables]
    latex = latex_of(tables, columns) if tables else ""
    sections, files = [], []
    for finding in findings:
        pictures = []
        for drawing in finding.drawings:
            stem = folder / "figures" / drawing.name
            written = save_figure(drawing.figure, stem, drawing.rows)
            files += written
            png = next(path for path in written if path.suffix == ".png")
            spoken = f"{drawing.caption} {drawing.spoken}".strip()
            pictures.append(Picture(png.read_bytes(), drawing.caption, spoken))
        shown, notes = share_footnotes(finding.tables)
        title = finding.title or run.experiment
        sections.append(Section(title, finding.words, shown, pictures, notes))
    texts = {
        "tables.md": markdown(findings),
        "tables.tex": latex,
        "index.html": page(run, sections, question),
    }
    texts |= {f"tables/{file_name(t.name)}.csv": t.to_csv() for t in tables}
    for finding in findings:
        texts |= finding.files
    for name, text in texts.items():
        write_bytes(folder / name, text.encode())
        files.append(folder / name)
    return files


def markdown(findings: Sequence[Finding]) -> str:
    """Everything but the figures, as Markdown."""
    shown, notes = share_footnotes([t for f in findings for t in f.tables])
    parts, tables = [], iter(shown)
    for finding in findings:
        parts += [f"### {finding.title}\n"] if len(findings) > 1 else []
        parts += [f"{word}\n" for word in finding.words]
        parts += [next(tables).to_markdown() for _ in finding.tables]
    return "\n".join([*parts, *([markdown_list(notes) + "\n"] if notes else [])])


def print_findings(findings: Sequence[Finding], *, full: bool = False) -> None:
    """Print all tables: laid out on a terminal, as Markdown into a pipe.

    Args:
        findings: What was found.
        full: On a terminal every column and all notes; otherwise a summary. A pipe
            gets everything.
    """
    if not sys.stdout.isatty():
        print(markdown(findings))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    shown, notes = share_footnotes([t for f in findings for t in f.tables])
    tables = iter(shown)
    for finding in findings:
        for word in finding.words:
            console.print(Text(word))
        for _ in finding.tables:
            console.print(for_terminal(next(tables), console.width, full=full))
    if not full:
        notes = ("every column, and how to read it: --full, and the page",)
    for note in notes:
        console.print(Text(note, style="dim"))


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
