"""The Python examples of the README run as they stand there."""

import re
from pathlib import Path

import jax
import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
LAST = ("unlearned", "diagonal", "scores", "effects")
"""What each example ends with."""


def test_every_example_is_run():
    assert len(EXAMPLES) == len(LAST)


@pytest.mark.parametrize("number", range(len(LAST)))
def test_example_runs(number):
    names = {}
    exec(compile(EXAMPLES[number], f"README example {number}", "exec"), names)
    leaves = jax.tree.leaves(names[LAST[number]])
    assert leaves
    assert all(bool(jax.numpy.isfinite(leaf).all()) for leaf in leaves)
