"""Ways to train an ensemble: one program over members, or one after another.

    python benchmarks/ensemble.py [--quick] [--members 64] [--nets tiny wide deep cnn]

Prints a Markdown table. Contenders train the same members on random halves of the same
noise, take turns round by round, and a number is the median over rounds; CPU time
counts all threads and child processes and is the steadier one where other programs
share the cores. Neither compilation nor making the data is counted; the two processes
are started and have compiled before their turn.
"""

import argparse
import functools
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax import tree
from unlearn_jax.data.batch import from_arrays
from unlearn_jax.data.subsets import subset_masks
from unlearn_jax.models import MODELS
from unlearn_jax.parallel.mesh import member_mesh, replicate, shard_members
from unlearn_jax.train.ensemble import choose_members, member_program, single_program
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch
from unlearn_kernels.target import target_platform

CHUNKS = (4, 16, 64)


class Net(NamedTuple):
    """One net, its data, and how long it trains."""

    title: str
    model: str
    shape: tuple[int, ...]
    options: dict[str, Any]
    examples: int
    batch: int
    epochs: int


NETS = {
    "tiny": Net("64-32-10", "mlp", (64,), {"widths": (32,)}, 1437, 64, 5),
    "broad": Net("64-128-10", "mlp", (64,), {"widths": (128,)}, 1437, 64, 5),
    "narrow": Net("784-16-10", "mlp", (784,), {"widths": (16,)}, 2000, 128, 2),
    "wide": Net("784-64-10", "mlp", (784,), {"widths": (64,)}, 2000, 128, 2),
    "wider": Net("784-128-10", "mlp", (784,), {"widths": (128,)}, 2000, 128, 2),
    "deep": Net("784-256-256-10", "mlp", (784,), {"widths": (256, 256)}, 2000, 128, 1),
    "cnn": Net("small CNN, 28x28", "cnn", (28, 28, 1), {"width": 8}, 512, 128, 1),
}


class Seconds(NamedTuple):
    """Medians of one contender for the whole ensemble."""

    wall: float
    cpu: float


def main() -> None:
    """Run everything and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds instead of 5")
    parser.add_argument("--members", type=int, default=64)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--chunks", type=int, nargs="+", default=list(CHUNKS))
    parser.add_argument("--without-processes", action="store_true")
    parser.add_argument("--without-map", action="store_true")
    asked = parser.parse_args()
    rounds = 2 if asked.quick else 5
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}", end=""
    )
    print(f" on {target_platform()}, {asked.members} members, {rounds} rounds\n")
    print("| net | parameters | contender | ms per member | CPU ms per member ", end="")
    print("| runs ÷ it, wall | runs ÷ it, CPU |\n|---|---:|---|---:|---:|---:|---:|")
    for name in asked.nets:
        compare(name, rounds, asked)


def compare(name: str, rounds: int, asked: argparse.Namespace) -> None:
    """One net's rows."""
    members, processes = asked.members, not asked.without_processes
    learner, data, keys, weights = work(name, members)
    contenders: dict[str, Callable[[], Any]] = {
        "one after another": lambda: run_singles(learner, data, keys, weights)
    }
    for chunk in sorted({min(chunk, members) for chunk in asked.chunks}):
        contenders[f"vmap, {chunk} at once"] = functools.partial(
            run_chunks, learner, data, keys, weights, chunk
        )
    if not asked.without_map:
        contenders["lax.map in one program"] = lambda: jax.block_until_ready(
            _mapped(learner)(keys, weights, data)
        )
    if len(jax.devices()) > 1:
        contenders[f"shard_map over {len(jax.devices())} devices"] = lambda: (
            run_sharded(learner, data, keys, weights)
        )
    with Pair(name, members) if processes else Nobody() as pair:
        if processes:
            contenders["two processes, a core each"] = pair.run
        seconds = turns(contenders, rounds)
    params = jax.eval_shape(learner.model.init, jax.random.key(0)).params
    first = seconds["one after another"]
    chosen = choose_members(learner, data)
    for contender, one in seconds.items():
        print(
            f"| {NETS[name].title} | {tree.size(params)} | {contender} "
            f"| {1e3 * one.wall / members:.1f} | {1e3 * one.cpu / members:.1f} "
            f"| {first.wall / one.wall:.2f} | {first.cpu / one.cpu:.2f} |",
            flush=True,
        )
    print(f"| {NETS[name].title} | | `auto` takes: {chosen} | | | | |", flush=True)


