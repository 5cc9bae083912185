"""Ensembles against real kills: of the command, of SLURM jobs; and many devices."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, environment

FILES = ("outputs.npy", "variables.npz")
SCRIPT = Path(__file__).with_name("ensemble_work.py")
NODE = Path(__file__).with_name("slurm_node.sh")
COUNT, EPOCHS = 16, 40_000
needs_slurm = pytest.mark.skipif(
    not all(map(shutil.which, ("sbatch", "slurmctld", "slurmd", "munged")))
    or os.geteuid() != 0,
    reason="needs root and the packages slurm-wlm and munge",
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    paths = [ROOT, ROOT / "kernels", ROOT / "tests", SCRIPT.parent]
    known = environment(tmp_path_factory.mktemp("compilations"))
    return known | {"PYTHONPATH": os.pathsep.join(map(str, paths))}


@pytest.fixture(scope="module")
def undisturbed(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    code, err = finish(start(folder, settings))
    assert code == 0, err
    return contents(folder)


def start(folder, settings, **options):
    words = [str(folder), str(COUNT), json.dumps({"epochs": EPOCHS} | options)]
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(SCRIPT), *words],
        env=settings,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def contents(folder):
    return {
        f"{place.name}/{name}": (place / name).read_bytes()
        for place in folder.glob("members-*")
        for name in FILES
    }


def check(folder, undisturbed):
    """The same bits as an undisturbed run, and no finished piece was made again."""
    assert contents(folder) == undisturbed
    trained = (folder / "trained").read_text().split()
    assert len(trained) == len(set(trained))
    assert not list(folder.glob(".unlearn-*"))


def until_pieces(folder, count, process):
    before = len(list(folder.glob("members-*")))
    stop = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < stop:
        if len(list(folder.glob("members-*"))) >= before + count:
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_to_the_same_bits(
    undisturbed, settings, tmp_path
):
    draw, killed = random.Random(0), 0
    for number in range(8):
        process = start(tmp_path, settings)
        if number % 2:
            time.sleep(draw.uniform(0.5, 6))
        else:
            until_pieces(tmp_path, 1, process)
            time.sleep(draw.uniform(0, 0.3))
        process.kill()
        killed += finish(process)[0] != 0
    code, err = finish(start(tmp_path, settings))
    assert code == 0, err
    assert killed >= 3
    check(tmp_path, undisturbed)


@pytest.mark.slow
def test_two_commands_at_once_share_the_pieces(undisturbed, settings, tmp_path):
    both = [start(tmp_path, settings) for _ in range(2)]
    for process in both:
        code, err = finish(process)
        assert code == 0, err
    check(tmp_path, undisturbed)


@pytest.mark.slow
def test_on_four_devices_the_members_are_the_same(undisturbed, settings, tmp_path):
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    code, err = finish(start(tmp_path, settings | devices, chunk=4))
    assert code == 0, err
    places = sorted(tmp_path.glob("members-*"))
    assert [place.name[-6:] for place in places] == [
        "000004",
        "000008",
        "000012",
        "000016",
    ]
    found = np.concatenate([np.load(place / FILES[0]) for place in places])
    (tmp_path / "one").mkdir()
    for name, content in undisturbed.items():
        (tmp_path / "one" / name.replace("/", " ")).write_bytes(content)
    alone = sorted((tmp_path / "one").glob("*.npy"))
    expected = np.concatenate([np.load(path) for path in alone])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.fixture
def cluster(settings, tmp_path_factory):
    """Settings under which sbatch reaches a cluster of this one machine."""
    folder = tmp_path_factory.mktemp("slurm")
    for place in (folder, *folder.parents[:2]):
        place.chmod(0o755)
    subprocess.run([NODE, "start", folder], check=True, timeout=60)
    try:
        yield settings | {"SLURM_CONF": str(folder / "slurm.conf")}
    finally:
        subprocess.run([NODE, "stop", folder], check=False, timeout=60)


def jobs(cluster):
    command = ["squeue", "--noheader", "--array", "--format=%i", "--states=R"]
    asked = subprocess.run(
        command, env=cluster, capture_output=True, text=True, check=True
    )
    return asked.stdout.split()


@needs_slurm
@pytest.mark.slow
def test_through_slurm_lost_jobs_cost_the_pieces_under_way(
    undisturbed, cluster, tmp_path
):
    pytest.importorskip("submitit")
    options = {"where": "slurm", "workers": 2, "slurm": {"timeout_min": 10}}
    for kill in (["scancel", "--signal=KILL", "--full"], ["scancel"]):
        process = start(tmp_path, cluster, **options)
        until_pieces(tmp_path, 1, process)
        subprocess.run([*kill, *jobs(cluster)], env=cluster, check=True)
        code, err = finish(process)
        assert code != 0
        assert "left the queue without a result" in err
        assert "Run the same command again" in err
        with contextlib.suppress(IndexError):
            assert not jobs(cluster)
    assert 2 <= len(contents(tmp_path)) < len(undisturbed)
    code, err = finish(start(tmp_path, cluster, **options))
    assert code == 0, err
    check(tmp_path, undisturbed)
