"""LaTeX of a table that fits a page: escaped, in parts, with lines that wrap."""

import math
import re
import textwrap
import unicodedata
from collections.abc import Sequence

from unlearn_jax.results.layout import groups, stacked

TEXT_WIDTH = 345
"""Points: ``\\textwidth`` of the class ``article`` at its own 10 points."""

_POINTS = 8.0
"""Of ``\\footnotesize``."""
_GAP = 8
"""Points between two columns: twice ``\\tabcolsep``."""
_NAMES = 150
"""Points of the first column, so that every other fits beside it."""
_LONGEST = 28
"""Characters of a line of a cell, where its column cannot be wider."""
_ROWS = 40
"""Lines of a part, so that a page holds it."""

_SIGNS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "−": "$-$",
    "·": r"$\cdot$",
    "÷": r"$\div$",
    "√": r"$\surd$",
    "∞": r"$\infty$",
    "‖": r"$\Vert$",
    "½": "1/2",
    "⁻": "$^-$",
    "ᵀ": r"$^\top$",
    "∇": r"$\nabla$",
    "∂": r"$\partial$",
    "Σ": r"$\Sigma$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "δ": r"$\delta$",
    "ε": r"$\varepsilon$",
    "θ": r"$\theta$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "µ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "…": r"\dots{}",
    "\N{NO-BREAK SPACE}": "~",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{LEFT SINGLE QUOTATION MARK}": "`",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
}
_SIGNS |= {sign: f"$^{i}$" for i, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
_SIGNS |= {sign: f"$_{i}$" for i, sign in enumerate("₀₁₂₃₄₅₆₇₈₉")}
_BROAD, _NARROW = "mwMWABCDGHKNOQRUVXYΔ±→×÷%@&_|<>=+−–", "ijlftr.,:;'!()[] "


def escaped(text: str) -> str:
    """Text as LaTeX prints it, in ASCII; accents go, unknown signs become ``?``."""
    return "".join(_SIGNS.get(letter) or _plain(letter) for letter in text)


def points(text: str) -> int:
    r"""About how wide a line is in ``\footnotesize``, rather too much than too little.

    Computer Modern: digits half an em, capitals up to 0.85, thin letters a third.
    """
    ems = sum(0.85 if c in _BROAD else 0.4 if c in _NARROW else 0.54 for c in text)
    return math.ceil(_POINTS * 1.02 * ems)


def float_of(
    rows: Sequence[Sequence[str]],
    bold: Sequence[Sequence[bool]],
    *,
    label: str,
    caption: str,
    notes: Sequence[str],
) -> str:
    r"""``table`` floats, each within ``\textwidth``; loads ``booktabs`` alone.

    Args:
        rows: The titles, then the cells; the first column names the rows.
        bold: Which cells are bold, as many as ``rows`` has.
        label: Of the first part; the next ones end in ``-2``, ``-3``.
        caption: Of every part, plain text.
        notes: Below the first part.
    """
    names = [_broken(row[0], _NAMES) for row in rows]
    room = TEXT_WIDTH - _GAP - _wide(names)
    ways = [_parts(rows, names, most) for most in (room, room // 2)]
    lines, parts = min(ways, key=lambda way: len(way[1]))
    made = []
    for number, (page, group) in enumerate(parts, start=1):
        told = f" (part {number} of {len(parts)})" if len(parts) > 1 else ""
        body = [
            " & ".join(_cell(lines[i][j], bold[i][j], named=j == 0) for j in group)
            for i in [0, *page]
        ]
        made += [
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escaped(caption + told)}}}",
            rf"\label{{tab:{label}{f'-{number}' if number > 1 else ''}}}",
            rf"\begin{{tabular}}{{@{{}}l{'r' * (len(group) - 1)}@{{}}}}",
            r"\toprule",
            body[0] + r" \\",
            r"\midrule",
            *(row + r" \\" for row in body[1:]),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        if number == 1 and notes:
            small = r"\par\smallskip\raggedright\scriptsize"
            made += [small, *(rf"{escaped(note)}\par" for note in notes)]
        made += [r"\end{table}", ""]
    return "\n".join(made)


def slug(name: str) -> str:
    """A name as a label may be."""
    return re.sub("[^A-Za-z0-9]+", "-", name).strip("-")


def _parts(
    rows: Sequence[Sequence[str]], names: Sequence[list[str]], most: int
) -> tuple[list[list[list[str]]], list[tuple[list[int], list[int]]]]:
    """Lines of all cells, none over ``most`` points where it can be, and the parts."""
    lines = [
        [name, *(_broken(text, most) for text in row[1:])]
        for name, row in zip(names, rows, strict=True)
    ]
    lines[0] = [_title(*column) for column in zip(*lines, strict=True)]
    widths = [_wide(column) + _GAP for column in zip(*lines, strict=True)]
    across = groups(widths, TEXT_WIDTH + _GAP)
    return lines, [(page, group) for page in _pages(lines) for group in across]


def _broken(text: str, room: int) -> list[str]:
    """Lines of a cell: one where it fits, else broken as on a terminal, or more."""
    if points(text) <= room:
        return [text]
    return [
        short
        for line in stacked(text)
        for short in textwrap.wrap(line, _LONGEST, break_on_hyphens=False)
    ]


def _title(title: list[str], *cells: list[str]) -> list[str]:
    """A title of about the width of its column, wrapped at its blanks."""
    whole = " ".join(title)
    longest = max((len(line) for cell in cells for line in cell), default=0)
    words = max(map(len, whole.split()), default=1)
    glued = re.sub(" (?=[→↑↓0])", "\N{NO-BREAK SPACE}", whole)
    room = max(longest, words, 10)
    return textwrap.wrap(glued, room, break_on_hyphens=False) or [whole]


def _wide(cells: Sequence[list[str]]) -> int:
    return max(points(line) for cell in cells for line in cell)


def _plain(letter: str) -> str:
    if letter.isascii():
        return letter
    base = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return base if letter.isalpha() and base else "?"


def _pages(lines: Sequence[Sequence[list[str]]]) -> list[list[int]]:
    """Rows, without the titles, in as many parts as pages are needed."""
    pages: list[list[int]] = [[]]
    left = _ROWS
    for i, row in enumerate(lines[1:], start=1):
        high = max(map(len, row))
        if pages[-1] and high > left:
            pages.append([])
            left = _ROWS
        pages[-1].append(i)
        left -= high
    return pages


def _cell(lines: Sequence[str], bold: bool, *, named: bool) -> str:
    shown = [re.sub(r"(?<![\w-])-(?=[\d.])", "$-$", escaped(line)) for line in lines]
    shown = [rf"\textbf{{{line}}}" if bold else line for line in shown]
    if len(shown) == 1:
        return shown[0]
    side = "l" if named else "r"
    rows = r" \\ ".join(shown)
    return rf"\begin{{tabular}}[t]{{@{{}}{side}@{{}}}}{rows}\end{{tabular}}"
