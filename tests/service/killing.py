"""Runs the toy stream in children that are killed at random moments, then to its end.

One process imports everything once and never computes itself; its children are forks.
Arguments: a folder, how many kills, how many requests. Every run that comes to its end
stays in a folder of its own, 0, 1, …; prints the number of kills and of folders.
"""

import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import orbax.checkpoint  # noqa: F401  (so that no child pays for it)
from service.toy import open_toy, requests

from unlearn_jax.service import audit  # noqa: F401

LONGEST = 0.6  # seconds after a child is under way
LAST = 600.0  # seconds for the run that is not killed


def child(folder, number, ready):
    warnings.simplefilter("ignore")
    jax.numpy.zeros(()).block_until_ready()
    os.write(ready, b"!")
    with open_toy(folder) as service:
        for request in requests(number):
            service.submit(*request)
    os._exit(0)


def run_and_kill(folder, number, wait):
    """Whether the child was killed; else it came to its end."""
    listen, ready = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            child(folder, number, ready)
        finally:
            os._exit(1)
    os.close(ready)
    os.read(listen, 1)
    os.close(listen)
    end = time.monotonic() + wait
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            break
        time.sleep(0.001)
    else:
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit(f"a child failed with {os.WEXITSTATUS(status)}")
    return False


def main(root, kills, number):
    moments = random.Random(0)
    killed, folders = 0, 0
    while killed < kills:
        again = run_and_kill(root / str(folders), number, moments.uniform(0, LONGEST))
        killed += again
        folders += not again
    if run_and_kill(root / str(folders), number, LAST):
        raise SystemExit("the last run was not to be killed")
    print(killed, folders + 1)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
