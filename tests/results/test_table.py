import csv
import io
import re
from html.parser import HTMLParser

from unlearn_jax.results.table import Cell, Table, markdown_list, share_footnotes
from unlearn_jax.results.terminal import parts_of

TABLE = Table(
    name="what it does",
    caption="Scale: smoke. 5 % of a_b | c.",
    header=("method", "gap (%) → 0", "seconds ↓"),
    rows=(
        (Cell("l1_sparse"), Cell("-1.2 [-2.3, -0.1]", True), Cell("0.10 ± 0.02")),
        (Cell("a<b>&|c"), Cell("failed: 5% [x], $y_z"), Cell("\N{EN DASH}")),
    ),
    footnotes=("gap: method minus oracle", "\N{EN DASH} does not apply"),
    failures=("a<b>&|c, gap: 5%",),
)


def test_markdown_has_a_cell_for_every_bar():
    lines = [line for line in TABLE.to_markdown().splitlines() if line[:1] == "|"]
    assert len(lines) == 4
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in lines)
    assert len({len(line) for line in lines}) == 1
    assert "**-1.2 [-2.3, -0.1]**" in lines[2]
    assert r"l1\_sparse" in lines[2]
    assert "- gap: method minus oracle" in TABLE.to_markdown()
    assert "**failed**" in TABLE.to_markdown()


def test_csv_reads_back():
    rows = list(csv.reader(io.StringIO(TABLE.to_csv())))
    assert rows[0] == [f"# {TABLE.caption}"]
    assert tuple(rows[1]) == TABLE.header
    assert rows[2:] == [[cell.text for cell in row] for row in TABLE.rows]


def test_html_is_balanced_and_escaped():
    opened, texts = [], []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag != "br":
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

        def handle_data(self, data):
            texts.append(data)

    Parser().feed(TABLE.to_html())
    assert not opened
    assert "a<b>&|c" in texts
    assert TABLE.caption in texts
    assert "<br>[-2.3, -0.1]</b>" in TABLE.to_html()
    assert 'class="failed">failed: 5% [x]' in TABLE.to_html()


def test_a_wide_table_comes_in_parts_with_the_first_column_each():
    assert len(parts_of(TABLE, 200)) == 1
    narrow = parts_of(TABLE, 40)
    assert [part.header[0] for part in narrow] == ["method", "method"]
    assert [title for part in narrow for title in part.header[1:]] == list(
        TABLE.header[1:]
    )


def test_footnotes_of_all_tables_are_shared():
    other = TABLE._replace(footnotes=("another", TABLE.footnotes[1]))
    shown, shared = share_footnotes([TABLE, other])
    assert shared == (TABLE.footnotes[1],)
    assert [table.footnotes for table in shown] == [TABLE.footnotes[:1], ("another",)]
    assert share_footnotes([TABLE]) == ([TABLE], ())
    assert markdown_list(["a", "b"]) == "- a\n- b"
