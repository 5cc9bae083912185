"""A long list of programs in portions: what is known, and what takes too long."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def limited(seconds: float | None, line: dict[str, Any]) -> Iterator[None]:
    """Starts the script anew behind a program that takes longer, and says so.

    No compiler can be stopped, so the process gives way to one that gets ``--after``
    and the program's name, beside the arguments of this one.
    """
    done, start = threading.Event(), time.process_time()

    def watch(limit: float) -> None:
        while not done.wait(0.5):
            if time.process_time() - start > limit:
                told = f"stopped after {limit:g} s of processor time, still compiling"
                print(json.dumps(line | {"error": told}), flush=True)
                again = [sys.executable, *sys.argv, "--after", line["name"]]
                os.execv(sys.executable, again)

    if seconds is not None:
        threading.Thread(target=watch, args=(seconds,), daemon=True).start()
    try:
        yield
    finally:
        done.set()


def known_names(files: list[Path], kinds: dict[str, Any]) -> set[str]:
    """Names of the programs of this kind that have a line there."""
    lines = [json.loads(one) for file in files for one in file.read_text().splitlines()]
    return {line["name"] for line in lines if kinds.items() <= line.items()}
