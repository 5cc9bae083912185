"""Every program is compiled for TPUs and GPUs that are absent, a portion at a time.

The compilers are optional packages (``absent.py`` says which and how to get them); each
test is skipped, by name, without the one that it needs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import absent
import pytest
from programs import programs, small_nets

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    *("kernels", "train", "diagonal", "operator", "EK-FAC", "contraction"),
    *("projection", "solver", "spectrum", "ridge", "method", "attribution", "language"),
    "editing",
)
REFUSED = {("ridge", "tpu"): "float64 on a TPU is a pair of float32"}
"""What is refused in float64 by a sentence of the library's own."""

pytestmark = pytest.mark.slow


def lines_of(script, device, *options):
    """Lines that a script prints."""
    package = absent.missing(device)
    if package is not None:
        pytest.skip(f"compiling for {device} needs {package}; see kernels/absent.py")
    paths = (".", "kernels", "tests", "tests/kernels")
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), *options],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(str(ROOT / path) for path in paths)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return [json.loads(line) for line in ended.stdout.splitlines()]


def compile_for(device, room, *options):
    """Lines by the name of the program."""
    lines = lines_of("absent.py", device, device, "--words", room, *options)
    return {line["name"]: line for line in lines}


def test_rooms_cover_every_program():
    for program in programs(small_nets()):
        assert program.name.startswith(ROOMS), program.name


@pytest.mark.parametrize("device", absent.DEVICES)
@pytest.mark.parametrize("room", ROOMS)
def test_single_precision(device, room):
    lines = compile_for(device, room)
    assert lines
    for name, line in lines.items():
        assert "error" not in line, (name, line)


@pytest.mark.parametrize("device", absent.DEVICES)
@pytest.mark.parametrize("room", ["ridge", "method"])
def test_double_precision(device, room):
    lines = compile_for(device, room, "--double")
    assert lines
    refused = REFUSED.get((room, absent.DEVICES[device]))
    for name, line in lines.items():
        if refused is None:
            assert "error" not in line, (name, line)
        else:
            assert refused in line["error"], (name, line)


def test_kernels_for_gpus_keep_their_tiles_in_registers():
    lines = lines_of("registers.py", "H100")
    assert len(lines) == 8
    for line in lines:
        assert line["stored"] == line["loaded"] == 0, line
        assert 0 < line["registers"] < 255, line
        # Matrix units have no float32: in full it is multiplied by the others.
        in_full = (line["dtype"], line["precision"]) == ("float32", "full")
        plain = in_full and line["kernel"] != "project_signs"
        assert (line["products"] == 0) == plain, line
