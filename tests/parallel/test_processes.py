import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from compiling import FORGIVING, flags

from experiments.frame.command import main as command
from unlearn_jax.parallel.mesh import data_mesh
from unlearn_jax.parallel.processes import COORDINATOR, COUNT, INDEX, _options, whole
from unlearn_jax.parallel.watch import LOST
from unlearn_jax.train import checkpoint

SCRIPT = Path(__file__).with_name("one_of_two.py")


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start(path, word, devices, script=SCRIPT, **variables):
    root = SCRIPT.parents[2]
    paths = [root, root / "kernels", root / "tests"]
    return subprocess.Popen(
        [sys.executable, *FORGIVING, str(script), str(path), word],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "XLA_FLAGS": flags(f"--xla_force_host_platform_device_count={devices}"),
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def several(count, path, word, script=SCRIPT):
    told = {COORDINATOR: f"localhost:{free_port()}", COUNT: str(count)}
    return [
        start(path, word, 1, script, **told, **{INDEX: str(i)}) for i in range(count)
    ]


def test_one_process_is_left_alone_and_several_are_recognised():
    assert _options({}) is None
    assert _options({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert _options({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "4"}) == {}
    assert _options({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) is None
    assert _options({"KUBERNETES_SERVICE_HOST": "x", "JOB_COMPLETION_INDEX": "0"}) == {}
    named = {COORDINATOR: "here:1", COUNT: "2", INDEX: "1"}
    assert _options(named) == {
        "coordinator_address": "here:1",
        "num_processes": 2,
        "process_id": 1,
    }
    assert _options({**named, COUNT: "1", INDEX: "0"}) is None


def test_a_command_is_not_begun_by_each_of_several_processes(monkeypatch, capsys):
    begun = []
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    with pytest.raises(SystemExit) as ended:
        command(lambda _: begun.append(1) or 0)
    assert ended.value.code == 0
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(SystemExit) as ended:
        command(lambda _: begun.append(2) or 0)
    assert ended.value.code == 2
    assert begun == [1]
    assert (
        "this command is for one process, got one of several" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({COUNT: "2"}, f"{COUNT} of .* {COORDINATOR}, {INDEX} is not"),
        ({COORDINATOR: "here:1", COUNT: "2", INDEX: "2"}, "from 0 to below it"),
        ({COORDINATOR: "here:1", COUNT: "two", INDEX: "0"}, "a count of processes"),
    ],
)
def test_variables_that_do_not_fit_are_refused(variables, message):
    with pytest.raises(ValueError, match=message):
        _options(variables)


def test_whole_values_can_be_read():
    found = whole(data_mesh(1), {"a": np.arange(3.0)})
    assert found["a"].is_fully_addressable
    np.testing.assert_array_equal(found["a"], np.arange(3.0))


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_give_the_numbers_of_one(tmp_path, count):
    for process in [
        start(tmp_path / "one.npz", "lives", count),
        *several(count, tmp_path / "more.npz", "lives"),
    ]:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        assert "numbers are there" in output
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "more"))
    assert len(one.files) > 6
    for name in one.files:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_killed_process_ends_the_other_within_a_minute_with_a_line(tmp_path):
    first, second = several(2, tmp_path / "two.npz", "dies")
    second.communicate(timeout=300)
    began = time.monotonic()
    _, errors = first.communicate(timeout=60)
    assert time.monotonic() - began < 60
    assert first.returncode == LOST, errors[-3000:]
    told = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert "process 0 of 2 has lost process 1" in told[0]
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_checkpoint_that_two_processes_write_is_read_by_two_and_by_one(tmp_path):
    folder = tmp_path / "kept"
    for process in several(2, folder, "", SCRIPT.with_name("two_checkpoints.py")):
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        assert "checkpoints are there" in output
    like = {
        "kernel": np.zeros((6, 4)),
        "half": np.zeros((2, 2), jnp.bfloat16),
        "bias": np.zeros(3, np.float32),
        "steps": np.zeros((), np.int32),
    }
    found = checkpoint.load(folder, like)
    np.testing.assert_array_equal(found["kernel"], np.arange(1.0, 25.0).reshape(6, 4))
    assert int(found["steps"]) == 8
