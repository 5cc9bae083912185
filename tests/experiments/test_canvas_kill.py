"""The study of erased drawings against a real kill: it goes on, to the same figures."""

import time

import pytest
from commands import finish, start

from unlearn_jax.results.rows import read_rows

WORDS = "--scale smoke --oracles 1 --methods uce esd-x --results".split()


def values(results):
    (folder,) = (results / "canvas").iterdir()
    rows = read_rows(folder / "rows.jsonl")
    return [(r.metric, dict(r.at), r.value) for r in rows if r.unit != "s"]


def pieces(results):
    return [path for path in results.rglob("*.npz") if "kept" in path.parts]


@pytest.mark.slow
def test_killed_after_a_training_it_goes_on_to_the_same_figures(tmp_path):
    cache, calm, killed = (tmp_path / name for name in ("cache", "calm", "killed"))
    code, _, err = finish("canvas", [*WORDS, str(calm)], cache)
    assert code == 0, err
    process = start("canvas", [*WORDS, str(killed)], cache)
    while not pieces(killed):  # The first generator; an oracle and rows follow.
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    kept = {path: path.stat().st_mtime_ns for path in pieces(killed)}
    assert kept
    assert not list(killed.rglob("rows.jsonl"))
    code, _, err = finish("canvas", [*WORDS, str(killed)], cache)
    assert code == 0, err
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert values(killed) == values(calm)
