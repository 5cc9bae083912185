"""A table on a terminal: no number is cut, what does not fit goes into a next part."""

from typing import TYPE_CHECKING

from unlearn_jax.results.table import Cell, Table

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

_LONGEST = 24
_GAP = 3


def for_terminal(table: Table, width: int) -> "Group":
    """Caption, the table in as many parts as ``width`` asks for, failures, notes."""
    from rich.console import Group
    from rich.text import Text

    parts = [_rich(part) for part in parts_of(table, width)]
    failures = [Text(f"failed  {line}", style="bold red") for line in table.failures]
    notes = [Text(note, style="dim") for note in table.footnotes]
    return Group(Text(table.caption, style="bold"), *parts, *failures, *notes)


def parts_of(table: Table, width: int) -> list[Table]:
    """Tables of the same rows, each narrow enough, the first column in all of them."""
    columns = list(zip(table.header, *table.rows, strict=True))
    widths = [_width(title, cells) + _GAP for title, *cells in columns]
    groups: list[list[int]] = [[]]
    room = width - widths[0]
    for i in range(1, len(columns)):
        if groups[-1] and widths[i] > room:
            groups.append([])
            room = width - widths[0]
        groups[-1].append(i)
        room -= widths[i]
    return [
        table._replace(
            header=tuple(table.header[i] for i in (0, *group)),
            rows=tuple(tuple(row[i] for i in (0, *group)) for row in table.rows),
        )
        for group in groups
    ]


def _rich(table: Table) -> "RichTable":
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(box=box.SIMPLE_HEAD)
    columns = zip(table.header, *table.rows, strict=True)
    for i, (title, *cells) in enumerate(columns):
        made.add_column(
            Text(title),
            justify="right" if i else "left",
            overflow="fold",
            min_width=_width(title, cells),
        )
    for row in table.rows:
        made.add_row(*(Text(_short(c.text), "bold" if c.bold else "") for c in row))
    return made


def _short(text: str) -> str:
    """Errors close to their numbers; intervals and further words on their own lines."""
    if text.startswith("failed:"):
        return text
    text = text.replace(" ± ", "±")
    return text.replace(" [", "\n[") if "[" in text else text.replace(", ", ",\n")


def _width(title: str, cells: list[Cell]) -> int:
    lines = [line for cell in cells for line in _short(cell.text).split("\n")]
    longest = max((len(line) for line in lines), default=0)
    return max(min(longest, _LONGEST), max(map(len, title.split())))
