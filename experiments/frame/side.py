"""Several runs side by side: their tables joined by the names of the rows."""

import re
from collections.abc import Sequence

from unlearn_jax.results.run import Run
from unlearn_jax.results.table import Cell, Table

_NONE = Cell("\N{EN DASH}")


def side_by_side(
    runs: Sequence[tuple[Run, Sequence[Table]]], columns: Sequence[str] = ()
) -> list[Table]:
    """One table for each that all runs have; every column once for each run.

    Runs are A, B, C, told in the caption. A row that a run lacks is a dash.

    Args:
        runs: Each with its tables.
        columns: Beginnings of the titles to compare. By default those that matter most
            (``Table.first``), or all of a table that names none.

    Raises:
        ValueError: fewer than two runs, no table that all of them have, or no such
            column.
    """
    if len(runs) < 2:
        raise ValueError(f"expected two runs or more to compare, got {len(runs)}")
    named = [{_plain(table.name): table for table in tables} for _, tables in runs]
    common = [name for name in named[0] if all(name in own for own in named)]
    if not common:
        raise ValueError(
            "the runs have no table in common: "
            + "; ".join(
                f"{run.id} ({run.experiment}) has {', '.join(own)}"
                for (run, _), own in zip(runs, named, strict=True)
            )
        )
    letters = [_letter(i) for i in range(len(runs))]
    told = "; ".join(
        f"{letter}: {_told(run)}"
        for letter, (run, _) in zip(letters, runs, strict=True)
    )
    joined = [
        _joined(name, [own[name] for own in named], letters, told, columns)
        for name in common
    ]
    having = [table for table in joined if table is not None]
    if not having:
        raise ValueError(f"no column of the runs begins with {' or '.join(columns)}")
    return having


def _joined(
    name: str,
    tables: Sequence[Table],
    letters: Sequence[str],
    told: str,
    columns: Sequence[str],
) -> Table | None:
    keys = max(map(_keys, tables))
    rows = [{tuple(c.text for c in row[:keys]): row for row in t.rows} for t in tables]
    names = list(dict.fromkeys(key for own in rows for key in own))
    titles = list(dict.fromkeys(title for t in tables for title in t.header[keys:]))
    asked = list(columns) or [word for table in tables for word in table.first]
    found = [t for words in asked for t in titles if t.startswith(words)]
    if columns and not found:
        return None
    shown = list(dict.fromkeys(found)) or titles
    each = [
        (title, letter, table, own)
        for title in shown
        for letter, table, own in zip(letters, tables, rows, strict=True)
        if title in table.header
    ]
    cells = [
        (
            *map(Cell, key),
            *(
                own[key][table.header.index(title)] if key in own else _NONE
                for title, _, table, own in each
            ),
        )
        for key in names
    ]
    notes = dict.fromkeys(note for table in tables for note in table.footnotes)
    return Table(
        name=name,
        caption=f"{name.capitalize()}. {told}",
        header=(
            *tables[0].header[:keys],
            *(f"{title} {letter}" for title, letter, *_ in each),
        ),
        rows=tuple(cells),
        footnotes=tuple(notes),
    )


def _keys(table: Table) -> int:
    """How many columns from the left tell the rows apart."""
    for count in range(1, len(table.header)):
        names = [tuple(cell.text for cell in row[:count]) for row in table.rows]
        if len(set(names)) == len(names):
            return count
    return len(table.header)


def _plain(name: str) -> str:
    """A name without the number that a study gives to requests of one run."""
    return re.sub(r"^\d+-", "", name)


def _told(run: Run) -> str:
    given = run.config.get("name")
    start = f"{given}, " if given else ""
    return f"{start}{run.id}, {run.dataset}, scale {run.scale}"


def _letter(number: int) -> str:
    """A, B, ..., Z, then A2, B2, ..."""
    again, place = divmod(number, 26)
    return chr(ord("A") + place) + (str(again + 1) if again else "")
