"""What every study does, whatever its question; and how little a new one takes."""

import dataclasses
import random
import shutil
import time
from pathlib import Path

import plain_study
import pytest
from commands import TINY, finish, start

from experiments.frame.config import restored
from experiments.frame.rules import unknown_settings
from experiments.frame.study import configured, report, run
from experiments.studies import STUDIES
from unlearn_jax.results.rows import read_rows
from unlearn_jax.results.run import read_run
from unlearn_jax.storage.plain import plain_config

ALL = {**STUDIES, "plain": plain_study.STUDY}
SMOKE = ["--scale", "smoke"]
SMALL = "--examples 64 128 --widths 8 16 --batch-size 32".split()
RUNS = {
    "scaling, small": ("scaling", [*SMOKE, *SMALL]),
    **{name: (name, SMOKE) for name in STUDIES},
    "unlearn": ("unlearn", ["ssd", *SMOKE]),
    "compare, looped": ("compare", [*TINY, "--members", "loop"]),
}
"""Title -> the command and its words; the first one runs every day."""
TIMED = {"s", "gradients"}
"""Units of how long it took; not of what came."""
KILLS = 5


class Killed(BaseException):
    """Nothing that a study catches."""


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def finished(path):
    return read_run(path.parent).seconds is not None


def numbers(folder):
    return [
        (
            row.metric,
            tuple(row.at.items()),
            None if row.unit in TIMED or "seconds" in row.metric else row.value,
            row.failure,
        )
        for row in read_rows(folder / "rows.jsonl")
    ]


@pytest.mark.parametrize("name", ALL)
def test_presets_are_parsed_kept_and_fit_the_rules(name):
    study = ALL[name]
    presets = study.presets(study.data)
    assert {"small", "smoke"} <= set(presets)
    for scale, preset in presets.items():
        assert configured(study, ["--scale", scale]) == preset
        assert preset.scale == scale
        assert restored(type(preset), plain_config(preset)) == preset
        assert unknown_settings(preset, study.rules) == []
    changed = configured(study, [*SMOKE, "--name", "mine"])
    assert changed == dataclasses.replace(presets["smoke"], name="mine")


@pytest.mark.parametrize("name", ALL)
def test_what_cannot_be_done_is_refused_before_it_begins(name, tmp_path):
    asked = [(["--scale", "tiny"], "choose from")]
    study = ALL[name]
    if hasattr(study.presets(study.data)["smoke"], "data"):
        asked += [
            ([*SMOKE, "--data.name", "nowhere"], "nowhere"),
            ([*SMOKE, "--data.limit", "-1"], "data.limit is -1"),
        ]
    for words, says in asked:
        with pytest.raises(ValueError, match=says):
            run(study, [*words, "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "title",
    [next(iter(RUNS)), *(pytest.param(t, marks=pytest.mark.slow) for t in [*RUNS][1:])],
)
def test_killed_at_random_moments_it_ends_with_the_same_rows_and_is_reproduced(
    title, tmp_path
):
    name, words = RUNS[title]

    def command(results):
        return [*words, "--results", str(tmp_path / results)]

    begun = time.monotonic()
    code, _, err = finish(name, command("calm"))
    seconds = time.monotonic() - begun
    assert code == 0, err
    (calm,) = (tmp_path / "calm" / name).iterdir()

    moments, killed = random.Random(title), 0
    for _ in range(KILLS):
        begun = time.monotonic()
        process = start(name, command("killed"))
        stop = begun + moments.uniform(0.3, 1.0) * seconds
        while process.poll() is None and time.monotonic() < stop:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        done = any(map(finished, (tmp_path / "killed" / name).glob("*/run.json")))
        if done and killed:
            break
        if done:  # Its programs were there already: again, by how long it takes now.
            shutil.rmtree(tmp_path / "killed")
            seconds = time.monotonic() - begun
        else:
            killed += 1
    assert killed
    if not done:
        code, _, err = finish(name, command("killed"))
        assert code == 0, err
    (folder,) = (tmp_path / "killed" / name).iterdir()
    got = numbers(folder)
    assert len({row[:2] for row in got}) == len(got), "a row stands twice"
    assert got == numbers(calm)

    before = contents(calm)
    report(STUDIES[name], calm)
    assert contents(calm) == before


def test_a_new_study_goes_on_and_is_reproduced(study_run, monkeypatch, tmp_path):
    measured = plain_study.accuracy
    counts = plain_study.Config().counts
    for last in counts:

        def dies(dataset, count, last=last):
            if count == last:
                raise Killed
            return measured(dataset, count)

        monkeypatch.setattr(plain_study, "accuracy", dies)
        with pytest.raises(Killed):
            run(plain_study.STUDY, [*SMOKE, "--results", str(tmp_path)])
    asked = []
    monkeypatch.setattr(
        plain_study, "accuracy", lambda *a: asked.append(a[1]) or measured(*a)
    )
    rows = study_run(plain_study.STUDY, SMOKE).rows
    assert asked == [counts[-1]]
    assert rows.places("count") == list(counts)
    assert 85 < rows.value("accuracy", count=counts[-1]) < 92
    (folder,) = (tmp_path / "plain").iterdir()
    before = contents(folder)
    report(plain_study.STUDY, folder)
    # A finished run is not gone on with: this one is a run of its own.
    study_run(plain_study.STUDY, SMOKE)
    assert contents(folder) == before
    assert len(list((tmp_path / "plain").iterdir())) == 2


def test_a_new_study_takes_at_most_sixty_lines():
    assert len(Path(plain_study.__file__).read_text().splitlines()) <= 60
