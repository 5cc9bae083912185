"""The Python examples of the README and of docs/ run as they stand there."""

import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]
LAST = {
    "README.md": "unlearned",
    "docs/curvature.md": "diagonal",
    "docs/exact-forgetting.md": "scores",
    "docs/attribution.md": "effects",
    "docs/methods.md": "unlearned",
    "docs/language.md": "unlearned",
    "docs/accelerators.md": "apart",
}
"""What the example of each page ends with."""


def examples(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def pages():
    return ["README.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]


def test_every_example_is_run():
    found = {page: len(examples(page)) for page in pages()}
    assert found == {page: int(page in LAST) for page in pages()}


@pytest.mark.parametrize("page", LAST)
def test_example_runs(page, capsys):
    names = {}
    exec(compile(examples(page)[0], page, "exec"), names)
    leaves = jax.tree.leaves(names[LAST[page]])
    assert leaves
    assert all(bool(jax.numpy.isfinite(leaf).all()) for leaf in leaves)
    if page == "README.md":
        for line in capsys.readouterr().out.splitlines():
            name, rates = line.split(": ")
            assert re.fullmatch(r"\d+% of threes, \d+% else", rates)
            assert f"`{name}: " in (ROOT / page).read_text()


def test_every_link_leads_somewhere():
    for page in pages():
        for target in re.findall(r"\]\(([^()# ]+)\)", (ROOT / page).read_text()):
            if not target.startswith("http"):
                assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.encode()) <= 9216
