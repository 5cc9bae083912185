"""No digit is cut, whatever the table and the terminal: told from the rendered text."""

import io
import re
from collections import Counter

import pytest
from results.fake_records import METHODS, fake_records, fake_run
from rich.console import Console

from experiments.frame.findings import Finding, print_findings
from unlearn_jax.results.comparison import comparison_tables
from unlearn_jax.results.table import Cell, Table
from unlearn_jax.results.terminal import for_terminal, parts_of, summary_of

WIDTHS = (80, 100, 140)
NUMBER = re.compile(r"[-+]?\d[\d.]*(?:e[-+]\d+)?")


def comparison():
    records = fake_records()
    priced = [
        r._replace(metric=r.metric.replace("_seconds", "_cpu_seconds"))
        for r in records
        if r.metric in ("forget_seconds", "prepare_seconds")
    ]
    return comparison_tables([*records, *priced], fake_run())


def wide():
    """Forty columns of every kind of number; names of a sweep."""
    kinds = (
        "{0}.25 ± 0.{0}5",
        "-{0}.5 [-{0}.75, +{0}.25]",
        "({0}.{0} ± 0.12)e-{0}7",
        "|Δ| 2.{0} [-3.9, +3.{0}]",
        "inside the floor, 0.{0}17 floors (logistic loss attack forget)",
        "{0}23456789012345678.5",
        "failed: {0} of 10 solves stopped after 12{0} steps",
    )
    header = ["method", *(f"column {i} of a long heading (%) →" for i in range(40))]
    rows = [
        [
            f"influence_unlearning damping=0.000{row} learning_rate=1e-0{row}",
            *(kinds[(row + i) % len(kinds)].format(row + 1) for i in range(40)),
        ]
        for row in range(9)
    ]
    cells = tuple(tuple(map(Cell, row)) for row in rows)
    return [Table("wide", "A wide one", tuple(header), cells, first=("column 33",))]


def rendered(table, width, *, full):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(for_terminal(table, width, full=full))
    return console.file.getvalue()


def numbers(text):
    return Counter(NUMBER.findall(text))


def held(part):
    """The numbers of a part: of its cells and titles."""
    return numbers(
        " ".join([*part.header, *(cell.text for row in part.rows for cell in row)])
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("tables", [comparison, wide])
@pytest.mark.parametrize("full", [True, False])
def test_no_digit_is_cut(tables, width, full):
    for table in tables():
        table = table._replace(caption="", footnotes=(), failures=())
        text = rendered(table, width, full=full)
        assert max(map(len, text.splitlines())) <= width
        body = text.partition("also: ")[0]
        parts = parts_of(table, width) if full else [summary_of(table, width)]
        assert numbers(body) == sum(map(held, parts), Counter())
        assert "…" not in text
        if full:
            titles = [title for part in parts for title in part.header[1:]]
            assert titles == list(table.header[1:])


@pytest.mark.parametrize("width", WIDTHS)
def test_a_summary_shows_what_matters_first_and_names_the_rest(width):
    table = comparison()[0]
    shown = summary_of(table, width)
    assert {"method", "accuracy forget (%) →", "check"} <= set(shown.header)
    assert len(shown.rows) == len(METHODS) + 1
    text = " ".join(rendered(table, width, full=False).split())
    for title in set(table.header) - set(shown.header):
        assert title in text.partition("also: ")[2]
    assert summary_of(table, 400).header == table.header
    assert "column 33 of a long heading (%) →" in summary_of(wide()[0], width).header


@pytest.mark.parametrize("full", [True, False])
def test_a_terminal_gets_a_summary_and_a_pipe_everything(monkeypatch, capsys, full):
    tables = comparison()
    finding = Finding(tables, words=["Nearest: newton."])
    print_findings([finding], full=full)
    assert tables[0].to_markdown().splitlines()[2] in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_findings([finding], full=full)
    said = capsys.readouterr().out
    assert said.startswith("Nearest: newton.")
    assert ("threshold on the loss" in said) is full
    assert ("--full" in said) is not full
