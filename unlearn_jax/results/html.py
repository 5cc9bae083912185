"""One self-contained page of a run: no script, no link outward, pictures inside."""

import base64
import html
import json
from collections.abc import Sequence
from typing import NamedTuple

from unlearn_jax.results.run import Run
from unlearn_jax.results.table import Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --soft: #5c5c5c;
  --line: #d4d4d4; --band: #f3f3f1; --bad: #b3261e; --badge: #8a4b00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e3; --paper: #17181a; --soft: #a9a7a3; --line: #3b3d40;
    --band: #222427; --bad: #ff8a80; --badge: #ffb74d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 1rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-top: 1px solid var(--line);
  padding-top: 1rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
.badge { display: inline-block; border: 1px solid var(--badge); color: var(--badge);
  border-radius: .3rem; padding: 0 .5rem; font-size: .85rem; font-weight: 600; }
figure { margin: 1.25rem 0; }
figcaption { font-size: .9rem; margin-bottom: .4rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .3rem; }
table { border-collapse: collapse; font-size: .85rem; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; vertical-align: top;
  white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { white-space: normal; min-width: 5.5rem; vertical-align: bottom;
  background: var(--band); }
th:first-child { text-align: left; position: sticky; left: 0;
  background: var(--paper); }
thead th:first-child { background: var(--band); }
tbody th { font-weight: 400; }
td.failed, li.failed { color: var(--bad); white-space: normal; }
td.failed { min-width: 9rem; }
.notes { font-size: .85rem; color: var(--soft); padding-left: 1.2rem; }
img { max-width: 100%; height: auto; background: #ffffff; border-radius: .3rem;
  padding: .4rem; }
pre { background: var(--band); padding: .7rem; border-radius: .3rem; font-size: .85rem;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem;
  font-size: .9rem; margin: .5rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
""".strip()

_SCALES = {
    "smoke": "smoke: shows that everything runs; the numbers carry no claim",
    "small": "small: reduced from the published setting",
    "paper": "paper: the published setting",
    "custom": "custom: settings of your own",
}


DPI = 200
"""Of the PNG files."""
_PIXELS_PER_INCH = 120


class Picture(NamedTuple):
    """A figure of the page: PNG bytes, what it shows, and the same for the ear."""

    png: bytes
    caption: str
    alt: str


class Section(NamedTuple):
    """One request: heading, the answer in words, tables, figures, shared footnotes."""

    title: str
    words: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    footnotes: Sequence[str] = ()


def page(run: Run, sections: Sequence[Section], question: str = "") -> str:
    """The whole page as HTML 5; ``question`` is what the study asks, in its words."""
    title = html.escape(f"{run.experiment}: {run.dataset}")
    badge = html.escape(_SCALES.get(run.scale, run.scale))
    body = "\n".join(_section(section) for section in sections)
    config = html.escape(json.dumps(run.config, indent=2, ensure_ascii=False))
    asked = "\n".join(
        f"<p>{html.escape(part)}</p>" for part in question.split("\n\n") if part
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{_STYLE}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p><span class="badge">{badge}</span></p>
{asked}
<p>Run {html.escape(run.id)}.</p>
{body}
<h2>What was asked</h2>
<pre>{config}</pre>
<h2>Where it ran</h2>
{_definitions(_environment(run))}
<h2>How to run it again</h2>
<pre>{html.escape(run.command)}</pre>
</main>
</body>
</html>
"""


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p><b>{html.escape(word)}</b></p>" for word in section.words]
    parts += [table.to_html() for table in section.tables]
    if section.footnotes:
        parts += ["<h3>How to read the tables</h3>", _list(section.footnotes, "notes")]
    parts += [_picture(picture) for picture in section.pictures]
    return "\n".join(parts)


def _picture(picture: Picture) -> str:
    width = int.from_bytes(picture.png[16:20], "big") * _PIXELS_PER_INCH // DPI
    data = base64.b64encode(picture.png).decode()
    return (
        f'<figure>\n<img alt="{html.escape(picture.alt)}" '
        f'width="{width}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{html.escape(picture.caption)}</figcaption>\n</figure>"
    )


def _list(lines: Sequence[str], kind: str = "") -> str:
    items = "".join(f"<li>{html.escape(line)}</li>\n" for line in lines)
    return f'<ul class="{kind}">\n{items}</ul>' if kind else f"<ul>\n{items}</ul>"


def _definitions(pairs: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>\n"
        for name, value in pairs
    )
    return f"<dl>\n{rows}</dl>"


def _environment(run: Run) -> list[tuple[str, str]]:
    changed = " (with uncommitted changes)" if run.dirty else ""
    seconds = "not finished" if run.seconds is None else f"{run.seconds:.3g}"
    return [
        ("device", run.device),
        ("floats", "64 bit allowed" if run.x64 else "32 bit"),
        ("python", run.python),
        ("jax", run.jax),
        ("flax", run.flax),
        ("commit", run.commit + changed),
        ("started", run.started),
        ("seconds", seconds),
        ("configuration", run.config_hash),
    ]