def work(name: str, members: int) -> tuple[Learner, Batch, Any, Any]:
    """Normal noise with random classes, halves of it, and the learner."""
    net = NETS[name]
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(net.examples, *net.shape)).astype(np.float32)
    data = from_arrays(inputs, draw.integers(0, 10, net.examples))
    recipe = Recipe(epochs=net.epochs, batch_size=net.batch, learning_rate=0.01)
    model = MODELS[net.model](net.shape, 10, **net.options)
    weights = subset_masks(0, members, net.examples, 0.5).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), members)
    data = Batch(*(jnp.asarray(field) for field in data))
    return Learner(model, cross_entropy, 0.0, recipe), data, keys, jnp.asarray(weights)


def run_singles(learner: Learner, data: Batch, keys: Any, weights: Any) -> Any:
    run = single_program(learner)
    return [jax.block_until_ready(run(k, w, data)) for k, w in zip(keys, weights)]  # noqa: B905


def run_chunks(
    learner: Learner, data: Batch, keys: Any, weights: Any, chunk: int
) -> Any:
    run = member_program(learner)
    return [
        jax.block_until_ready(run(keys[i : i + chunk], weights[i : i + chunk], data))
        for i in range(0, len(weights), chunk)
    ]


def run_sharded(learner: Learner, data: Batch, keys: Any, weights: Any) -> Any:
    mesh = member_mesh()
    part = shard_members(mesh, (keys, weights))
    run = member_program(learner, mesh)
    return jax.block_until_ready(run(*part, replicate(mesh, data)))


@functools.cache
def _mapped(learner: Learner) -> Callable[..., Any]:
    def one(data: Batch, pair: Any) -> Any:
        key, weights = pair
        return fit(key, learner, data._replace(weights=weights))

    return jax.jit(
        lambda keys, weights, data: jax.lax.map(
            functools.partial(one, data), (keys, weights)
        )
    )


class Nobody:
    """In place of the processes where they are not wanted."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class Pair:
    """Two processes, each on half of the cores, that train half of the members each."""

    def __init__(self, name: str, members: int):
        context = multiprocessing.get_context("spawn")
        cores = sorted(os.sched_getaffinity(0))
        self._workers = []
        for number in range(2):
            ours, theirs = context.Pipe()
            share = cores[number::2] or cores
            process = context.Process(
                target=_serve, args=(theirs, name, members // 2, share), daemon=True
            )
            process.start()
            self._workers.append((process, ours))

    def __enter__(self) -> "Pair":
        for _, pipe in self._workers:
            pipe.recv()
        return self

    def __exit__(self, *exception: object) -> None:
        for process, pipe in self._workers:
            pipe.close()
            process.join()

    def run(self) -> float:
        """Train; the CPU seconds of both."""
        for _, pipe in self._workers:
            pipe.send("go")
        return sum(pipe.recv() for _, pipe in self._workers)


def _serve(pipe: Any, name: str, members: int, cores: list[int]) -> None:
    os.sched_setaffinity(0, cores)
    learner, data, keys, weights = work(name, members)
    vmapped = choose_members(learner, data) == "vmap"

    def train() -> None:
        if vmapped:
            run_chunks(learner, data, keys, weights, min(16, members))
        else:
            run_singles(learner, data, keys, weights)

    train()
    pipe.send("ready")
    try:
        while pipe.recv():
            start = time.process_time()
            train()
            pipe.send(time.process_time() - start)
    except EOFError:
        pass


def turns(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Seconds]:
    """Medians of contenders that take turns, each after one warm-up call.

    A contender that returns a number has used so many CPU seconds elsewhere.
    """
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    cpus: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    for _ in range(rounds):
        for name, call in contenders.items():
            time.sleep(0.1)  # threads of the previous contender go to sleep
            wall, cpu = time.perf_counter(), time.process_time()
            found = call()
            walls[name].append(time.perf_counter() - wall)
            cpu = time.process_time() - cpu
            cpus[name].append(cpu + (found if isinstance(found, float) else 0.0))
    median = statistics.median
    return {name: Seconds(median(walls[name]), median(cpus[name])) for name in walls}


if __name__ == "__main__":
    main()
