"""LaTeX: what is printed is escaped, fits the page, and compiles where TeX is."""

import re
import shutil
import subprocess

import pytest
from results.test_table import TABLE
from results.test_terminal import comparison, wide

from unlearn_jax.results.latex import TEXT_WIDTH, escaped, points
from unlearn_jax.results.table import Cell, Table, latex_of

ODD = Table(
    name="odd & odder",
    caption=r"100% of $x_i^2 # {a} ~ \b | ‖θ‖² ≤ ½ → naïve, Ω?",
    header=("method", "Δ (%) →", "10⁻¹²"),
    rows=((Cell(r"a_b\c{d}%&#$^~<|>", True), Cell("±1", True), Cell("☃ é")),),
    footnotes=("a_b → c",),
)
ALL = [*comparison(), *wide(), TABLE, ODD, ODD._replace(name="odd-odder")]


def floats(text):
    return re.findall(r"\\begin{table}.*?\\end{table}", text, re.DOTALL)


def grid(part):
    """The cells of a float, each as its lines."""
    body = part[part.index(r"\toprule") : part.rindex(r"\bottomrule")]
    nested = r"\\begin{tabular}\[t\]{@{}[lr]@{}}(.*?)\\end{tabular}"
    body = re.sub(nested, lambda m: m[1].replace(r"\\", "\n"), body, flags=re.DOTALL)
    rows = body.replace(r"\toprule", "").replace(r"\midrule", "").split(r"\\")
    cells = [re.split(r"(?<!\\)&", row) for row in rows if row.strip()]
    return [[cell.strip().split("\n") for cell in row] for row in cells]


def test_everything_special_is_escaped():
    text = TABLE.to_latex()
    assert r"l1\_sparse & \textbf{$-$1.2 [$-$2.3, $-$0.1]} & 0.10 $\pm$ 0.02 \\" in text
    assert r"a\textless{}b\textgreater{}\&\textbar{}c" in text
    assert r"failed: 5\% [x], \$y\_z & -- \\" in text
    assert r"\label{tab:what-it-does}" in text
    for table in ALL:
        text = table.to_latex()
        assert text.isascii()
        assert len(re.findall(r"(?<!\\){", text)) == len(re.findall(r"(?<!\\)}", text))
        body = "".join(
            line for p in floats(text) for r in grid(p) for c in r for line in c
        )
        assert not re.search(r"(?<!\\)[%#_]|(?<!\\)&", body.replace("$_", ""))
    assert escaped("naïve ☃ 10⁻¹²") == "naive ? 10$^-$$^1$$^2$"


def test_every_part_has_its_columns_and_fits_the_page():
    for table in ALL:
        shown = {}
        for part in floats(table.to_latex()):
            rows = grid(part)
            kinds = re.findall("{@{}(lr+)@{}}\n", part)
            assert {len(row) for row in rows} == {len(kinds[0])}
            for row in rows[1:]:
                for title, cell in zip(rows[0][1:], row[1:], strict=True):
                    place = (" ".join(row[0]), " ".join(title))
                    shown.setdefault(place, " ".join(cell))
        assert len(shown) == len(table.rows) * (len(table.header) - 1)


def test_lines_are_estimated_to_fit():
    for table in ALL:
        for part in floats(table.to_latex()):
            plain = [
                [[re.sub(r"\\[a-z]+|[${}\\]", "", line) for line in c] for c in row]
                for row in grid(part)
            ]
            widths = [
                max(points(line.strip()) for cell in column for line in cell)
                for column in zip(*plain, strict=True)
            ]
            assert sum(widths) + 8 * (len(widths) - 1) <= 1.1 * TEXT_WIDTH


def test_no_label_comes_twice():
    labels = re.findall(r"\\label{(.*?)}", latex_of([*ALL, *ALL]))
    assert len(set(labels)) == len(labels) >= 2 * len(ALL)


def test_chosen_columns_alone_are_printed():
    text = latex_of(comparison(), ["accuracy forget", "check", "request"])
    parts = floats(text)
    assert len(parts) == 2
    titles = [" ".join(" ".join(t) for t in grid(part)[0]) for part in parts]
    assert "check" in titles[0]
    assert "retain" not in titles[0]
    assert "retraining" in titles[1]
    with pytest.raises(ValueError, match="no column begins with nonsense"):
        latex_of(comparison(), ["nonsense"])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is missing")
def test_it_compiles_and_nothing_is_too_wide(tmp_path):
    head = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    body = latex_of(ALL).replace(r"\end{table}", "\\end{table}\\clearpage")
    page = f"{head}\n{body}\n\\end{{document}}\n"
    (tmp_path / "page.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "page.log").read_text(errors="replace")
    for fault in ("Overfull", "Float too large", "multiply defined", "Missing char"):
        assert fault not in log, re.findall(f".*{fault}.*", log)
