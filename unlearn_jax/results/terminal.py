"""A table on a terminal: no number is cut, what does not fit goes into a next part."""

from typing import TYPE_CHECKING

from unlearn_jax.results.layout import column_width, first_group, groups, stacked
from unlearn_jax.results.table import Table

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

_AIM = 32
_GAP = 3
"""Blanks around a column and the rule between two of them."""


def for_terminal(table: Table, width: int, *, full: bool = True) -> "Group":
    """Caption, table, failures and notes, ``width`` characters wide.

    Args:
        table: Its ``first`` columns come first where not all are shown.
        width: Of the terminal.
        full: Every column, in as many parts as it takes, and the notes; otherwise the
            columns that fit side by side, and the names of the others.
    """
    from rich.console import Group
    from rich.text import Text

    failures = [Text(f"failed  {line}", style="bold red") for line in table.failures]
    if full:
        notes = [Text(note, style="dim") for note in table.footnotes]
        parts = [_rich(part, width) for part in parts_of(table, width)]
        return Group(Text(table.caption, style="bold"), *parts, *failures, *notes)
    shown = summary_of(table, width)
    left = [title for title in table.header if title not in shown.header]
    told = [Text(f"also: {', '.join(left)} (--full)", style="dim")] if left else []
    caption = Text(table.caption, style="bold")
    return Group(caption, _rich(shown, width), *failures, *told)


def parts_of(table: Table, width: int) -> list[Table]:
    """Tables of the same rows, each narrow enough, the first column in all of them."""
    return [table.of(group) for group in groups(_widths(table, width), width - 1)]


def summary_of(table: Table, width: int) -> Table:
    """The columns that fit side by side, the table's ``first`` before the others."""
    order = table.places(table.first)
    return table.of(first_group(_widths(table, width), width - 1, order))


def _widths(table: Table, width: int) -> list[int]:
    most = (width - 1) // 2 - _GAP  # so that two columns fit, whatever they hold
    columns = zip(table.header, *table.rows, strict=True)
    return [
        _GAP
        + column_width(
            title,
            [line for cell in cells for line in _lines(cell.text)],
            aim=_AIM,
            most=most,
        )
        for title, *cells in columns
    ]


def _rich(table: Table, width: int) -> "RichTable":
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(box=box.SIMPLE_HEAD)
    for i, (title, wide) in enumerate(
        zip(table.header, _widths(table, width), strict=True)
    ):
        made.add_column(
            Text(title),
            justify="right" if i else "left",
            overflow="fold",
            width=wide - _GAP,
        )
    for row in table.rows:
        lines = [("\n".join(_lines(c.text)), "bold" if c.bold else "") for c in row]
        made.add_row(*(Text(*styled) for styled in lines))
    return made


def _lines(text: str) -> list[str]:
    """Errors close to their numbers, and the lines of a cell."""
    return stacked(text.replace(" ± ", "±"))
