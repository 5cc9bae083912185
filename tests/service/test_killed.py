"""Killed with SIGKILL at random moments and started again: all as if undisturbed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from service.toy import bits, open_toy, requests, told, undisturbed

from unlearn_jax.service.audit import audit, verify

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = 40


@pytest.mark.parametrize(
    "kills", [3, pytest.param(50, marks=pytest.mark.slow)], ids=str
)
def test_killed_at_random_moments_all_is_as_if_undisturbed(tmp_path, quick_path, kills):
    states, entries = undisturbed(quick_path / "undisturbed", requests(REQUESTS))
    script = Path(__file__).with_name("killing.py")
    words = [sys.executable, str(script), str(tmp_path), str(kills), str(REQUESTS)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run(
        words,
        env=os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed, folders = map(int, done.stdout.split())
    assert killed == kills
    assert len(entries) == len(states) - 1 > 30
    last = max(e.sequence for e in entries if e.outcome == "applied")
    for folder in (tmp_path / str(i) for i in range(folders)):
        history = verify(folder)
        assert history.pending is None
        assert told(history.entries) == entries
        assert history.cleared >= last
        assert os.listdir(folder / "pieces") == []
        assert os.listdir(folder / "snapshots") == [str(history.cleared)]
        assert len(audit(folder).rows) == len(entries)
        with open_toy(folder) as service:
            assert bits(service.state) == states[len(entries)]
