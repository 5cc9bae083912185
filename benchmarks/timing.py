"""Turns of contenders, and a table of their medians."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Seconds(NamedTuple):
    """Medians of one contender, in one process with all threads."""

    wall: float
    cpu: float


def turns(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Seconds]:
    """Medians of contenders that take turns, each after one warm-up call.

    One that takes above 20 seconds is timed once more, not ``rounds`` times.
    """
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    cpus: dict[str, list[float]] = {name: [] for name in contenders}
    slow = set()
    for name, call in contenders.items():
        start = time.perf_counter()
        call()
        if time.perf_counter() - start > 20:
            slow.add(name)
    for number in range(rounds):
        for name, call in contenders.items():
            if number and name in slow:
                continue
            time.sleep(0.1)  # threads of the previous contender go to sleep
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
    median = statistics.median
    return {name: Seconds(median(walls[name]), median(cpus[name])) for name in walls}


def table(title: str, unit: str, seconds: dict[str, Seconds], base: Seconds) -> None:
    """Print times, and their ratio to one of them."""
    print(f"\n{title}\n")
    print(f"| contender | ms | CPU ms | wall ÷ {unit} | CPU ÷ {unit} |")
    print("|---|---:|---:|---:|---:|")
    for name, one in seconds.items():
        print(
            f"| {name} | {1e3 * one.wall:.1f} | {1e3 * one.cpu:.1f} "
            f"| {one.wall / base.wall:.2f} | {one.cpu / base.cpu:.2f} |",
            flush=True,
        )
