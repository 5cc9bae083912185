import dataclasses
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from unlearn_jax.results import run as runs
from unlearn_jax.results.record import RecordError
from unlearn_jax.results.run import (
    config_hash,
    git_state,
    new_run,
    plain_config,
    read_run,
    write_run,
)
from unlearn_jax.storage.checksum import with_check


@dataclasses.dataclass(frozen=True)
class Inner:
    folder: Path = Path("data")
    rates: tuple[float, ...] = (0.1, float("inf"))


@dataclasses.dataclass(frozen=True)
class Config:
    inner: Inner = dataclasses.field(default_factory=Inner)
    seeds: int = 3


def test_a_run_comes_back_equal(tmp_path):
    run = new_run("compare", "smoke", Config(), dataset="Digits")
    write_run(tmp_path, run)
    assert read_run(tmp_path) == run
    done = run._replace(seconds=0.1 + 0.2, started="2026-01-01T00:00:00+00:00")
    write_run(tmp_path, done)
    assert read_run(tmp_path) == done


def test_a_run_knows_its_time_and_configuration():
    run = new_run("compare", "small", Config(), dataset="Digits")
    assert re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{6}", run.id)
    assert run.id.endswith(run.config_hash)
    assert run.config["inner"] == {"folder": "data", "rates": [0.1, "inf"]}
    assert run.started.endswith("+00:00")
    assert run.seconds is None
    assert run.x64
    assert run.command.startswith("python ")


def test_hash_depends_on_values_and_not_on_order():
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert len(config_hash({})) == 6


def test_plain_config_takes_numpy_numbers_and_refuses_objects():
    assert plain_config({"a": np.float64(0.5), "b": np.int64(3)}) == {"a": 0.5, "b": 3}
    with pytest.raises(TypeError, match="cannot hold"):
        plain_config({"a": object()})


def test_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="smoke, small, paper, custom"):
        new_run("compare", "huge", {}, dataset="Digits")


def test_git_never_fails(monkeypatch):
    commit, dirty = git_state()
    assert commit == "unknown" or re.fullmatch("[0-9a-f]{40}", commit)
    assert isinstance(dirty, bool)

    def slow(*arguments, **options):
        raise subprocess.TimeoutExpired("git", 10)

    monkeypatch.setattr(runs.subprocess, "run", slow)
    assert git_state() == ("unknown", False)

    def absent(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(runs.subprocess, "run", absent)
    assert git_state() == ("unknown", False)


def test_another_repository_is_not_taken_for_ours(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    installed = tmp_path / "site-packages" / "run.py"
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.setattr(runs, "__file__", str(installed))
    assert git_state() == ("unknown", False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps({"id": "x"}), "no checksum"),
        (json.dumps(with_check({"id": "x"})), "seconds"),
        (json.dumps(with_check({"id": "x", "seconds": None})), "missing"),
        ("{", "property name"),
        ("", "Expecting value"),
    ],
)
def test_a_damaged_description_is_named(tmp_path, text, says):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RecordError, match=rf"run\.json.*{says}.*delete it and run"):
        read_run(tmp_path)
