"""A study in several processes: the rows of one, and no end by a kill."""

import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from commands import finish, start
from results.fake_records import fake_run

from experiments.frame.bench import Bench, piece_of
from experiments.frame.processes import processes_told
from unlearn_jax.parallel.processes import COORDINATOR, COUNT, INDEX
from unlearn_jax.parallel.watch import LOST, Links
from unlearn_jax.results.rows import Row, read_rows
from unlearn_jax.storage.piece import Piece
from unlearn_jax.storage.store import Store

WORDS = (
    "--scale smoke --data.limit 200 --model.width 8 --recipe.epochs 2 --requests "
    "class:3 --seeds.train 2 --oracles 4 --relearn-steps 2 --methods finetune"
).split()
OF_TIME = ("s", "bytes")
"""Units of what is measured anew in every run."""


def told_words(port, count, index):
    words = {"--coordinator": f"localhost:{port}", "--processes": count}
    return [str(x) for pair in (words | {"--process": index}).items() for x in pair]


def begin(folder, count, words=WORDS):
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    given = [*words, "--results", str(folder)]
    return [
        start("compare", [*given, *told_words(port, count, i)]) for i in range(count)
    ]


def rows_in(folder):
    (run,) = (folder / "compare").iterdir()
    rows = read_rows(run / "rows.jsonl")
    return {(row.metric, *sorted(map(str, row.at.items()))): row for row in rows}


def ends(processes):
    found = [process.communicate(timeout=300) for process in processes]
    return [process.returncode for process in processes], found


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(tmp_path):
    words = [*WORDS, "unrolled_removal"]  # keeps a checkpoint
    code, _, errors = finish("compare", [*words, "--results", str(tmp_path / "one")])
    assert code == 0, errors
    codes, said = ends(begin(tmp_path / "two", 2, words))
    assert codes == [0, 0], said
    assert "index.html" in said[0][1]
    assert said[1][1] == ""
    one, two = rows_in(tmp_path / "one"), rows_in(tmp_path / "two")
    assert one.keys() == two.keys()
    for place, row in one.items():
        if row.unit in OF_TIME or row.value is None:
            assert (two[place].value is None) == (row.value is None)
        else:
            np.testing.assert_allclose(two[place].value, row.value, 1e-4, 1e-5)
    folders = list((tmp_path / "two" / "kept" / "models").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert len(list(folder.glob("members-*"))) == 2


@pytest.mark.slow
def test_a_killed_study_ends_the_others_and_goes_on(tmp_path):
    for killed in (1, 0):
        processes = begin(tmp_path, 2)
        deadline = time.monotonic() + 200
        whole = "kept/judged/*.npz"  # what is being written has another name
        finished = len(list(tmp_path.glob(whole))) + 1
        while len(list(tmp_path.glob(whole))) < finished:
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in processes)
            time.sleep(0.02)
        processes[killed].send_signal(signal.SIGKILL)
        left, began = processes[1 - killed], time.monotonic()
        _, errors = left.communicate(timeout=60)
        assert time.monotonic() - began < 60
        processes[killed].communicate()
        assert left.returncode == LOST, errors
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert lines == [
            f"error: process {1 - killed} of 2 has lost process {killed}; see what "
            "that one said last, then start all of them again"
        ]
        assert "Traceback" not in errors
    kept = {path: path.stat().st_mtime for path in tmp_path.glob("kept/*/*.npz")}
    codes, said = ends(begin(tmp_path, 2))
    assert codes == [0, 0], said
    assert len(rows_in(tmp_path)) > 100
    assert len(kept) > 1
    assert {path: path.stat().st_mtime for path in kept} == kept


class Recorded(Links):
    """What is told is kept, and heard again by another number."""

    def __init__(self, index, words):
        super().__init__(index, 2, {})
        self.words = words

    def tell(self, content):
        self.words.append(content)

    def hear(self):
        return self.words.pop(0)


def test_other_processes_get_the_pieces_of_the_first_and_make_none(tmp_path):
    words = []
    (tmp_path / "run").mkdir()

    def outer(bench):
        inner = bench.keep("inner", lambda: Piece({"a": np.arange(3)}, {}))
        return Piece(inner.arrays, {"of": "outer"})

    def measure(bench):
        yield from bench.rows("first", lambda: [Row("m", 1.5, "1", {})])
        piece = bench.keep("outer", lambda: outer(bench), known_by={"x": 1})
        yield Row("sum", float(piece.arrays["a"].sum()), "1", {})
        failed = [Row("m", None, "1", {}, "it failed")]
        yield from bench.rows("broken", broken, failed=lambda reason: failed)

    def broken():
        raise ArithmeticError("no number")

    with Store(tmp_path / "run") as store:
        first = list(measure(Bench(store, tmp_path, fake_run(), Recorded(0, words))))
    assert len(words) == 3
    before = sorted(tmp_path.rglob("*"))
    second = list(measure(Bench(None, tmp_path, fake_run(), Recorded(1, words))))
    assert second == first
    assert sorted(tmp_path.rglob("*")) == before


def test_processes_on_different_ways_are_told():
    words = [b"+one\n" + b"rest", b"-ValueError: no"]
    bench = Bench(None, Path("nowhere"), fake_run(), Recorded(1, words))
    with pytest.raises(ValueError, match="process 0 made 'one' where process 1 asks"):
        bench.keep("two", lambda: piece_of([]))
    with pytest.raises(ValueError, match="process 0 failed: ValueError: no"):
        bench.keep("two", lambda: piece_of([]))


def test_flags_of_processes_are_no_part_of_the_configuration(monkeypatch):
    for name in (COORDINATOR, COUNT, INDEX):
        monkeypatch.delenv(name, raising=False)
    words = [
        "--scale",
        "smoke",
        "--processes=2",
        "--process",
        "1",
        "--coordinator",
        "h:1",
    ]
    told, left = processes_told(words)
    assert left == ["--scale", "smoke"]
    assert [told[name] for name in (COORDINATOR, COUNT, INDEX)] == ["h:1", "2", "1"]
    with pytest.raises(ValueError, match="--process has no value"):
        processes_told(["--process"])
    assert processes_told([])[0].get(COUNT) is None
