"""A killed run goes on with the same command, and its rows do not show it."""

import random
import time
from pathlib import Path

import pytest
from commands import TINY, finish, start

from unlearn_jax.results.rows import read_rows

MEASURED_TIMES = {"s"}


def run_folder(results: Path) -> Path:
    (folder,) = (results / "compare").iterdir()
    return folder


def numbers(folder: Path) -> list[tuple]:
    """Every row; times are how long it took, not what came."""
    return [
        (
            row.metric,
            tuple(row.at.items()),
            None if row.unit in MEASURED_TIMES else row.value,
            row.failure,
        )
        for row in read_rows(folder / "rows.jsonl")
    ]


@pytest.fixture(
    scope="module", params=["vmap", pytest.param("loop", marks=pytest.mark.slow)]
)
def undisturbed(request, tmp_path_factory):
    results = tmp_path_factory.mktemp("undisturbed")
    words = [*TINY, "--members", request.param]
    code, _, err = finish("compare", [*words, "--results", str(results)])
    assert code == 0, err
    return words, run_folder(results)


def finished_files(results: Path) -> int:
    """Judged models and pieces of ensembles, whole ones."""
    judged = sum(1 for _ in results.glob("kept/*/*.npz"))
    return judged + sum(1 for _ in results.glob("kept/models/*/members-*"))


def kill_and_go_on(words, results, waits) -> int:
    """Kill at each moment, then let it finish; how often it really was killed."""
    command = [*words, "--results", str(results)]
    killed = 0
    for wait in waits:
        process = start("compare", command)
        wait(process, results)
        process.kill()
        process.communicate()
        if process.returncode == 0:  # it was faster than the kill
            return killed
        killed += 1
    code, _, err = finish("compare", command)
    assert code == 0, err
    return killed


def until_files(count):
    """Wait until so many pieces more lie there, or the process has ended."""

    def wait(process, results):
        before = finished_files(results)
        while process.poll() is None and finished_files(results) < before + count:
            time.sleep(0.002)

    return wait


def for_seconds(seconds):
    def wait(process, results):
        del results
        stop = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < stop:
            time.sleep(0.01)

    return wait


def test_killed_run_ends_with_the_same_rows(undisturbed, tmp_path):
    words, folder = undisturbed
    waits = [until_files(1), until_files(3), for_seconds(4.0), until_files(9)]
    assert kill_and_go_on(words, tmp_path, waits) >= 2
    got, want = numbers(run_folder(tmp_path)), numbers(folder)
    assert len(want) > 500
    assert len(set(got)) == len(got), "a row stands twice"
    assert got == want


@pytest.mark.slow
def test_killed_at_many_random_moments(undisturbed, tmp_path):
    words, folder = undisturbed
    moments = random.Random(0)
    waits = [for_seconds(moments.uniform(0.5, 12.0)) for _ in range(20)]
    assert kill_and_go_on(words, tmp_path, waits) >= 5
    assert numbers(run_folder(tmp_path)) == numbers(folder)


@pytest.mark.slow
def test_finished_run_is_left_alone(undisturbed):
    words, folder = undisturbed
    results = folder.parents[1]
    before = (folder / "rows.jsonl").read_bytes()
    code, _, err = finish("compare", [*words, "--results", str(results)])
    assert code == 0, err
    assert (folder / "rows.jsonl").read_bytes() == before
    assert len(list(folder.parent.iterdir())) == 2, "a finished run is not gone on with"
