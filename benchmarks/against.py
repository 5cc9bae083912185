"""Times of this checkout against those of another one, in one interleaved run.

    python benchmarks/against.py OTHER [--parts MODULE:WORD ...] [--rounds 9]

OTHER is a folder with an earlier state (``git archive COMMIT | tar -x -C OTHER``). Each
state's own benchmarks run in a process of their own, in step: where one of them would
time its contenders, both are called in turn, and the order alternates. A ratio is the
median over rounds of the pairs' ratios; plain JAX among the contenders tells the noise.
Pin it to one core (``taskset``) where other programs run.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PARTS = (
    *("curvature:diagonals", "curvature:gram", "curvature:products"),
    *("curvature:ekfac", "training:", "ridge:weights", "ridge:update"),
)
OTHERS = ("vmap(grad)", "PyTorch", "torch", "formed", "LAPACK")
"""Words of contenders that the library has no part in."""
LONG = 2.0
"""Seconds above which three rounds must do."""


class State:
    """One checkout's benchmarks, which wait for each call."""

    def __init__(self, root: Path, part: str):
        module, _, word = part.partition(":")
        paths = (root, root / "kernels", root / "benchmarks")
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).resolve()), "--of", module, word],
            cwd=root,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def next(self) -> dict[str, Any] | None:
        """What it says; None at its end."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line and self.process.wait():
            raise RuntimeError(f"benchmarks of {self.process.args} failed")
        return json.loads(line) if line else None

    def call(self, name: str) -> dict[str, float]:
        """Seconds of one call."""
        self.tell(name)
        found = self.next()
        assert found is not None
        return found

    def tell(self, name: str) -> None:
        """A contender to call, or "" to go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()


def rows(states: tuple[State, State], rounds: int) -> Iterator[tuple[str, str, Any]]:
    """Title, contender and its rounds, of one part; a round is (before, now)."""
    waiting: list[tuple[str, Any]] = []
    while True:
        said = [state.next() for state in states]
        if said[0] is None or said[1] is None:
            assert said[0] is said[1]
            yield from (("", name, found) for name, found in waiting)
            return
        if "title" in said[0]:
            assert said[0] == said[1], said
            yield from ((said[0]["title"], name, found) for name, found in waiting)
            waiting = []
            continue
        for name in said[0]["contenders"]:
            if name in said[1]["contenders"] and not any(w in name for w in OTHERS):
                waiting.append((name, pairs(states, name, rounds)))
        for state in states:
            state.tell("")


def pairs(states: tuple[State, State], name: str, rounds: int) -> list[Any]:
    """Rounds of (before, now), each seconds of wall and CPU; the first is not kept."""
    warm = [state.call(name)["cpu"] for state in states]
    found = []
    for number in range(3 if max(warm) > LONG else rounds):
        order = (0, 1) if number % 2 else (1, 0)
        pair = {which: states[which].call(name) for which in order}
        found.append((pair[0], pair[1]))
    return found


def line(title: str, name: str, found: list[Any]) -> str:
    """A row of the table."""

    def median(of: Callable[[Any, Any], float]) -> float:
        return statistics.median(of(before, now) for before, now in found)

    return (
        f"| {title} | {name} | {1e3 * median(lambda b, n: b['cpu']):.1f} "
        f"| {1e3 * median(lambda b, n: n['cpu']):.1f} "
        f"| {median(lambda b, n: n['cpu'] / b['cpu']):.3f} "
        f"| {median(lambda b, n: n['wall'] / b['wall']):.3f} |"
    )


def follow(module: str, word: str) -> None:
    """Run a benchmark whose calls are timed on demand; for the process of a state."""
    timing = importlib.import_module("timing")
    benchmark: Any = importlib.import_module(module)
    out, sys.argv = sys.stdout, [module, *([word] if word else []), "--quick"]

    def say(**what: Any) -> None:
        print(json.dumps(what), file=out, flush=True)

    def turns(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
        say(contenders=list(contenders))
        while name := sys.stdin.readline().rstrip("\n"):
            wall, cpu = time.perf_counter(), time.process_time()
            contenders[name]()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            say(wall=wall, cpu=cpu)
        return dict.fromkeys(contenders, timing.Seconds(1.0, 1.0))

    benchmark.turns = turns
    benchmark.table = lambda title, *_: say(title=title)
    with contextlib.redirect_stdout(io.StringIO()):
        benchmark.main()


def main() -> None:
    """Compare, and print a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("other", type=Path, help="a checkout of the earlier state")
    parser.add_argument("--parts", nargs="*", default=PARTS, help="MODULE:WORD")
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    print("| work | contender | before, CPU ms | now | now ÷ before, CPU | wall |")
    print("|---|---|---:|---:|---:|---:|")
    for part in asked.parts:
        states = State(asked.other.resolve(), part), State(here, part)
        for title, name, found in rows(states, asked.rounds):
            print(line(title or part, name, found), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--of"]:
        follow(*sys.argv[2:])
    else:
        main()
