import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from unlearn_jax.parallel.launch import launch
from unlearn_jax.parallel.local import LaunchError

PIECES = ["a", "b", "c", "d", "e"]


def touch(folder: Path, piece: str) -> None:
    """Leave a line for every time that the piece was worked on."""
    with (folder / piece).open("a") as file:
        file.write(f"{os.getpid()} {sorted(os.sched_getaffinity(0))}\n")


def die_once(folder: Path, piece: str) -> None:
    touch(folder, piece)
    if piece == "c" and len((folder / piece).read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def always_die(folder: Path, piece: str) -> None:
    touch(folder, piece)
    if piece == "c":
        os.kill(os.getpid(), signal.SIGKILL)


def fail(folder: Path, piece: str) -> None:
    if piece == "b":
        raise ValueError("b cannot be done")
    touch(folder, piece)


def lines(folder: Path, piece: str) -> list[str]:
    path = folder / piece
    return path.read_text().splitlines() if path.exists() else []


def exists(folder: Path, piece: str) -> bool:
    return (folder / piece).exists()


@pytest.mark.parametrize("where", ["here", "local"])
def test_every_piece_is_worked_on_once_and_finished_ones_are_skipped(tmp_path, where):
    (tmp_path / "d").touch()
    ended = []
    for _ in range(2):
        launch(
            partial(touch, tmp_path),
            PIECES,
            where=where,
            finished=partial(exists, tmp_path),
            advance=ended.append,
        )
    assert sorted(ended) == ["a", "b", "c", "e"]
    assert [len(lines(tmp_path, piece)) for piece in PIECES] == [1, 1, 1, 0, 1]


def test_local_workers_are_other_processes_with_their_share_of_the_cores(tmp_path):
    launch(partial(touch, tmp_path), PIECES, where="local", workers=2)
    seen = {line for piece in PIECES for line in lines(tmp_path, piece)}
    processes = {line.split()[0] for line in seen}
    assert str(os.getpid()) not in processes
    cores = os.sched_getaffinity(0)
    if len(cores) >= 2 and len(processes) == 2:
        shares = [set(eval(line.partition(" ")[2])) for line in seen]
        assert not set.intersection(*shares)
        assert set.union(*shares) == cores


def test_a_process_that_dies_is_replaced_and_takes_no_other_piece_with_it(tmp_path):
    launch(partial(die_once, tmp_path), PIECES, where="local", workers=2)
    assert [len(lines(tmp_path, piece)) for piece in PIECES] == [1, 1, 2, 1, 1]


def test_a_piece_that_kills_its_process_twice_is_named_after_the_others(tmp_path):
    with pytest.raises(LaunchError, match=r"1 of 5 pieces .* 'c' \(exit code -9"):
        launch(partial(always_die, tmp_path), PIECES, where="local", workers=2)
    assert [len(lines(tmp_path, piece)) for piece in PIECES] == [1, 1, 2, 1, 1]


@pytest.mark.parametrize("where", ["here", "local"])
def test_what_the_function_raises_comes_out(tmp_path, where):
    with pytest.raises(ValueError, match="b cannot be done"):
        launch(partial(fail, tmp_path), PIECES, where=where)
    assert exists(tmp_path, "a")


def test_what_is_not_finished_afterwards_is_said(tmp_path):
    with pytest.raises(LaunchError, match=r"5 of 5 pieces .* run the same command"):
        launch(lambda piece: None, PIECES, finished=partial(exists, tmp_path))


def test_slurm_without_submitit_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r'pip install "unlearn_jax\[slurm\]"'):
        launch(partial(touch, tmp_path), PIECES, where="slurm", logs=tmp_path)


def test_jobs_that_slurm_does_not_take_are_one_line(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(LaunchError, match=r"^no job was submitted: .*$") as caught:
        launch(
            partial(touch, tmp_path),
            PIECES,
            where="slurm",
            logs=tmp_path / "logs",
            slurm={"nonsense": 1},
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "0 workers"),
        ({"where": "slurm"}, "give logs"),
    ],
)
def test_impossible_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        launch(print, PIECES, **options)
