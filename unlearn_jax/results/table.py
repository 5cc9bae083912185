"""A table as a value, and the forms it is printed in."""

import csv
import html
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

from unlearn_jax.results.cells import csv_cell
from unlearn_jax.results.latex import float_of, slug


class Cell(NamedTuple):
    """Text of one cell; bold where a lead is beyond doubt."""

    text: str
    bold: bool = False


class Table(NamedTuple):
    """A finished table: nothing is computed any more, only printed.

    Attributes:
        name: A short name, fit for a label.
        caption: What it shows, of what, at which scale, from which run.
        header: Titles of the columns; the first column names the rows.
        rows: Cells, as many as titles in every row; none is empty.
        footnotes: One line per column, and what the signs mean.
        failures: One line per failed cell.
        first: Beginnings of the titles of the columns that matter most: what a summary
            shows where not all columns fit.
    """

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    first: tuple[str, ...] = ()

    def places(self, beginnings: Sequence[str]) -> list[int]:
        """The columns whose titles begin with one of these words, in their order."""
        return [
            column
            for words in beginnings
            for column, title in enumerate(self.header)
            if column and title.startswith(words)
        ]

    def of(self, columns: Sequence[int]) -> "Table":
        """The same rows, with these columns only."""
        return self._replace(
            header=tuple(self.header[i] for i in columns),
            rows=tuple(tuple(row[i] for i in columns) for row in self.rows),
        )

    def to_markdown(self) -> str:
        """GitHub's tables; columns are padded so that the source reads well too."""
        rows = [[_markdown(cell) for cell in row] for row in self.rows]
        titles = [_escape_markdown(title) for title in self.header]
        widths = [
            max(3, *map(len, column)) for column in zip(titles, *rows, strict=True)
        ]
        rule = [
            "-" * width if i == 0 else "-" * (width - 1) + ":"
            for i, width in enumerate(widths)
        ]
        lines = [_markdown_line(row, widths) for row in (titles, rule, *rows)]
        notes = [markdown_list(self.footnotes)] if self.footnotes else []
        failed = [f"- **failed** {_escape_markdown(line)}" for line in self.failures]
        blocks = [[f"**{_escape_markdown(self.caption)}**"], lines, failed, notes]
        return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"

    def to_latex(self, label: str = "", columns: Sequence[str] = ()) -> str:
        r"""``table`` floats within ``\textwidth`` that load ``booktabs`` alone.

        Args:
            label: Of the first; the name's by default.
            columns: Beginnings of the titles of the columns to print; all by default.
        """
        shown = self.of([0, *self.places(columns)]) if columns else self
        return float_of(
            [shown.header, *([cell.text for cell in row] for row in shown.rows)],
            [[False] * len(shown.header), *([c.bold for c in r] for r in shown.rows)],
            label=label or slug(self.name),
            caption=self.caption,
            notes=(*self.failures, *self.footnotes),
        )

    def to_csv(self) -> str:
        """The cells as printed; the caption is the first line, behind ``#``."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([f"# {self.caption}"])
        writer.writerow([csv_cell(title) for title in self.header])
        writer.writerows([csv_cell(cell.text) for cell in row] for row in self.rows)
        return text.getvalue()

    def to_html(self) -> str:
        """A ``figure`` with caption, table and notes, without any style of its own."""
        head = "".join(
            f'<th scope="col">{_html_title(title)}</th>' for title in self.header
        )
        body = "\n".join(
            "<tr>"
            + "".join(_html_cell(i, cell) for i, cell in enumerate(row))
            + "</tr>"
            for row in self.rows
        )
        failed = "".join(f'<li class="failed">{_html(x)}</li>' for x in self.failures)
        notes = "".join(f"<li>{_html(note)}</li>" for note in self.footnotes)
        return (
            f"<figure>\n<figcaption>{_html(self.caption)}</figcaption>\n"
            f'<div class="scroll" tabindex="0" role="region" '
            f'aria-label="{_html(self.name)}">\n<table>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
            f'</div>\n<ul class="notes">{failed}{notes}</ul>\n</figure>\n'
        )


def markdown_list(lines: Sequence[str]) -> str:
    """Lines as a Markdown list."""
    return "\n".join(f"- {_escape_markdown(line)}" for line in lines)


def share_footnotes(tables: Sequence[Table]) -> tuple[list[Table], tuple[str, ...]]:
    """The tables without the footnotes that all of them have, and those footnotes."""
    if len(tables) < 2:
        return list(tables), ()
    shared = tuple(
        note
        for note in tables[0].footnotes
        if all(note in table.footnotes for table in tables)
    )
    own = [
        table._replace(footnotes=tuple(n for n in table.footnotes if n not in shared))
        for table in tables
    ]
    return own, shared


def latex_of(tables: Sequence[Table], columns: Sequence[str] = ()) -> str:
    """All tables as LaTeX, no two of one label; see :meth:`Table.to_latex`.

    Tables that have none of the ``columns`` are left out.

    Raises:
        ValueError: no table has any of them.
    """
    having = [table for table in tables if not columns or table.places(columns)]
    if not having:
        titles = sorted({title for table in tables for title in table.header[1:]})
        raise ValueError(
            f"no column begins with {' or '.join(columns)}; there are "
            f"{', '.join(titles)}"
        )
    labels: list[str] = []
    for table in having:
        label = slug(table.name)
        while label in labels:
            label += "-b"
        labels.append(label)
    return "\n".join(
        table.to_latex(label, columns)
        for table, label in zip(having, labels, strict=True)
    )


def _markdown(cell: Cell) -> str:
    text = _escape_markdown(cell.text)
    return f"**{text}**" if cell.bold else text


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\|*_`<])", r"\\\1", text)


def _markdown_line(texts: list[str], widths: list[int]) -> str:
    padded = [
        text.rjust(width) if i else text.ljust(width)
        for i, (text, width) in enumerate(zip(texts, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"


def _html(text: str) -> str:
    return html.escape(text)


def _html_title(title: str) -> str:
    return re.sub(" (?=[→↑↓0])", "&nbsp;", _html(title))


def _html_cell(column: int, cell: Cell) -> str:
    if column == 0:
        return f'<th scope="row">{_html(cell.text)}</th>'
    failed = cell.text.startswith("failed:")
    kind = ' class="failed"' if failed else ""
    text = _html(cell.text)
    if not failed:  # intervals and further words go to lines of their own
        sign = " [" if "[" in text else ", "
        text = text.replace(sign, f"{sign.rstrip(' [')}<br>{sign.strip(' ,')}")
    return f"<td{kind}><b>{text}</b></td>" if cell.bold else f"<td{kind}>{text}</td>"
