"""A script in a process of its own that sees several devices of this machine's CPU."""

import os
import subprocess
import sys

from commands import ROOT
from compiling import FORGIVING, flags


def run_on_devices(count, script, *words, options=(), timeout=300):
    """What the script prints; fails with its last words where it fails."""
    paths = [ROOT, ROOT / "kernels", ROOT / "tests"]
    done = subprocess.run(
        [sys.executable, *options, *FORGIVING, str(script), *words],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "XLA_FLAGS": flags(f"--xla_force_host_platform_device_count={count}"),
        },
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
